//! 500 sagas at once on 50 slots.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::common::{Product, Simulators, Stack, input};

const SLOTS: usize = 50;
const SAGAS: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn burst() {
    story(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn burst_on_services() {
    story(Stack::Services).await;
}

async fn story(stack: Stack) {
    let simulators = Simulators::start(&[]).await;
    let product = Product::start(stack, &simulators, &[("BOOKEND_SEED__SLOTS", "50")]).await;
    let slots = product.api().free_slots(SLOTS).await;
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for n in 0..SAGAS {
        let (api, input) = (product.api().clone(), input(&slots[n % SLOTS], "tok_visa"));
        asking.spawn(async move { api.start("booking", &format!("burst-{n}"), &input, 60).await.expect("an answer") });
    }
    let answers = asking.join_all().await;
    let decided = begun.elapsed();
    let with = |decision: &str| answers.iter().filter(|answer| answer.text("decision") == decision).count();
    let taken = answers.iter().filter(|answer| answer.body["failure"]["code"] == "slot_taken").count();
    let waits = answers.iter().filter(|answer| attempts(&answer.body) > 1).count();
    println!(
        "{stack:?}: {SAGAS} sagas on {SLOTS} slots decided in {decided:.2?}: {} committed, {} refused, {taken} with slot_taken, \
         {waits} with a second attempt",
        with("committed"),
        with("refused")
    );
    assert_eq!((with("committed"), with("refused"), taken), (SLOTS, SAGAS - SLOTS, SAGAS - SLOTS));
    assert_eq!(waits, 0, "no time-out fired");
    assert!(decided < Duration::from_secs(60), "{decided:?}");
    product.api().all_ended(Duration::from_secs(60)).await;
    product.audit().await;
}

fn attempts(saga: &serde_json::Value) -> u64 {
    let steps = saga["steps"].as_array().expect("steps");
    steps.iter().filter_map(|step| step["execute_attempts"].as_u64()).max().unwrap_or(0)
}
