//! Ended sagas are announced, archived and deleted; what is open or stuck stays, start keys stay, and it all adds up.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use saga_core::{Event, Saga};
use saga_defs::{Command, Definition, Retry, Timestamp, Verb, ids, message};
use saga_store::LateReason;
use serde_json::{Value, json};
use testkit::eventually;
use transport::{Handed, Message, Queue, Transport as _};
use uuid::Uuid;

use bookend::dev::ADMIN_TOKEN;

use crate::common::{Api, LIMIT, Local, Product, Simulators, Stack, booking_as, definitions, input};

const SAGAS: usize = 40;
/// Long enough for a saga on a busy machine, short enough to wait for its end.
const WINDOW_MS: u64 = 8_000;

/// A booking that participants need not remember for long.
fn short(name: &str) -> Definition {
    Definition { dedupe_window_ms: WINDOW_MS, ..booking_as(name) }
}

/// One that is stuck undecided: the pivot's payload refers to something that is not there.
fn broken() -> Definition {
    let mut definition = short("broken");
    definition.steps[2].payload = json!({"appointment_id": "${steps.payment.output.no_such_thing}"});
    definition
}

/// One that waits for its payment as long as it takes.
fn patient() -> Definition {
    let mut definition = booking_as("patient");
    definition.steps[1].retry = Retry { timeout_ms: 3_600_000, attempts: 1_000, ..Retry::default() };
    definition
}

/// What the archive's whole lines say.
fn archived(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder).expect("the archive's folder");
    let texts = files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a text"));
    texts.flat_map(|text| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>()).collect()
}

/// The history in a line of the archive leads to the state beside it.
fn explains_itself(line: &Value) {
    let state: Saga = serde_json::from_value(line["state"].clone()).expect("a state");
    let rows = line["history"].as_array().expect("a history");
    let events = |row: &Value| -> Vec<Event> {
        serde_json::from_str(row["events"].as_str().expect("the exact bytes")).expect("events")
    };
    let events: Vec<Vec<Event>> = rows.iter().map(events).collect();
    assert_eq!(saga_core::replay(events.iter().map(Vec::as_slice)).expect("a history"), state);
}

