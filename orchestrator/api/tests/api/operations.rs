//! Operations on sagas, over HTTP as clients and admins ask for them.

use crate::common::{CHIEF, DESK, Desk, GOOD, OTHER, SILENT, body, reason};
use std::time::Duration;

use axum::http::Method;
use saga_store::Fault;
use saga_store::conformance::Part;
use serde_json::{Value, json};

fn actions(saga: &Value) -> Vec<(String, bool)> {
    let name = |action: &Value| (action["name"].as_str().expect("a name").to_owned(), action["allowed"] == true);
    saga["actions"].as_array().expect("actions").iter().map(name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_applied_once_however_often_it_is_sent() {
    let desk = Desk::new().await;
    let stuck = desk.stuck().await;
    let (id, etag) = (stuck.id(), stuck.header("etag"));
    let headers = [("idempotency-key", "r"), ("if-match", etag)];
    let applied = desk.operate(&id, "retry", CHIEF, &headers, &reason()).await;
    assert_eq!(applied.status, 202, "{applied:?}");
    assert_eq!(applied.header("etag"), format!("\"{}\"", applied.body["version"]));
    assert_ne!(applied.header("etag"), etag);
    assert_eq!((&applied.body["status"], applied.header("idempotent-replayed")), (&json!("running"), ""));

    let again = desk.operate(&id, "retry", CHIEF, &headers, &reason()).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (202, "true"), "{again:?}");
    assert_eq!(again.body["operation_id"], applied.body["operation_id"]);
    let other = desk.operate(&id, "retry", CHIEF, &headers, &json!({"reason": "another"})).await;
    assert_eq!(other.problem(), (422, "idempotency_key_reused"));

    let history = desk.get(&format!("/v1/sagas/{id}/history?limit=200"), CHIEF).await;
    let rows = history.body["data"].as_array().unwrap().clone();
    let operations: Vec<_> = rows.iter().filter(|row| !row["operation_id"].is_null()).collect();
    assert_eq!(operations.len(), 1, "once");
    assert_eq!(operations[0]["operation_id"], applied.body["operation_id"]);
    assert_eq!((&operations[0]["actor"], &operations[0]["reason"]), (&json!("admin:chief"), &json!("a test")));
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_meant_for_the_version_that_was_seen() {
    let desk = Desk::new().await;
    let stuck = desk.stuck().await;
    let id = stuck.id();
    let version = stuck.body["version"].as_u64().unwrap();
    let ask = async |action: &str, headers: &[(&str, &str)]| desk.operate(&id, action, CHIEF, headers, &reason()).await;
    let stale = ask("retry", &[("idempotency-key", "a"), ("if-match", "\"1\"")]).await;
    assert_eq!(stale.problem(), (412, "precondition_failed"));
    assert_eq!((&stale.body["version"], stale.header("etag")), (&json!(version), stuck.header("etag")));
    assert_eq!(ask("retry", &[("idempotency-key", "a")]).await.problem(), (428, "precondition_required"));
    let etag = stuck.header("etag");
    assert_eq!(ask("retry", &[("if-match", etag)]).await.problem(), (400, "idempotency_key_missing"));
    for bad in ["*", "7", "\"x\""] {
        let answer = ask("close", &[("idempotency-key", "a"), ("if-match", bad)]).await;
        assert_eq!(answer.problem(), (400, "if_match_invalid"), "{bad}");
    }
    assert_eq!(desk.until(&id, "stuck").await.body["version"], version, "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn a_skip_takes_an_output_and_the_others_do_not() {
    let desk = Desk::new().await;
    let stuck = desk.stuck().await;
    let (id, etag) = (stuck.id(), stuck.header("etag"));
    let headers = [("idempotency-key", "s"), ("if-match", etag)];
    let with_output = json!({"reason": "told by phone", "output": {"channel": "phone"}});
    assert_eq!(desk.operate(&id, "retry", CHIEF, &headers, &with_output).await.problem(), (422, "invalid_body"));
    for wrong in
        [json!({}), json!({"reason": " "}), json!({"reason": "x".repeat(501)}), json!({"reason": "x", "output": [1]})]
    {
        assert_eq!(
            desk.operate(&id, "skip", CHIEF, &headers, &wrong).await.problem(),
            (422, "invalid_body"),
            "{wrong}"
        );
    }
    let skipped = desk.operate(&id, "skip", CHIEF, &headers, &with_output).await;
    assert_eq!((skipped.status.as_u16(), &skipped.body["status"]), (202, &json!("completed")), "{skipped:?}");
    assert_eq!(skipped.body["steps"][3]["status"], "skipped");
    let ended = [("idempotency-key", "t"), ("if-match", skipped.header("etag"))];
    let answer = desk.operate(&id, "close", CHIEF, &ended, &reason()).await;
    assert_eq!(answer.problem(), (409, "action_not_possible"));
    assert_eq!((&answer.body["actions"], &answer.body["reason"]), (&json!([]), &json!("the saga has ended")));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_saga_can_be_closed_and_not_undone_once_it_is_decided() {
    let desk = Desk::new().await;
    let stuck = desk.stuck().await;
    let (id, etag) = (stuck.id(), stuck.header("etag"));
    let headers = [("idempotency-key", "c"), ("if-match", etag)];
    for action in ["compensate", "cancel"] {
        let answer = desk.operate(&id, action, CHIEF, &headers, &reason()).await;
        assert_eq!(answer.problem(), (409, "action_not_possible"));
        assert_eq!(answer.body["actions"], json!(["retry", "skip", "close"]));
    }
    let closed = desk.operate(&id, "close", CHIEF, &headers, &reason()).await;
    assert_eq!((&closed.body["status"], &closed.body["decision"]), (&json!("closed"), &json!("committed")));
}

#[tokio::test(start_paused = true)]
async fn an_undecided_saga_can_be_undone_by_an_admin() {
    let desk = Desk::new().await;
    let started = desk.start_with("one", &body(SILENT), &[("prefer", "wait=1")]).await;
    let headers = [("idempotency-key", "u"), ("if-match", started.header("etag"))];
    let undone = desk.operate(&started.id(), "compensate", CHIEF, &headers, &reason()).await;
    assert_eq!((undone.status.as_u16(), &undone.body["status"]), (202, &json!("compensating")), "{undone:?}");
    assert_eq!(undone.body["failure"]["code"], "compensate_requested");
}

#[tokio::test(start_paused = true)]
async fn a_client_cancels_its_own_saga_and_repairs_none() {
    let desk = Desk::new().await;
    let started = desk.start_with("one", &body(SILENT), &[("prefer", "wait=1")]).await;
    let id = started.id();
    let allowed: Vec<_> = actions(&started.body).into_iter().filter(|(_, allowed)| *allowed).collect();
    assert_eq!(allowed, [("cancel".to_owned(), true)]);
    let retry = &started.body["actions"][0];
    assert!(retry["reason"].as_str().unwrap().contains("admin"), "{retry}");
    let any = [("idempotency-key", "x"), ("if-match", "*")];
    for action in ["retry", "skip", "compensate", "close"] {
        assert_eq!(desk.operate(&id, action, DESK, &any, &reason()).await.problem(), (403, "forbidden"), "{action}");
    }
    let cancelled = desk.operate(&id, "cancel", DESK, &any, &reason()).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.body["cancel"]["outcome"]), (202, &json!("granted")));
    let undone = desk.until(&id, "compensated").await.body;
    assert_eq!((&undone["decision"], &undone["failure"]["code"]), (&json!("undone"), &json!("cancelled")));
    let history = desk.get(&format!("/v1/sagas/{id}/history?limit=200"), DESK).await.body;
    assert!(
        history["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["actor"] == "client:desk" && row["reason"] == "a test")
    );
    let too_late = desk.operate(&id, "cancel", DESK, &[("idempotency-key", "y"), ("if-match", "*")], &reason()).await;
    assert_eq!(too_late.problem(), (409, "action_not_possible"));
}

#[tokio::test(start_paused = true)]
async fn unknown_actions_and_methods_are_problems() {
    let desk = Desk::new().await;
    let id = desk.start("one", GOOD).await.id();
    let headers = [("idempotency-key", "x"), ("if-match", "*")];
    assert_eq!(desk.operate(&id, "explode", CHIEF, &headers, &reason()).await.problem(), (404, "route_not_found"));
    let deleted = desk.ask(Method::DELETE, &format!("/v1/sagas/{id}"), CHIEF, &[], None).await;
    assert_eq!(deleted.problem(), (405, "method_not_allowed"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_told_as_something_to_repeat() {
    let desk = Desk::new().await;
    let faults = 1_000;
    for _ in 0..faults {
        desk.store.fail_next(Fault::Unavailable);
    }
    let unknown = desk.start("one", GOOD).await;
    assert_eq!((unknown.problem(), unknown.header("retry-after")), ((503, "outcome_unknown"), "1"));
    assert!((1..faults).contains(&desk.store.fired(Fault::Unavailable)));
    let started = async || desk.get("/v1/sagas", DESK).await.body["data"].as_array().unwrap().len();
    assert_eq!(started().await, 0);
    let again = async || {
        let answer = desk.start("one", GOOD).await;
        if answer.status.is_success() { Ok(answer) } else { Err(format!("{answer:?}")) }
    };
    testkit::eventually(Duration::from_secs(3_600), "the store is back", again).await;
    assert_eq!(started().await, 1, "however often it was repeated");
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_can_not_be_read_says_so_to_whom_it_belongs() {
    let desk = Desk::new().await;
    let id = desk.start("one", GOOD).await.id();
    desk.until(&id, "completed").await;
    desk.store.make_unreadable(id.parse().unwrap(), Part::State);
    for token in [DESK, CHIEF] {
        let read = desk.get(&format!("/v1/sagas/{id}"), token).await;
        assert_eq!(read.problem(), (500, "saga_unreadable"));
        assert_eq!(read.body["saga_id"], id);
        assert_eq!(desk.get(&format!("/v1/sagas/{id}/history"), token).await.problem(), (500, "saga_unreadable"));
        let headers = [("idempotency-key", "a"), ("if-match", "*")];
        assert_eq!(desk.operate(&id, "cancel", token, &headers, &reason()).await.problem(), (500, "saga_unreadable"));
    }
    assert_eq!(desk.get(&format!("/v1/sagas/{id}"), OTHER).await.problem(), (404, "not_found"), "ids are not told");
    assert_eq!(desk.get("/v1/sagas", DESK).await.body["data"][0]["id"], id);
}
