//! Waits at one orchestrator while two decide: an answer comes soon after the decision, also when hints are lost.

use std::time::Duration;

use reqwest::Method;
use runtime::clock::{Clock, SystemClock};
use testkit::services::Services;
use tokio::task::JoinSet;

use crate::common::{Api, Cluster, LIMIT, Shape, Simulators, input};

const WAITS: usize = 200;
const ANSWERED_WITHIN_MS: i64 = 300;
/// Between two starts, and so about between two decisions: a load that a debug build on two cores is not busy with.
const PACE: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn wait_across_instances() {
    let (hinted, heard) = p99("true").await;
    let (polled, unheard) = p99("false").await;
    println!(
        "{WAITS} waits at one of two orchestrators: p99 {hinted} ms after the decision with {heard} hints heard, \
         {polled} ms with {unheard}"
    );
    assert!(heard > 0.0 && unheard == 0.0, "hints made no difference: proves nothing");
    assert!(hinted <= ANSWERED_WITHIN_MS && polled <= ANSWERED_WITHIN_MS, "{hinted} ms, {polled} ms");
}

/// How long after the decision 99 of 100 answers came, in milliseconds, and how many hints the one waited at has heard.
async fn p99(hints: &str) -> (i64, f64) {
    // All waits are there before the first decision, and the decisions are spread as the starts were.
    let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", "16000")]).await;
    let mut env = vec![
        ("BOOKEND_PAYMENT__TIMEOUT_MS", "25000"),
        ("BOOKEND_PARTICIPANTS__CALLS_MAX", "256"),
        ("BOOKEND_PARTICIPANTS__PREFETCH", "256"),
    ];
    env.push(("BOOKEND_ENGINE__HINTS", hints));
    let cluster = Cluster::start(&Services::shared(), &Shape::default(), &simulators, &env).await;
    let slots = cluster.api.free_slots(WAITS).await;
    let (starts_at, waits_at) = (cluster.at(0), cluster.at(1));
    let mut waiting = JoinSet::new();
    let mut pace = tokio::time::interval(PACE);
    for (n, slot) in slots.iter().enumerate() {
        pace.tick().await;
        let id = starts_at.accepted("booking", &format!("wait-{n}"), &input(slot, "tok_slow")).await;
        let waits_at = waits_at.clone();
        waiting.spawn(async move { late_by(&waits_at, &id).await });
    }
    assert_eq!(starts_at.count("running").await, WAITS, "a saga was decided before all waits were there");
    let mut late: Vec<i64> = waiting.join_all().await;
    late.sort_unstable();
    cluster.api.all_ended(LIMIT).await;
    cluster.audit().await;
    (late[late.len() * 99 / 100], waits_at.counter("bookend_hints_heard_total", "").await)
}

async fn late_by(api: &Api, id: &str) -> i64 {
    let path = format!("/v1/sagas/{id}");
    let asked = api.ask(Method::GET, &path, bookend::dev::ADMIN_TOKEN, &[("prefer", "wait=60")], None);
    let answer = asked.await.expect("an answer");
    let answered = SystemClock.now();
    assert_eq!(answer.text("decision"), "committed", "{answer:?}");
    answered.0 / 1_000 - decided_at(api, id).await / 1_000
}

/// When a saga was decided, by its history, in microseconds.
async fn decided_at(api: &Api, id: &str) -> i64 {
    let page = api.get(&format!("/v1/sagas/{id}/history?limit=200")).await;
    let rows = page.body["data"].as_array().expect("a page").clone();
    let mut events = rows.iter().flat_map(|row| row["events"].as_array().expect("events"));
    let decided = events.find(|event| event["type"] == "decided").expect("the history tells of the decision");
    decided["at"].as_i64().expect("an instant")
}
