//! A participant frozen with commands that it has not handled, and let go on after their sagas were compensated and
//! their slots booked by others: what it does late is refused.

use bookend::dev::CLIENT_TOKEN;
use reqwest::Method;
use saga_defs::{Definition, Retry};
use serde_json::json;
use testkit::eventually;
use testkit::services::Services;

use crate::common::{Api, Cluster, LIMIT, Shape, Simulators, booking_as, definitions, input};
use crate::load::adds_up;

const SAGAS: usize = 20;

/// Asks again soon, and for long: every other command goes to the frozen one.
fn persistent() -> Definition {
    let mut definition = booking_as("persistent");
    let retry = Retry { timeout_ms: 500, attempts: 40, backoff_ms: 10, backoff_max_ms: 50 };
    for step in &mut definition.steps {
        step.retry = retry;
        step.compensate_retry = retry;
    }
    definition
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn frozen_participant() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = definitions(dir.path(), &persistent()).display().to_string();
    let simulators = Simulators::start(&[]).await;
    // The broker must not notice: its deliveries stay with the frozen one.
    let env = [("BOOKEND_DEFINITIONS__DIR", folder.as_str()), ("BOOKEND_BROKER__HEARTBEAT_MS", "120000")];
    let shape = Shape { sites: vec![vec!["booking"], vec!["payment", "confirmation", "notify"]], ..Shape::default() };
    let mut cluster = Cluster::start(&Services::shared(), &shape, &simulators, &env).await;
    let api = &cluster.api.clone();
    let slots = api.free_slots(SAGAS).await;
    // The only one so far: the first commands are all delivered to it.
    cluster.sites[0].process.freeze().expect("the signal is sent");

    let mut cancelled = Vec::new();
    for (n, slot) in slots.iter().enumerate() {
        let id = api.accepted("persistent", &format!("first-{n}"), &input(slot, "tok_visa")).await;
        cancel(api, &id).await;
        cancelled.push(id);
    }
    cluster.add_site(vec!["booking"], &env).await;
    api.all_ended(LIMIT).await;
    let mut free = Vec::new();
    for (id, slot) in cancelled.iter().zip(&slots) {
        if api.saga(id).await.text("status") == "compensated" {
            free.push(slot.clone());
        }
    }
    assert!(free.len() >= SAGAS / 4, "only {} sagas were cancelled in time", free.len());
    let mut rebooked = Vec::new();
    for (n, slot) in free.iter().enumerate() {
        let id = api.accepted("persistent", &format!("second-{n}"), &input(slot, "tok_visa")).await;
        rebooked.push(id);
    }
    for id in &rebooked {
        assert_eq!(api.until(id, "completed").await.text("decision"), "committed");
    }

    let frozen = &cluster.sites[0];
    frozen.process.thaw().expect("the signal is sent");
    let refused = eventually(LIMIT, "the late commands are handled", async || {
        let refused = frozen.api.counter("bookend_inbox_messages_total", "fenced").await;
        if refused > 0.0 { Ok(refused) } else { Err("none was refused") }
    })
    .await;
    println!("{} slots booked anew while a participant was frozen; it refused {refused} late commands", free.len());
    for id in &rebooked {
        let page = api.get(&format!("/v1/clinic/appointments?saga_id={id}")).await;
        let all = page.body["data"].as_array().expect("a page").clone();
        assert_eq!((all.len(), &all[0]["status"]), (1, &json!("confirmed")), "{all:?}");
    }
    adds_up(&cluster, &simulators).await;
}

async fn cancel(api: &Api, id: &str) {
    let headers = [("if-match", "*"), ("idempotency-key", "cancel")];
    let body = json!({"reason": "changed my mind"});
    let path = format!("/v1/sagas/{id}/cancel");
    let answer = api.ask(Method::POST, &path, CLIENT_TOKEN, &headers, Some(&body)).await.expect("an answer");
    assert!(matches!(answer.status, 202 | 409), "{answer:?}");
}
