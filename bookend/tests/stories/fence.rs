//! A pivot whose participant can undo, cancelled while it is unknown: the answer and the effect must agree.

use std::time::Duration;

use bookend::dev::CLIENT_TOKEN;
use reqwest::Method;
use saga_defs::{Definition, Retry};
use serde_json::json;
use testkit::services::Services;
use tokio::task::JoinSet;
use transport::in_process::Faults;

use crate::common::{Api, Cluster, LIMIT, Local, Shape, Simulators, booking_as, definitions, input};

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
    // What is lost is asked for by the fence alone.
    let faults = Faults { seed: 5, redeliver_percent: 20, reorder_percent: 20, lose_percent: 20 };
    let local = Local::start(Some(faults), Some(&reserve_only()), &[], "").await;
    let slots = local.api.free_slots(SAGAS).await;
    let ids = start_and_cancel(&local.api, &slots).await;
    told_the_truth(&local.api, &ids).await;
    assert_eq!(local.stack.shutdown(Duration::from_secs(10)).await, 0, "no task is left");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn a_fence_at_a_participant_that_can_undo_tells_the_truth_on_services() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = definitions(dir.path(), &reserve_only()).display().to_string();
    let simulators = Simulators::start(&[]).await;
    let env = [("BOOKEND_DEFINITIONS__DIR", folder.as_str())];
    let cluster = Cluster::start(&Services::shared(), &Shape::default(), &simulators, &env).await;
    let slots = cluster.api.free_slots(SAGAS).await;
    let (at_once, frozen) = slots.split_at(SAGAS / 2);
    let mut ids = start_and_cancel(&cluster.api, at_once).await;
    // Nobody answers these before their fence is asked.
    let participants = &cluster.sites[0].process;
    participants.freeze().expect("the signal is sent");
    ids.extend(start_and_cancel(&cluster.api, frozen).await);
    participants.thaw().expect("the signal is sent");
    told_the_truth(&cluster.api, &ids).await;
}

/// Each is cancelled as soon as it was accepted.
async fn start_and_cancel(api: &Api, slots: &[String]) -> Vec<String> {
    let mut asking = JoinSet::new();
    for slot in slots {
        let (api, slot) = (api.clone(), slot.clone());
        asking.spawn(async move {
            let id = api.accepted("reserve-only", &slot, &input(&slot, "tok_visa")).await;
            cancel(&api, &id).await;
            id
        });
    }
    asking.join_all().await
}

async fn told_the_truth(api: &Api, ids: &[String]) {
    api.all_ended(LIMIT).await;
    let (mut committed, mut undone) = (0, 0);
    for id in ids {
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
