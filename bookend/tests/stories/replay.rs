//! For every saga, folding history gives the stored state; on a transport that repeats, reorders and loses.

use std::time::Duration;

use saga_defs::Retry;
use tokio::task::JoinSet;
use transport::in_process::Faults;

use crate::common::{LIMIT, Local, booking_as, input};

const SAGAS: usize = 120;

#[tokio::test(flavor = "multi_thread")]
async fn replay() {
    let mut definition = booking_as("patient");
    for step in &mut definition.steps {
        step.retry = Retry { timeout_ms: 2_000, attempts: 20, backoff_ms: 20, backoff_max_ms: 100 };
        step.compensate_retry = step.retry;
    }
    let faults = Faults { seed: 11, redeliver_percent: 30, reorder_percent: 30, lose_percent: 10 };
    let local = Local::start(Some(faults), Some(&definition), &[], "").await;
    let slots = local.api.free_slots(SAGAS / 2).await;
    let mut asking = JoinSet::new();
    for n in 0..SAGAS {
        let payment_method = if n % 3 == 0 { "tok_declined" } else { "tok_visa" };
        let (api, input) = (local.api.clone(), input(&slots[n / 2], payment_method));
        asking.spawn(async move { api.accepted("patient", &format!("replay-{n}"), &input).await });
    }
    let ids = asking.join_all().await;
    local.api.all_ended(LIMIT).await;
    let store = local.stack.engine.store();
    for id in &ids {
        let id = id.parse().expect("an id");
        saga_store::check_replay(&**store, id).await.expect("history explains the state");
    }
    let bites = local.stack.transport.bites();
    println!("{} sagas folded; {bites:?}", ids.len());
    assert!(bites.redelivered > 0 && bites.reordered > 0 && bites.lost > 0, "the faults did not bite: {bites:?}");
    assert_eq!(local.api.count("stuck").await, 0);
    local.audit().await;
    assert_eq!(local.stack.shutdown(Duration::from_secs(10)).await, 0, "no task is left");
}
