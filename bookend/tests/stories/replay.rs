//! For every saga, folding history gives the stored state; on a transport that repeats, reorders and loses.

use std::time::Duration;

use saga_defs::Retry;
use tokio::task::JoinSet;
use transport::in_process::Faults;

use saga_defs::Definition;
use saga_store::SqlStore;
use testkit::eventually;
use testkit::services::Services;

use crate::common::{Api, Cluster, LIMIT, Local, Shape, Simulators, booking_as, definitions, input};

const SAGAS: usize = 120;

/// A lost message costs a time-out; the budgets outlast the faults.
fn patient() -> Definition {
    let mut definition = booking_as("patient");
    for step in &mut definition.steps {
        step.retry = Retry { timeout_ms: 2_000, attempts: 20, backoff_ms: 20, backoff_max_ms: 100 };
        step.compensate_retry = step.retry;
    }
    definition
}

/// Starts sagas, two on each slot, one after the other being refused.
async fn start_all(api: &Api, slots: &[String]) -> Vec<String> {
    let mut asking = JoinSet::new();
    for n in 0..SAGAS {
        let payment_method = if n % 3 == 0 { "tok_declined" } else { "tok_visa" };
        let (api, input) = (api.clone(), input(&slots[n / 2], payment_method));
        asking.spawn(async move { api.accepted("patient", &format!("replay-{n}"), &input).await });
    }
    asking.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn replay() {
    let faults = Faults { seed: 11, redeliver_percent: 30, reorder_percent: 30, lose_percent: 10 };
    let local = Local::start(Some(faults), Some(&patient()), &[], "").await;
    let slots = local.api.free_slots(SAGAS / 2).await;
    let ids = start_all(&local.api, &slots).await;
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn replay_on_services() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = definitions(dir.path(), &patient()).display().to_string();
    let simulators = Simulators::start(&[]).await;
    let env = [("BOOKEND_DEFINITIONS__DIR", folder.as_str())];
    let cluster = Cluster::start(&Services::shared(), &Shape::default(), &simulators, &env).await;
    let slots = cluster.api.free_slots(SAGAS / 2).await;
    // The broker tells of its connections a moment after they are made.
    let all = 2 * (cluster.servers.len() + cluster.sites.len());
    eventually(LIMIT, "the broker tells of all connections", async || match cluster.vhost.connections().await {
        Ok(count) if count >= all => Ok(()),
        told => Err(format!("{told:?} of {all}")),
    })
    .await;
    let (ids, closed) = tokio::join!(start_all(&cluster.api, &slots), async {
        eventually(LIMIT, "sagas are under way", async || match cluster.api.count("running").await {
            0 => Err("none"),
            _ => Ok(()),
        })
        .await;
        cluster.vhost.close_connections().await.expect("the broker closes connections")
    });
    cluster.api.all_ended(LIMIT).await;
    let db = cluster.open("engine").await;
    let store = SqlStore::new(db.clone());
    for id in &ids {
        saga_store::check_replay(&store, id.parse().expect("an id")).await.expect("history explains the state");
    }
    db.close().await;
    println!("{} sagas folded; {closed} connections to the broker were cut meanwhile", ids.len());
    assert!(closed > 0, "no connection was cut: proves nothing");
    assert_eq!(cluster.api.count("stuck").await, 0);
    cluster.audit().await;
}
