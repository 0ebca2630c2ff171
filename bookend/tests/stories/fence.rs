//! A pivot whose participant can undo, cancelled while it is unknown: the answer and the effect must agree.

use bookend::dev::CLIENT_TOKEN;
use reqwest::Method;
use saga_defs::{Definition, Retry};
use serde_json::json;
use tokio::task::JoinSet;

use crate::common::{Api, LIMIT, Product, Simulators, Stack, booking_as, definitions, input};

const SAGAS: usize = 120;

/// Reserving is the only step and the pivot; its time-out is so short that the fence is often asked.
fn reserve_only() -> Definition {
    let mut definition = booking_as("reserve-only");
    definition.steps.truncate(1);
    definition.steps[0].pivot = true;
    definition.steps[0].compensate = None;
    definition.steps[0].retry = Retry { timeout_ms: 1, attempts: 1, backoff_ms: 0, backoff_max_ms: 0 };
    definition
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_at_a_participant_that_can_undo_tells_the_truth() {
    story(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn a_fence_at_a_participant_that_can_undo_tells_the_truth_on_services() {
    story(Stack::Services).await;
}

async fn story(stack: Stack) {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = definitions(dir.path(), &reserve_only()).display().to_string();
    let simulators = Simulators::start(&[]).await;
    let product = Product::start(stack, &simulators, &[("BOOKEND_DEFINITIONS__DIR", &folder)]).await;
    let api = product.api();
    let slots = api.free_slots(SAGAS).await;
    let mut asking = JoinSet::new();
    for (n, slot) in slots.into_iter().enumerate() {
        let api = api.clone();
        asking.spawn(async move {
            let id = api.accepted("reserve-only", &format!("fence-{n}"), &input(&slot, "tok_visa")).await;
            cancel(&api, &id).await;
            id
        });
    }
    let ids = asking.join_all().await;
    api.all_ended(LIMIT).await;
    let (mut committed, mut undone) = (0, 0);
    for id in &ids {
        let saga = api.saga(id).await;
        let held = is_held(api, id).await;
        match saga.text("decision") {
            "committed" => committed += usize::from(held),
            _ => undone += usize::from(!held),
        }
        assert_eq!(saga.text("decision") == "committed", held, "the slot of {id}: {saga:?}");
    }
    println!("{SAGAS} pivots that can be undone: {committed} stand, {undone} do not");
    assert_eq!(committed + undone, SAGAS);
    assert!(undone > 0, "no fence was asked: proves nothing");
}

async fn cancel(api: &Api, id: &str) {
    let headers = [("if-match", "*"), ("idempotency-key", "cancel")];
    let body = json!({"reason": "changed my mind"});
    let path = format!("/v1/sagas/{id}/cancel");
    let answer = api.ask(Method::POST, &path, CLIENT_TOKEN, &headers, Some(&body)).await.expect("an answer");
    assert!(matches!(answer.status, 202 | 409), "{answer:?}");
}

async fn is_held(api: &Api, saga: &str) -> bool {
    let page = api.get(&format!("/v1/clinic/appointments?saga_id={saga}")).await;
    let all = page.body["data"].as_array().expect("a page").clone();
    all.iter().any(|appointment| appointment["status"] != "released")
}
