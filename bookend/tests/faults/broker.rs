//! The broker stopped for half a minute, killed, and short of memory, while sagas are started and under way.
//!
//! Must hold: starts need no broker. What they left in the outbox is sent soon after the broker is back, and not many
//! times over.

use std::time::Duration;

use testkit::eventually;
use tokio::time::Instant;

use crate::common::LIMIT;
use crate::disturbed::Disturbed;
use crate::load::{Load, Told, adds_up, until_decided};

const OUTAGE: Duration = Duration::from_secs(30);
/// From the moment the broker answers again.
const DECIDED_WITHIN: Duration = Duration::from_secs(15);
/// Messages published until all is decided, for each that waited in the outbox: its own, those of the steps that
/// follow, and hardly any twice.
const PUBLISHED_PER_ROW_MAX: usize = 3;
const REPLIES: &str = "bookend.replies";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn broker_outage() {
    let mut world = Disturbed::start(400).await;
    let mut load = world.load("outage", Duration::from_millis(2_500));
    load.until_accepted(24).await;
    world.services.broker().stop().await.expect("the broker stops");
    let before = load.accepted().len();
    let gone = Instant::now();
    world.all_say(503).await;
    // The fault itself lasts so long.
    tokio::time::sleep_until(gone + OUTAGE).await;
    let accepted = load.accepted().len() - before;
    println!("stopped for {OUTAGE:?}: {accepted} sagas were accepted meanwhile");
    assert!(accepted > 0, "nothing was started while it was gone: proves nothing");
    recovers(&world, &mut load).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn broker_killed() {
    let mut world = Disturbed::start(400).await;
    let mut load = world.load("killed", Duration::from_millis(1_200));
    load.until_accepted(40).await;
    let under_way = world.under_way().await;
    world.services.broker().kill().await.expect("the broker dies");
    println!("killed with {under_way} sagas under way");
    recovers(&world, &mut load).await;
}

/// Starts the broker, which is gone, while clients go on; everything must be decided soon, without a stampede.
async fn recovers(world: &Disturbed, load: &mut Load) {
    let (cluster, api) = (&world.cluster, &world.cluster.api);
    let (rows, known) = (world.outbox_rows().await, load.accepted().len());
    let published = published(world).await;
    world.services.broker().start().await.expect("the broker starts");
    let back = Instant::now();
    load.stop().await;
    let accepted = load.accepted();
    // While it started, each start put one more at most.
    let rows = rows + accepted.len() - known;
    until_decided(api, &accepted, DECIDED_WITHIN.saturating_sub(back.elapsed())).await;
    let took = back.elapsed();
    api.all_ended(LIMIT).await;
    let published = self::published(world).await - published;
    let later = load.count(|told| matches!(told, Told::Later(_)));
    println!(
        "{} accepted and {later} refused in all; {rows} messages waited at its return, {published} were published until \
         all had ended; all decided {took:.2?} after its return",
        accepted.len()
    );
    assert!(rows > 0, "nothing waited for it: proves nothing");
    assert!(published <= PUBLISHED_PER_ROW_MAX * rows, "a stampede: {published} published for {rows}");
    world.all_say(200).await;
    assert_eq!(load.count(|told| *told == Told::Nothing), 0, "every client was answered");
    // A refusal wrote nothing, whatever its code: the database was there all the time.
    let all = load.ask_again(api, &[]).await;
    until_decided(api, &all, LIMIT).await;
    adds_up(cluster, &world.simulators).await;
}

/// Messages that the orchestrators have published, whatever became of them.
async fn published(world: &Disturbed) -> usize {
    let name = "bookend_outbox_published_total";
    let mut sum = 0.0;
    for fate in ["confirmed", "lost"] {
        sum += world.cluster.counter(name, &format!("\"{fate}\"")).await;
    }
    sum as usize
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn memory_alarm() {
    let mut world = Disturbed::start(300).await;
    let mut load = world.load("alarm", Duration::from_millis(600));
    load.until_accepted(40).await;
    let cluster = &world.cluster;
    // Held until the alarm is on, so that there are replies to acknowledge.
    cluster.servers.iter().for_each(|server| server.process.freeze().expect("the signal is sent"));
    let replies = eventually(LIMIT, "replies wait", async || match cluster.vhost.queue_depth(REPLIES).await {
        Ok(Some(depth)) if depth > 0 => Ok(depth),
        other => Err(format!("{other:?}")),
    })
    .await;
    world.services.broker().alarm(true).await.expect("the alarm is on");
    cluster.servers.iter().for_each(|server| server.process.thaw().expect("the signal is sent"));
    eventually(LIMIT, "publishing is blocked", async || {
        let blocked = cluster.counter("bookend_broker_blocked", "").await;
        if blocked > 0.0 { Ok(()) } else { Err(blocked) }
    })
    .await;
    eventually(LIMIT, "all replies are acknowledged", async || match cluster.vhost.queue_depth(REPLIES).await {
        Ok(Some(0)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let before = load.accepted().len();
    load.until_accepted(before + 40).await;
    let (accepted, rows) = (load.accepted().len() - before, world.outbox_rows().await);
    world.services.broker().alarm(false).await.expect("the alarm is off");
    let over = Instant::now();
    println!("alarm: {replies} replies taken and {accepted} sagas accepted under it, {rows} messages held back");
    assert!(rows > 0, "no message was held back: proves nothing");
    load.stop().await;
    until_decided(&cluster.api, &load.accepted(), DECIDED_WITHIN).await;
    println!("all {} decided {:.2?} after it was over", load.accepted().len(), over.elapsed());
    world.all_say(200).await;
    load.ask_again(&cluster.api, &[]).await;
    adds_up(cluster, &world.simulators).await;
}
