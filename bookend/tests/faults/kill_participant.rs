//! kill -9 of each participant in turn, with commands delivered to it that it has not answered.

use std::time::Duration;

use testkit::eventually;
use testkit::services::Services;
use tokio::time::Instant;

use crate::common::{Api, Cluster, Shape, Simulators};
use crate::load::{Load, adds_up, until_decided, wishes};

const SAGAS: usize = 90;
const CLIENTS: usize = 16;
/// Sagas that wait for the participant when it dies.
const HELD_MIN: usize = 30;
const DECIDED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn kill_participant() {
    let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", "700")]).await;
    let mut env = vec![("BOOKEND_SEED__SLOTS", "400"), ("BOOKEND_PARTICIPANTS__CALLS_MAX", "128")];
    env.extend([("BOOKEND_PARTICIPANTS__PREFETCH", "128"), ("BOOKEND_PARTICIPANTS__LEASE_MS", "1500")]);
    let mut cluster = Cluster::start(&Services::shared(), &Shape::apart(), &simulators, &env).await;
    let slots = cluster.api.free_slots(4 * SAGAS).await;
    for site in 0..cluster.sites.len() {
        let name = cluster.sites[site].names[0];
        let wishes = wishes(&format!("kill-{name}"), &slots[site * SAGAS..(site + 1) * SAGAS], 2);
        let mut load = Load::start(&[cluster.at(0), cluster.at(1)], wishes, CLIENTS, Duration::from_millis(50));
        load.until_accepted(SAGAS / 4).await;
        // Frozen first, so that it dies with commands delivered and not answered, whatever it was doing.
        cluster.sites[site].process.freeze().expect("the signal is sent");
        let held = until_held(&cluster.api, name).await;
        cluster.kill_and_restart_site(site).await;
        let begun = Instant::now();
        load.finish().await;
        until_decided(&cluster.api, &load.accepted(), DECIDED_WITHIN).await;
        println!(
            "{name} killed while {held} sagas waited for it: all decided {:.2?} after its restart",
            begun.elapsed()
        );
        assert_eq!(load.accepted().len(), SAGAS, "starts need no participant");
    }
    adds_up(&cluster, &simulators).await;
}

/// Waits until enough sagas wait for a reply of this step, and says how many.
async fn until_held(api: &Api, step: &str) -> usize {
    eventually(Duration::from_secs(30), &format!("enough sagas wait for {step}"), async || {
        let page = api.get("/v1/sagas?status=running&limit=200").await;
        let mut held = 0;
        for saga in page.body["data"].as_array().expect("a page") {
            let saga = api.saga(saga["id"].as_str().expect("an id")).await;
            held += usize::from(saga.body["waiting"]["step"] == step);
        }
        if held >= HELD_MIN { Ok(held) } else { Err(format!("{held} of {HELD_MIN}")) }
    })
    .await
}
