//! An orchestrator that is frozen for ten seconds under load and then goes on as if nothing had happened.

use std::time::Duration;

use testkit::services::Services;
use tokio::time::Instant;

use crate::common::{Cluster, Shape, Simulators};
use crate::load::{Load, adds_up, until_decided, wishes};

const SAGAS: usize = 600;
const CLIENTS: usize = 16;
const FROZEN: Duration = Duration::from_secs(10);
/// No statement waits longer for a lock.
const LOCK_WAIT_MAX_MS: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn zombie() {
    let services = Services::shared();
    let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", "500")]).await;
    let env = [("BOOKEND_SEED__SLOTS", "600"), ("BOOKEND_PARTICIPANTS__CALLS_MAX", "128")];
    let cluster = Cluster::start(&services, &Shape::default(), &simulators, &env).await;
    let slots = cluster.api.free_slots(SAGAS).await;
    let survivor = cluster.at(1);
    let wishes = wishes("zombie", &slots, 2);
    // Paced, so that the load outlasts the freeze.
    let mut load = Load::start(&[cluster.at(0), survivor.clone()], wishes, CLIENTS, Duration::from_millis(20));
    load.until_accepted(SAGAS / 6).await;
    cluster.servers[0].process.freeze().expect("the signal is sent");
    let (frozen, before) = (Instant::now(), load.accepted().len());
    let mut longest = 0;
    while frozen.elapsed() < FROZEN {
        longest = longest.max(lock_wait_ms(&services, &cluster).await);
    }
    let during = load.accepted().len() - before;
    let open = survivor.count("running").await;
    cluster.servers[0].process.thaw().expect("the signal is sent");
    load.finish().await;
    let accepted = load.accepted();
    until_decided(&survivor, &accepted, Duration::from_secs(30)).await;
    let conflicts = cluster.counter("bookend_store_conflicts_total", "").await;
    println!(
        "frozen for {FROZEN:?} after {before} were accepted: {during} accepted meanwhile by the other, {open} under way \
         when it went on; {conflicts} compare-and-swaps lost; longest wait for a lock {longest} ms"
    );
    assert!(before > 0 && during > 0, "nothing happened while it was frozen: proves nothing");
    assert!(longest < LOCK_WAIT_MAX_MS, "somebody waited {longest} ms for a lock");
    load.ask_again(&survivor, &["outcome_unknown"]).await;
    adds_up(&cluster, &simulators).await;
}

/// The longest that any of the cluster's sessions is waiting for a lock right now.
async fn lock_wait_ms(services: &Services, cluster: &Cluster) -> u64 {
    // Sessions are named by owner and process.
    let named = cluster.servers.iter().map(|server| format!("'bookend engine {}'", server.process.id()));
    let sql = format!(
        "select coalesce(max(extract(epoch from clock_timestamp() - l.waitstart) * 1000), 0)::bigint \
         from pg_locks l join pg_stat_activity a on a.pid = l.pid \
         where not l.granted and a.application_name in ({})",
        named.collect::<Vec<_>>().join(", ")
    );
    services.query(&sql).await.expect("the database answers").trim().parse().expect("a number")
}