async fn until_gone(api: &Api, ids: &[String]) {
    eventually(LIMIT, "every ended saga is deleted", async || {
        let left = api.count("completed").await + api.count("compensated").await;
        if left == 0 { Ok(()) } else { Err(format!("{left} of {} are there", ids.len())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention() {
    ended_sagas_go_and_nothing_else(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn retention_on_services() {
    ended_sagas_go_and_nothing_else(Stack::Services).await;
}

async fn ended_sagas_go_and_nothing_else(stack: Stack) {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = dir.path().join("archive");
    let mut folder = dir.path().to_owned();
    for definition in [short("short"), broken(), patient()] {
        folder = definitions(dir.path(), &definition);
    }
    let (folder, archive_dir) = (folder.display().to_string(), archive.display().to_string());
    let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", "3600000")]).await;
    let env = [
        ("BOOKEND_DEFINITIONS__DIR", folder.as_str()),
        ("BOOKEND_RETENTION__AFTER_MS", "500"),
        ("BOOKEND_RETENTION__EVERY_MS", "200"),
        ("BOOKEND_RETENTION__BATCH_MAX", "16"),
        ("BOOKEND_RETENTION__ARCHIVE_DIR", archive_dir.as_str()),
    ];
    let product = Product::start(stack, &simulators, &env).await;
    let api = product.api();
    let slots = api.free_slots(SAGAS + 2).await;
    let request = |n: usize| input(&slots[n], if n.is_multiple_of(4) { "tok_declined" } else { "tok_visa" });
    let stuck = api.accepted("broken", "stuck", &input(&slots[SAGAS], "tok_visa")).await;
    let running = api.accepted("patient", "running", &input(&slots[SAGAS + 1], "tok_slow")).await;
    let mut ended = Vec::new();
    for n in 0..SAGAS {
        ended.push(api.accepted("short", &format!("ended-{n}"), &request(n)).await);
    }
    api.until(&stuck, "stuck").await;
    until_gone(api, &ended).await;

    for id in &ended {
        assert_eq!(api.saga(id).await.status, 404);
        assert_eq!(api.get(&format!("/v1/sagas/{id}/history")).await.status, 404);
    }
    for n in [0, 1] {
        let again = api.start("short", &format!("ended-{n}"), &request(n), 0).await.expect("an answer");
        assert_eq!((again.status, again.text("code"), again.text("saga_id")), (410, "gone", ended[n].as_str()));
    }
    let lines = archived(&archive);
    lines.iter().for_each(explains_itself);
    let kept: BTreeSet<&str> = lines.iter().map(|line| line["saga"]["id"].as_str().expect("an id")).collect();
    assert_eq!(kept, ended.iter().map(String::as_str).collect());
    assert!(!format!("{lines:?}").contains("Lovelace"), "inputs are not archived");
    let forgotten = product.counter("bookend_inbox_forgotten_total", "").await;
    let deleted = product.counter("bookend_retention_deleted_total", "").await;
    assert_eq!(api.saga(&stuck).await.text("status"), "stuck");
    assert_eq!(api.saga(&running).await.text("status"), "running");
    println!(
        "{deleted} sagas deleted, {forgotten} inbox rows forgotten, {} lines archived; one stuck, one running",
        lines.len()
    );
    // Each saga has at least the rows of booking and payment.
    assert!(deleted as usize >= SAGAS && forgotten as usize >= 2 * SAGAS, "it proves nothing");
    product.audit().await;
}

/// Asks for the undo of a step, as a command that comes far too late would.
fn late_compensate(saga_id: Uuid, step: &str) -> Command {
    let key = ids::effect_key(saga_id, step, 0);
    Command {
        v: message::VERSION,
        command_id: ids::command_id(key, Verb::Compensate, 9),
        key,
        saga_id,
        tenant: "default".into(),
        definition: "short@1".into(),
        step: step.into(),
        participant: step.into(),
        verb: Verb::Compensate,
        command: format!("{step}.undo"),
        attempt: 9,
        first_sent_at: Timestamp(0),
        dedupe_until: Timestamp(0),
        deadline: Timestamp(0),
        payload: json!({}),
    }
}

/// What the participants knew is gone with the saga, and what they say of it then is kept as an orphan.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_after_the_end_of_everything_is_an_orphan() {
    let definition = Definition { dedupe_window_ms: 5_000, ..booking_as("short") };
    let flags = [("retention.after_ms", 500), ("retention.every_ms", 100)];
    let local = Local::start(None, Some(&definition), &flags, "").await;
    let slot = local.api.free_slots(1).await.remove(0);
    let id = local.api.accepted("short", "one", &input(&slot, "tok_visa")).await;
    local.api.until(&id, "completed").await;
    until_gone(&local.api, std::slice::from_ref(&id)).await;

    let saga_id: Uuid = id.parse().expect("an id");
    let publisher = local.stack.transport.publisher();
    let steps = ["booking", "payment", "confirmation", "notify"];
    for step in steps {
        let body = serde_json::to_string(&late_compensate(saga_id, step)).expect("JSON");
        let queue = Queue::Participant(step.to_owned());
        assert_eq!(publisher.publish(&[Message::new(Uuid::new_v4(), queue, body)]), [Handed::Over]);
    }
    let store = local.stack.engine.store();
    let late = eventually(LIMIT, "four orphans are kept", async || {
        let late = store.late(saga_id).await.expect("the store reads");
        if late.len() == steps.len() { Ok(late) } else { Err(late.len().to_string()) }
    })
    .await;
    for reply in &late {
        let told: Value = serde_json::from_str(&reply.reply).expect("JSON");
        // With its row a pivot would say that it stands.
        assert_eq!((reply.reason, &told["outcome"]), (LateReason::Orphan, &json!("succeeded")), "{reply:?}");
    }
    assert_eq!(local.api.net(&id).await, 4_500, "nothing was undone");
    let path = format!("/v1/sagas/{id}/cancel");
    let headers = [("if-match", "*"), ("idempotency-key", "late")];
    let cancel = local.api.ask(Method::POST, &path, ADMIN_TOKEN, &headers, Some(&json!({"reason": "late"}))).await;
    assert_eq!(cancel.expect("an answer").status, 404);
    println!("{} replies of forgotten effects kept as orphans", late.len());
    local.audit().await;
}
