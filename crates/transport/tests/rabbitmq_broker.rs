//! A broker that restarts, is killed or runs short of memory.
//!
//! Must hold: every test shows that its fault happened.

#![allow(clippy::unwrap_used, reason = "a test")]

mod rabbit;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rabbit::{Rig, deliver, depth, fates, numbered, receive, send, tags, text, troubled, untroubled, within};
use testkit::Services;
use transport::{Handed, Queue, Transport};

const QUEUE: Queue = Queue::Replies;

#[tokio::test]
#[ignore = "needs RabbitMQ of its own: scripts/test"]
async fn a_restart_loses_nothing_that_was_confirmed() {
    let services = Services::private_rabbitmq().await;
    let rig = Rig::new(&services, &[QUEUE]).await;
    let publisher = rig.transport.publisher();
    let mut consumer = rig.transport.consumer(&QUEUE, 10);
    deliver(&*publisher, &numbered(&QUEUE, 0..30)).await;
    let held = receive(&mut *consumer, 10).await;

    services.broker().stop().await.unwrap();
    troubled(&rig.transport, "no connection to the broker").await;
    assert_eq!(publisher.publish(&numbered(&QUEUE, 0..1)), [Handed::NoRoom]);
    let room = tokio::time::timeout(Duration::from_millis(100), publisher.room(&QUEUE)).await;
    assert!(room.is_err(), "no room without a connection");
    services.broker().start().await.unwrap();
    within("room", publisher.room(&QUEUE)).await;

    // Of a connection that is gone: nobody hears of it, and it comes again.
    consumer.acknowledge(&tags(&held)).await;
    deliver(&*publisher, &numbered(&QUEUE, 30..40)).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 40 {
        let deliveries = within("a delivery", consumer.receive(10)).await.unwrap();
        seen.extend(deliveries.iter().map(|delivery| text(delivery).to_owned()));
        consumer.acknowledge(&tags(&deliveries)).await;
    }
    untroubled(&rig.transport).await;
    depth(&rig.vhost, &QUEUE, 0).await;
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ of its own: scripts/test"]
async fn a_killed_broker_settles_everything_once_and_keeps_what_it_confirmed() {
    let services = Services::private_rabbitmq().await;
    let rig = Rig::new(&services, &[QUEUE]).await;
    let publisher = rig.transport.publisher();
    deliver(&*publisher, &numbered(&QUEUE, 0..200)).await;
    // The broker writes down that a quorum queue exists half a second late, and a queue that it forgot comes back
    // empty and without a leader. Its figures are later still.
    depth(&rig.vhost, &QUEUE, 200).await;
    let killed = AtomicBool::new(false);
    let meddle = async {
        services.broker().kill().await.unwrap();
        troubled(&rig.transport, "no connection to the broker").await;
        killed.store(true, Ordering::Relaxed);
        services.broker().start().await.unwrap();
    };
    let publish = async {
        let (mut lost, mut sent) = (0, 200);
        while !killed.load(Ordering::Relaxed) {
            lost += deliver(&*publisher, &numbered(&QUEUE, sent..sent + 50)).await;
            sent += 50;
        }
        (lost, sent)
    };
    let ((lost, sent), ()) = within("all of it", async { tokio::join!(publish, meddle) }).await;
    eprintln!("{sent} messages, {lost} of them not confirmed at first");
    assert!(lost > 0, "the broker was killed while it had messages in hand");
    let mut consumer = rig.transport.consumer(&QUEUE, 64);
    let mut seen = BTreeSet::new();
    while seen.len() < sent {
        let deliveries = within("a delivery", consumer.receive(64)).await.unwrap();
        seen.extend(deliveries.iter().map(|delivery| text(delivery).to_owned()));
        consumer.acknowledge(&tags(&deliveries)).await;
    }
    untroubled(&rig.transport).await;
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ of its own: scripts/test"]
async fn a_broker_short_of_memory_blocks_publishing_and_nothing_else() {
    let services = Services::private_rabbitmq().await;
    let rig = Rig::new(&services, &[QUEUE]).await;
    let publisher = rig.transport.publisher();
    let mut consumer = rig.transport.consumer(&QUEUE, 20);
    deliver(&*publisher, &numbered(&QUEUE, 0..20)).await;
    let held = receive(&mut *consumer, 20).await;

    services.broker().alarm(true).await.unwrap();
    // The broker says that it blocks when somebody publishes.
    let pending = numbered(&QUEUE, 20..23);
    send(&*publisher, &pending).await;
    let trouble = troubled(&rig.transport, "the broker blocks publishing").await;
    assert!(trouble.contains("low on memory"), "{trouble}");
    assert_eq!(publisher.publish(&numbered(&QUEUE, 0..1)), [Handed::NoRoom]);
    let room = tokio::time::timeout(Duration::from_millis(100), publisher.room(&QUEUE)).await;
    assert!(room.is_err(), "no room while blocked");
    consumer.acknowledge(&tags(&held)).await;
    depth(&rig.vhost, &QUEUE, 0).await;

    services.broker().alarm(false).await.unwrap();
    untroubled(&rig.transport).await;
    assert!(fates(&*publisher, pending.len()).await.values().all(|confirmed| *confirmed));
    within("room", publisher.room(&QUEUE)).await;
    deliver(&*publisher, &numbered(&QUEUE, 23..24)).await;
    let rest = receive(&mut *consumer, 4).await;
    assert_eq!(rest.iter().map(text).collect::<Vec<_>>(), ["20", "21", "22", "23"]);
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ of its own: scripts/test"]
async fn what_a_blocked_broker_never_confirms_is_settled_all_the_same() {
    let services = Services::private_rabbitmq().await;
    let rig = Rig::with(&services, &[QUEUE], |options| options.confirm_max = Duration::from_millis(500)).await;
    let publisher = rig.transport.publisher();
    within("room", publisher.room(&QUEUE)).await;
    services.broker().alarm(true).await.unwrap();
    let pending = numbered(&QUEUE, 0..3);
    send(&*publisher, &pending).await;
    let fates = fates(&*publisher, pending.len()).await;
    assert!(fates.values().all(|confirmed| !confirmed), "{fates:?}");
    troubled(&rig.transport, "the broker blocks publishing").await;
    services.broker().alarm(false).await.unwrap();
    untroubled(&rig.transport).await;
    deliver(&*publisher, &pending).await;
    let mut consumer = rig.transport.consumer(&QUEUE, 20);
    let received = receive(&mut *consumer, pending.len()).await;
    assert!(received.len() >= pending.len());
    rig.end().await;
}
