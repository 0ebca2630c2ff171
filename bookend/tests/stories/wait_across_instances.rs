//! Waits at one orchestrator while two decide: an answer comes soon after the decision, also when hints are lost.

use reqwest::Method;
use runtime::clock::{Clock, SystemClock};
use testkit::services::Services;
use tokio::task::JoinSet;

use crate::common::{Api, Cluster, LIMIT, Shape, Simulators, input};

const WAITS: usize = 200;
const ANSWERED_WITHIN_MS: i64 = 300;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn wait_across_instances() {
    let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", "1500")]).await;
    let env = [("BOOKEND_SEED__SLOTS", "400"), ("BOOKEND_PARTICIPANTS__CALLS_MAX", "256")];
    let cluster = Cluster::start(&Services::shared(), &Shape::default(), &simulators, &env).await;
    let slots = cluster.api.free_slots(2 * WAITS).await;
    let hinted = p99(&cluster, "hinted", &slots[..WAITS]).await;
    let lost = cluster.vhost.unbind_all("bookend.hints").await.expect("the broker unbinds");
    assert_eq!(lost, cluster.servers.len(), "every orchestrator heard hints, and hears none now");
    let polled = p99(&cluster, "polled", &slots[WAITS..]).await;
    println!(
        "{WAITS} waits at one of two orchestrators: p99 {hinted} ms after the decision, {polled} ms without hints"
    );
    assert!(hinted <= ANSWERED_WITHIN_MS && polled <= ANSWERED_WITHIN_MS, "{hinted} ms, {polled} ms");
    cluster.api.all_ended(LIMIT).await;
    cluster.audit().await;
}

/// How long after the decision 99 of 100 answers came, in milliseconds.
async fn p99(cluster: &Cluster, name: &str, slots: &[String]) -> i64 {
    let (starts_at, waits_at) = (cluster.at(0), cluster.at(1));
    let mut waiting = JoinSet::new();
    for (n, slot) in slots.iter().enumerate() {
        let (starts_at, waits_at, key) = (starts_at.clone(), waits_at.clone(), format!("{name}-{n}"));
        let input = input(slot, "tok_slow");
        waiting.spawn(async move {
            let id = starts_at.accepted("booking", &key, &input).await;
            late_by(&waits_at, &id).await
        });
    }
    let mut late: Vec<i64> = waiting.join_all().await;
    late.sort_unstable();
    late[late.len() * 99 / 100]
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
