//! What the audit finds, and of which saga.

use std::process::Command;

use saga_defs::Timestamp;
use saga_store::conformance::{Part, Spoil};
use saga_store::{LateReason, LateReply, SqlStore};
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

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_a_finding_and_the_rest_is_audited() {
    let local = Local::start(None, None, &[], "").await;
    let slots = local.api.free_slots(3).await;
    let mut ids = Vec::new();
    for (n, slot) in slots.iter().enumerate() {
        let id = local.api.accepted("booking", &format!("saga-{n}"), &input(slot, "tok_visa")).await;
        local.api.until(&id, "completed").await;
        ids.push(id);
    }
    let store = SqlStore::new(local.stack.databases.engine.clone());
    for (id, part) in ids.iter().zip([Part::State, Part::Input]) {
        store.spoil(id.parse().expect("an id"), part).await;
    }
    let unread = local.api.get(&format!("/v1/sagas/{}", ids[0])).await;
    assert_eq!((unread.status, unread.text("code")), (500, "saga_unreadable"), "{unread:?}");
    let data = local.data.display().to_string();
    for (only, found) in [(None, &[1, 0][..]), (Some(0), &[0]), (Some(2), &[])] {
        let mut audit = vec!["audit", "--data", &data, "-o", "json"];
        audit.extend(only.into_iter().flat_map(|n: usize| ["--saga", ids[n].as_str()]));
        let output = Command::new(BIN).args(audit).output().expect("the audit runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("one document");
        let finding = |n: &usize| {
            let detail = format!("its {} is not what was written (not JSON: line 1, column 6)", ["state", "input"][*n]);
            json!({"rule": "readable", "subject": ids[*n], "detail": detail})
        };
        let found: Vec<Value> = found.iter().map(finding).collect();
        let mut findings = report["findings"].as_array().expect("a list").clone();
        findings.sort_by_key(|finding| finding["detail"].to_string());
        assert_eq!((output.status.code(), findings), (Some(i32::from(!found.is_empty())), found), "{only:?}");
    }
}
