//! Charges that land late, or whose answer never comes: the saga is undone and the net payment is zero.

use std::time::Duration;

use saga_defs::{Definition, Retry};
use serde_json::Value;
use testkit::eventually;

use crate::common::{Api, LIMIT, Product, Simulators, Stack, booking_as, definitions, input};

/// The payment step waits less than a charge takes.
fn impatient() -> Definition {
    let mut definition = booking_as("impatient");
    definition.steps[1].retry = Retry { timeout_ms: 200, attempts: 2, backoff_ms: 10, backoff_max_ms: 10 };
    definition.steps[1].compensate_retry = Retry { timeout_ms: 500, attempts: 60, backoff_ms: 50, backoff_max_ms: 200 };
    definition
}

#[tokio::test(flavor = "multi_thread")]
async fn late_charge() {
    story(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn late_charge_on_services() {
    story(Stack::Services).await;
}

async fn story(stack: Stack) {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = definitions(dir.path(), &impatient()).display().to_string();
    let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", "1500")]).await;
    let env = [("BOOKEND_DEFINITIONS__DIR", folder.as_str()), ("BOOKEND_PAYMENT__TIMEOUT_MS", "3000")];
    let product = Product::start(stack, &simulators, &env).await;
    let api = product.api();
    let slots = api.free_slots(8).await;
    let mut late = 0;
    for (n, slot) in slots.iter().enumerate() {
        let payment_method = if n % 2 == 0 { "tok_slow" } else { "tok_timeout" };
        let id = api.accepted("impatient", &format!("late-{n}"), &input(slot, payment_method)).await;
        let saga = api.until(&id, "compensated").await;
        assert_eq!(saga.text("decision"), "undone", "{saga:?}");
        assert_eq!(api.net(&id).await, 0, "nothing is kept for {payment_method}");
        let landed = accepted_at(&simulators, &id, "charge").await;
        let asked = undo_asked_at(api, &id).await;
        let after = landed.is_some_and(|landed| landed > asked);
        println!("{payment_method}: charge landed {}", if after { "after the undo was asked for" } else { "before" });
        late += usize::from(after);
    }
    let summary = simulators.summary().await;
    println!("charges that landed after the undo was asked for: {late}; providers: {summary}");
    assert!(late > 0, "no charge was late: proves nothing");
    assert_eq!(summary["accepted"]["charge"], summary["accepted"]["refund"], "every charge was given back");
    eventually(LIMIT, "the slots are free again", async || {
        let free = api.free_slots(8).await;
        if slots.iter().all(|slot| free.contains(slot)) { Ok(()) } else { Err("some are held") }
    })
    .await;
    api.all_ended(Duration::from_secs(30)).await;
    product.audit().await;
}

/// When the provider accepted this saga's effect, in microseconds.
async fn accepted_at(simulators: &Simulators, saga: &str, kind: &str) -> Option<i64> {
    let id: uuid::Uuid = saga.parse().expect("an id");
    let key = saga_defs::ids::effect_key(id, "payment", 0);
    let page = simulators.api.get(&format!("/accepted?kind={kind}&key={key}:execute&limit=10")).await;
    page.body["data"][0]["at"].as_i64()
}

/// When the engine first asked for the undo of the payment, in microseconds.
async fn undo_asked_at(api: &Api, saga: &str) -> i64 {
    let page = api.get(&format!("/v1/sagas/{saga}/history?limit=200")).await;
    let rows = page.body["data"].as_array().expect("a page");
    let events = rows.iter().flat_map(|row| row["events"].as_array().expect("events"));
    let is_undo =
        |event: &&Value| event["type"] == "sent" && event["step"] == "payment" && event["verb"] == "compensate";
    events.filter(is_undo).filter_map(|event| event["at"].as_i64()).min().expect("the undo was asked for")
}
