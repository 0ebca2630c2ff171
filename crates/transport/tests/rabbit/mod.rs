//! What the tests against RabbitMQ share: transports on virtual hosts of their own, and how to disturb them.

#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(dead_code, reason = "every test file uses its part of it")]

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::Tasks;
use testkit::services::Vhost;
use testkit::{Services, eventually};
use transport::rabbitmq::{Options, RabbitMq};
use transport::{Consumer, Delivery, Handed, Message, Publisher, Queue, Settled, Transport};
use uuid::Uuid;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// Options for tests: impatient, so that they are quick.
pub(crate) fn options(url: &str, queues: &[Queue]) -> Options {
    Options {
        name: "bookend test".to_owned(),
        drain: Duration::from_millis(200),
        backoff_max: Duration::from_millis(500),
        ..Options::new(url, queues.to_vec())
    }
}

/// A transport with the tasks that it lives by; the virtual host goes with it.
pub(crate) struct Rig {
    pub(crate) transport: RabbitMq,
    pub(crate) tasks: Tasks,
    pub(crate) vhost: Vhost,
}

impl Rig {
    pub(crate) async fn new(services: &Services, queues: &[Queue]) -> Self {
        Self::with(services, queues, |_| {}).await
    }

    pub(crate) async fn with(services: &Services, queues: &[Queue], change: impl FnOnce(&mut Options)) -> Self {
        let vhost = services.vhost().await;
        let tasks = Tasks::new();
        let mut options = options(vhost.url(), queues);
        change(&mut options);
        let transport = RabbitMq::start(options, &tasks).unwrap();
        untroubled(&transport).await;
        Self { transport, tasks, vhost }
    }

    pub(crate) async fn end(self) {
        assert_eq!(self.tasks.shutdown(LIMIT).await, 0, "all tasks end");
    }
}

/// Waits until everything works.
pub(crate) async fn untroubled(transport: &RabbitMq) {
    eventually(LIMIT, "no trouble", async || transport.trouble().map_or(Ok(()), Err)).await;
}

/// Waits for trouble of this kind.
pub(crate) async fn troubled(transport: &RabbitMq, kind: &str) -> String {
    eventually(LIMIT, kind, async || match transport.trouble() {
        Some(trouble) if trouble.contains(kind) => Ok(trouble),
        other => Err(format!("{other:?}")),
    })
    .await
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing happened within {LIMIT:?}"),
    }
}

/// Messages for `queue`, with their numbers as bodies.
pub(crate) fn numbered(queue: &Queue, range: std::ops::Range<usize>) -> Vec<Message> {
    range.map(|n| Message::new(Uuid::new_v4(), queue.clone(), n.to_string())).collect()
}

/// Hands over all messages, as there is room.
pub(crate) async fn send(publisher: &dyn Publisher, messages: &[Message]) {
    for message in messages {
        while publisher.publish(std::slice::from_ref(message)) == [Handed::NoRoom] {
            within("room", publisher.room(&message.queue)).await;
        }
    }
}

/// Collects fates until there are `count`, each message once.
pub(crate) async fn fates(publisher: &dyn Publisher, count: usize) -> BTreeMap<Uuid, bool> {
    let mut fates = BTreeMap::new();
    while fates.len() < count {
        for Settled { id, confirmed } in within("a fate", publisher.settled()).await {
            assert!(fates.insert(id, confirmed).is_none(), "settled once");
        }
    }
    fates
}

/// Sends until every message is confirmed; returns how often one was not.
pub(crate) async fn deliver(publisher: &dyn Publisher, messages: &[Message]) -> usize {
    let mut open: BTreeMap<Uuid, Message> = messages.iter().map(|m| (m.id, m.clone())).collect();
    send(publisher, messages).await;
    let mut lost = 0;
    while !open.is_empty() {
        for Settled { id, confirmed } in within("a fate", publisher.settled()).await {
            if confirmed {
                assert!(open.remove(&id).is_some(), "settled once");
            } else {
                lost += 1;
                send(publisher, &[open[&id].clone()]).await;
            }
        }
    }
    lost
}

/// Receives until `count` are there, acknowledging none.
pub(crate) async fn receive(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut received = Vec::new();
    while received.len() < count {
        let more = within("a delivery", consumer.receive(count - received.len())).await;
        received.extend(more.expect("the transport is open"));
    }
    received
}

pub(crate) fn tags(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

pub(crate) fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).expect("text was sent")
}

/// A connection of somebody else's.
pub(crate) async fn stranger(url: &str) -> lapin::Connection {
    let connected = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    within("a connection", connected).await.expect("the broker is there")
}

/// Waits until the queue holds `depth` messages, ready or unacknowledged.
pub(crate) async fn depth(vhost: &Vhost, queue: &Queue, depth: u64) {
    eventually(LIMIT, "the queue's depth", async || match vhost.queue_depth(&queue.name()).await {
        Ok(Some(now)) if now == depth => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
