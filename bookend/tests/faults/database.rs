//! The database crashed under load, and the answers of commits lost on their way.
//!
//! Must hold: what was acknowledged is there afterwards; what became of a commit is asked for and never guessed.

use std::time::Duration;

use testkit::eventually;
use testkit::proxy::{Cut, Plan, Proxy};
use testkit::services::Services;
use tokio::time::Instant;

use crate::common::LIMIT;
use crate::disturbed::Disturbed;
use crate::load::{Told, adds_up, until_decided};

const OUTAGE: Duration = Duration::from_secs(5);
const DECIDED_WITHIN: Duration = Duration::from_secs(20);
/// Whoever asked while the database was gone may have been told so.
const UNKNOWN: [&str; 1] = ["outcome_unknown"];
/// What only the text of the engine's commit has.
const COMMIT: &str = "insert into history";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn database_restart() {
    let mut world = Disturbed::start(500).await;
    let mut load = world.load("restart", Duration::from_millis(400));
    load.until_accepted(80).await;
    let under_way = world.under_way().await;
    world.services.database().stop_immediate().await.expect("the database stops");
    let gone = Instant::now();
    let before = load.accepted().len();
    world.all_say(503).await;
    // The fault itself lasts so long.
    tokio::time::sleep_until(gone + OUTAGE).await;
    world.services.database().start().await.expect("the database starts");
    let back = Instant::now();
    world.all_say(200).await;
    let ready = back.elapsed();
    load.until_accepted(before + 40).await;
    load.stop().await;
    let accepted = load.accepted();
    let api = &world.cluster.api;
    until_decided(api, &accepted, DECIDED_WITHIN).await;
    let later = load.count(|told| matches!(told, Told::Later(_)));
    println!(
        "crashed with {under_way} sagas under way; all ready again {ready:.2?} after its return; {} accepted, {before} of \
         them before, and {later} told to come again; all decided",
        accepted.len(),
    );
    assert_eq!(load.count(|told| *told == Told::Nothing), 0, "every client was answered");
    let all = load.ask_again(api, &UNKNOWN).await;
    until_decided(api, &all, LIMIT).await;
    adds_up(&world.cluster, &world.simulators).await;
}

/// A network that swallows everything and says nothing: no connection breaks.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn database_silent() {
    let services = Services::private().await;
    let proxy = Proxy::before(services.postgres_url()).await.expect("a port");
    let behind = proxy.url(services.postgres_url());
    let env = [("BOOKEND_DATABASE__URL", behind.as_str()), ("BOOKEND_DATABASE__STATEMENT_TIMEOUT_MS", "500")];
    let mut world = Disturbed::on(services, 500, &env).await;
    let mut load = world.load("silent", Duration::from_millis(200));
    load.until_accepted(40).await;
    let mut before = 0;
    for _ in 0..3 {
        before = load.accepted().len();
        proxy.swallow();
        load.until_accepted(before + 40).await;
    }
    load.stop().await;
    let accepted = load.accepted();
    until_decided(&world.cluster.api, &accepted, DECIDED_WITHIN).await;
    let all = load.ask_again(&world.cluster.api, &UNKNOWN).await;
    until_decided(&world.cluster.api, &all, LIMIT).await;
    println!("{} accepted, {before} of them before the last silence", accepted.len());
    adds_up(&world.cluster, &world.simulators).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn commit_answer_lost() {
    let services = Services::private().await;
    let proxy = Proxy::before(services.postgres_url()).await.expect("a port");
    let behind = proxy.url(services.postgres_url());
    // The engine's own sessions only; the audit and the participants go straight.
    let env = [("BOOKEND_DATABASE__ENGINE_URL", behind.as_str())];
    let mut world = Disturbed::on(services, 240, &env).await;
    let mut bites = 0;
    for (name, cut) in [("before", Cut::Before), ("sent", Cut::Sent), ("answered", Cut::Answered)] {
        proxy.plan(Plan { every: 4, times: usize::MAX, ..Plan::next(COMMIT, cut) });
        let mut load = world.load_of(name, 80, Duration::from_millis(20));
        load.finish().await;
        let accepted = load.accepted();
        until_decided(&world.cluster.api, &accepted, DECIDED_WITHIN).await;
        let again = load.ask_again(&world.cluster.api, &UNKNOWN).await;
        until_decided(&world.cluster.api, &again, DECIDED_WITHIN).await;
        world.cluster.api.all_ended(LIMIT).await;
        // Nothing is committed any more, so that what is counted now stays.
        proxy.pass();
        println!("commits cut off {name}: {} in {} sagas, all decided", proxy.bites(), again.len());
        assert!(proxy.bites() > 0, "no commit was cut off: proves nothing");
        bites += proxy.bites();
    }
    let asked = eventually(LIMIT, "every lost outcome is asked for", async || {
        let asked = world.cluster.counter("bookend_commits_asked_total", "").await;
        if asked >= bites as f64 { Ok(asked) } else { Err(format!("{asked} of {bites}")) }
    })
    .await;
    println!("{bites} commits cut off, {asked} outcomes asked for");
    adds_up(&world.cluster, &world.simulators).await;
}
