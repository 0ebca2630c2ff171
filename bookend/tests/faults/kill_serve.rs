//! kill -9 of one of two orchestrators, which stays dead until the other has decided everything; then the other way.

use std::time::Duration;

use testkit::eventually;
use testkit::services::Services;
use tokio::time::Instant;

use crate::common::{Api, Cluster, Shape, Simulators};
use crate::load::{Load, adds_up, until_decided, wishes};

const SAGAS: usize = 400;
const IN_FLIGHT_MIN: usize = 200;
const CLIENTS: usize = 32;
/// The outbox rows of the dead fall due a second after they were last pushed, and so do claimed sagas; slow charges take
/// another.
const DECIDED_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn kill_serve() {
    let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", "1500")]).await;
    let mut env = vec![("BOOKEND_SEED__SLOTS", "800"), ("BOOKEND_PARTICIPANTS__CALLS_MAX", "512")];
    env.extend([("BOOKEND_PARTICIPANTS__PREFETCH", "512"), ("BOOKEND_PAYMENT__TIMEOUT_MS", "8000")]);
    let mut cluster = Cluster::start(&Services::shared(), &Shape::default(), &simulators, &env).await;
    let slots = cluster.api.free_slots(2 * SAGAS).await;
    for (round, victim) in [0, 1].into_iter().enumerate() {
        let wishes = wishes(&format!("serve-{round}"), &slots[round * SAGAS..(round + 1) * SAGAS], 4);
        let both = [cluster.at(0), cluster.at(1)];
        let survivor = cluster.at(1 - victim);
        let mut load = Load::start(&both, wishes, CLIENTS, Duration::from_millis(50));
        let in_flight = until_in_flight(&survivor).await;
        let relayed = survivor.counter("bookend_outbox_relayed_total", "").await;
        cluster.kill_server(victim);
        let begun = Instant::now();
        load.finish().await;
        let accepted = load.accepted();
        until_decided(&survivor, &accepted, DECIDED_WITHIN).await;
        let took = begun.elapsed();
        let relayed = survivor.counter("bookend_outbox_relayed_total", "").await - relayed;
        // Whoever asked the dead one gets its saga from the other.
        let all = load.ask_again(&survivor, &["outcome_unknown", "stopping"]).await;
        until_decided(&survivor, &all, DECIDED_WITHIN).await;
        println!(
            "orchestrator {victim} killed with {in_flight} in flight: {} accepted decided after {took:.2?} by the other \
             alone, which relayed {relayed} messages",
            accepted.len()
        );
        cluster.restart_server(victim).await;
    }
    adds_up(&cluster, &simulators).await;
}

async fn until_in_flight(api: &Api) -> usize {
    eventually(Duration::from_secs(60), "enough sagas are in flight", async || {
        let open = api.count("running").await + api.count("compensating").await;
        if open >= IN_FLIGHT_MIN { Ok(open) } else { Err(format!("{open} open")) }
    })
    .await
}
