//! What becomes of messages when somebody meddles with the broker: connections, queues, bindings, bodies.
//!
//! Must hold: every test shows that its fault happened.

#![allow(clippy::unwrap_used, reason = "a test")]

mod rabbit;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lapin::options::{BasicGetOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use rabbit::{
    LIMIT, Rig, deliver, depth, fates, numbered, options, receive, send, stranger, tags, text, troubled, untroubled,
    within,
};
use runtime::Tasks;
use testkit::services::Vhost;
use testkit::{Services, eventually};
use transport::rabbitmq::RabbitMq;
use transport::{Died, Message, Queue, Transport};
use uuid::Uuid;

const REPLIES: Queue = Queue::Replies;

fn payment() -> Queue {
    Queue::Participant("payment".to_owned())
}

/// Closes all connections, again and again; returns how many there were.
async fn close_connections(vhost: &Vhost, rounds: usize) -> usize {
    let mut closed = 0;
    for _ in 0..rounds {
        closed += eventually(LIMIT, "connections to close", async || match vhost.close_connections().await {
            Ok(0) => Err("none is listed".to_owned()),
            Ok(count) => Ok(count),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }
    closed
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn closed_connections_lose_nothing() {
    const ROUNDS: usize = 3;
    let rig = Rig::new(&Services::shared(), &[REPLIES]).await;
    let publisher = rig.transport.publisher();
    let mut consumer = rig.transport.consumer(&REPLIES, 64);
    let (ended, expected) = (AtomicBool::new(false), AtomicUsize::new(usize::MAX));
    let meddle = async {
        let closed = close_connections(&rig.vhost, ROUNDS).await;
        ended.store(true, Ordering::Relaxed);
        closed
    };
    let publish = async {
        let (mut lost, mut sent) = (0, 0);
        while !ended.load(Ordering::Relaxed) {
            lost += deliver(&*publisher, &numbered(&REPLIES, sent..sent + 10)).await;
            sent += 10;
        }
        // One more, so that the other side looks again after it was told how many there are.
        expected.store(sent + 1, Ordering::Relaxed);
        lost + deliver(&*publisher, &numbered(&REPLIES, sent..sent + 1)).await
    };
    let consume = async {
        let (mut seen, mut received) = (BTreeSet::new(), 0);
        while seen.len() < expected.load(Ordering::Relaxed) {
            let deliveries = within("a delivery", consumer.receive(16)).await.unwrap();
            received += deliveries.len();
            seen.extend(deliveries.iter().map(|delivery| text(delivery).to_owned()));
            consumer.acknowledge(&tags(&deliveries)).await;
        }
        (seen.len(), received - seen.len())
    };
    // Each wait has a limit of its own, which tells what did not happen.
    let (closed, lost, (seen, twice)) = tokio::join!(meddle, publish, consume);
    eprintln!("{seen} messages, {closed} connections closed, {lost} not confirmed at first, {twice} delivered twice");
    assert!(closed >= ROUNDS, "{closed} connections were closed");
    untroubled(&rig.transport).await;
    depth(&rig.vhost, &REPLIES, 0).await;
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn a_deleted_queue_is_declared_and_consumed_again() {
    let rig = Rig::new(&Services::shared(), &[REPLIES]).await;
    let publisher = rig.transport.publisher();
    let mut consumer = rig.transport.consumer(&REPLIES, 8);
    deliver(&*publisher, &numbered(&REPLIES, 0..1)).await;
    let held = receive(&mut *consumer, 1).await;
    for round in 1..=3 {
        // Fails when there is no such queue, so that each round bites.
        eventually(LIMIT, "a queue to delete", async || rig.vhost.delete_queue(&REPLIES.name()).await).await;
        deliver(&*publisher, &numbered(&REPLIES, round..round + 1)).await;
        let again = receive(&mut *consumer, 1).await;
        assert_eq!(text(&again[0]), round.to_string());
        consumer.acknowledge(&tags(&again)).await;
    }
    consumer.acknowledge(&tags(&held)).await;
    untroubled(&rig.transport).await;
    depth(&rig.vhost, &REPLIES, 0).await;
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn only_what_has_nowhere_to_go_is_not_confirmed() {
    const ROUNDS: usize = 10;
    let rig = Rig::new(&Services::shared(), &[REPLIES, payment()]).await;
    let publisher = rig.transport.publisher();
    let connection = stranger(rig.vhost.url()).await;
    let channel = connection.create_channel().await.unwrap();
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let (queue, exchange) = (payment().name(), "bookend");
        channel
            .queue_unbind(queue.as_str().into(), exchange.into(), "payment".into(), FieldTable::default())
            .await
            .unwrap();
        let mut messages = numbered(&REPLIES, 0..100);
        for message in messages.iter_mut().skip(3).step_by(7) {
            message.queue = payment();
        }
        send(&*publisher, &messages).await;
        let fates = fates(&*publisher, messages.len()).await;
        for message in &messages {
            assert_eq!(fates[&message.id], message.queue == REPLIES, "{message:?}");
        }
        refused += fates.values().filter(|confirmed| !**confirmed).count();
        // What was refused goes through once the binding was declared again, which nobody was asked to do.
        let again: Vec<Message> = messages.into_iter().filter(|message| message.queue == payment()).collect();
        deliver(&*publisher, &again).await;
    }
    eprintln!("{refused} messages were returned");
    assert_eq!(refused, ROUNDS * 14);
    depth(&rig.vhost, &payment(), (ROUNDS * 14) as u64).await;
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn a_queue_that_another_process_declares_later_is_reached() {
    let rig = Rig::new(&Services::shared(), &[REPLIES]).await;
    let publisher = rig.transport.publisher();
    let messages = numbered(&payment(), 0..3);
    send(&*publisher, &messages).await;
    let fates = fates(&*publisher, messages.len()).await;
    assert!(fates.values().all(|confirmed| !confirmed), "there is no such queue: {fates:?}");
    let tasks = Tasks::new();
    let other = RabbitMq::start(options(rig.vhost.url(), &[payment()]), &tasks).unwrap();
    deliver(&*publisher, &messages).await;
    let mut consumer = other.consumer(&payment(), 8);
    let delivered = receive(&mut *consumer, 3).await;
    consumer.acknowledge(&tags(&delivered)).await;
    depth(&rig.vhost, &payment(), 0).await;
    drop(consumer);
    assert_eq!(tasks.shutdown(LIMIT).await, 0);
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn a_queue_without_a_binding_is_not_published_to_in_a_circle() {
    let rig = Rig::new(&Services::shared(), &[payment()]).await;
    let publisher = rig.transport.publisher();
    let started = tokio::time::Instant::now();
    let mut lost = 0;
    while lost < 3 {
        let connection = stranger(rig.vhost.url()).await;
        let channel = connection.create_channel().await.unwrap();
        let queue = payment().name();
        let unbound = channel.queue_unbind(queue.as_str().into(), "bookend".into(), "payment".into(), <_>::default());
        unbound.await.unwrap();
        send(&*publisher, &numbered(&payment(), 0..1)).await;
        lost += fates(&*publisher, 1).await.values().filter(|confirmed| !**confirmed).count();
    }
    let pause = options("", &[]).refused_pause;
    assert!(started.elapsed() >= pause * 3, "each of {lost} refusals was told after {pause:?}");
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn what_is_given_back_too_often_is_a_dead_letter() {
    let rig = Rig::new(&Services::shared(), &[payment()]).await;
    deliver(&*rig.transport.publisher(), &numbered(&payment(), 7..8)).await;
    let mut dead = rig.transport.consumer(&Queue::DeadLetters, 8);
    let mut given_back = 0;
    let letter = loop {
        let mut consumer = rig.transport.consumer(&payment(), 1);
        tokio::select! {
            biased;
            letter = dead.receive(1) => break letter.unwrap(),
            deliveries = consumer.receive(1) => {
                assert_eq!(text(&deliveries.unwrap()[0]), "7");
                given_back += 1;
            }
            () = tokio::time::sleep(LIMIT) => panic!("given back {given_back} times, and then lost"),
        }
    };
    eprintln!("given back {given_back} times");
    assert_eq!(given_back, 21, "the first delivery and twenty more");
    let died = Died { queue: payment().name(), reason: "delivery_limit".to_owned() };
    assert_eq!((text(&letter[0]), letter[0].died.as_ref()), ("7", Some(&died)));
    dead.acknowledge(&tags(&letter)).await;
    depth(&rig.vhost, &Queue::DeadLetters, 0).await;
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn a_queue_of_another_kind_is_told_of_until_it_is_gone() {
    let vhost = Services::shared().vhost().await;
    let connection = stranger(vhost.url()).await;
    let channel = connection.create_channel().await.unwrap();
    let (name, classic) = (REPLIES.name(), QueueDeclareOptions { durable: true, ..<_>::default() });
    channel.queue_declare(name.as_str().into(), classic, FieldTable::default()).await.unwrap();
    let tasks = Tasks::new();
    let transport = RabbitMq::start(options(vhost.url(), &[REPLIES]), &tasks).unwrap();
    let trouble = troubled(&transport, "the queue bookend.replies can't be declared").await;
    assert!(trouble.contains("PRECONDITION_FAILED"), "{trouble}");
    assert_eq!(transport.publisher().publish(&numbered(&REPLIES, 0..1)), [transport::Handed::NoRoom]);
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    untroubled(&transport).await;
    deliver(&*transport.publisher(), &numbered(&REPLIES, 0..1)).await;
    assert_eq!(tasks.shutdown(LIMIT).await, 0, "all tasks end");
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn bodies_arrive_as_they_are() {
    let rig = Rig::new(&Services::shared(), &[REPLIES]).await;
    let large = vec![0xfe; 300 * 1_024];
    let bodies: [&[u8]; 4] = [&[0xff, 0xfe, 0], b"", b"{", &large];
    for body in bodies {
        assert!(rig.vhost.publish_raw("bookend", "replies", body).await.unwrap(), "it was routed");
    }
    let mut consumer = rig.transport.consumer(&REPLIES, 8);
    let received = receive(&mut *consumer, bodies.len()).await;
    assert_eq!(received.iter().map(|delivery| &*delivery.body).collect::<Vec<_>>(), bodies);
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn properties_and_headers_are_as_documented() {
    let rig = Rig::new(&Services::shared(), &[REPLIES]).await;
    let saga = Uuid::new_v4();
    let single = Message::new(Uuid::new_v4(), REPLIES, "{}").about(saga);
    let batch = Message::new(Uuid::new_v4(), REPLIES, "[{}]");
    deliver(&*rig.transport.publisher(), &[single.clone(), batch.clone()]).await;

    let connection = stranger(rig.vhost.url()).await;
    let channel = connection.create_channel().await.unwrap();
    let mut got = Vec::new();
    for message in [&single, &batch] {
        let got_one = channel.basic_get(REPLIES.name().as_str().into(), BasicGetOptions::default()).await.unwrap();
        let delivery = got_one.expect("it was confirmed").delivery;
        assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), ("bookend", "replies"));
        let properties = &delivery.properties;
        assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some(&*message.id.to_string()));
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(properties.user_id().as_ref().map(|user| user.as_str()), Some("guest"));
        assert_eq!(properties.app_id().as_ref().map(|app| app.as_str()), Some("bookend"));
        assert!(properties.timestamp().is_some_and(|seconds| seconds > 1_700_000_000));
        got.push(properties.clone());
    }
    let kinds: Vec<Option<&str>> =
        got.iter().map(|got| got.content_type().as_ref().map(|kind| kind.as_str())).collect();
    assert_eq!(kinds, [Some("application/json"), Some("application/vnd.bookend.batch+json")]);
    let headers = got[0].headers().clone().unwrap_or_default();
    let header = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(value)) => value.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(header("saga_id"), saga.to_string());
    let span = &single.id.simple().to_string()[..16];
    assert_eq!(header("traceparent"), format!("00-{}-{span}-01", saga.simple()));
    assert!(!got[1].headers().clone().unwrap_or_default().contains_key("saga_id"), "about no saga");
    rig.end().await;
}
