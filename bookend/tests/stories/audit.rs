//! What the audit finds, and of which saga.

use std::process::Command;

use saga_defs::Timestamp;
use saga_store::{LateReason, LateReply};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{BIN, Local, input};

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_is_found_by_its_saga() {
    let local = Local::start(None, None, &[], "").await;
    let slot = local.api.free_slots(1).await.remove(0);
    let id = local.api.accepted("booking", "one", &input(&slot, "tok_visa")).await;
    local.api.until(&id, "completed").await;
    local.audit().await;
    let late = |reason| LateReply {
        saga_id: id.parse().expect("an id"),
        command_id: Uuid::new_v4(),
        reason,
        reply: json!({"verb": "execute", "outcome": "refused", "code": "surprise"}).to_string(),
        received_at: Timestamp(7),
    };
    let late = [LateReason::Contradiction, LateReason::Contradiction, LateReason::Ended].map(late);
    local.stack.engine.store().keep_late(&late).await.expect("the store keeps");
    let data = local.data.display().to_string();
    for only in [None, Some(id.as_str())] {
        let mut audit = vec!["audit", "--data", &data, "-o", "json"];
        if let Some(id) = only {
            audit.extend(["--saga", id]);
        }
        let output = Command::new(BIN).args(audit).output().expect("the audit runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("one document");
        let found =
            json!([{"rule": "no_contradiction", "subject": id, "detail": "late replies that contradict it: 2"}]);
        assert_eq!((output.status.code(), &report["findings"]), (Some(1), &found), "{only:?}");
    }
}
