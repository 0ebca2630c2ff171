//! The contract of a transport, run against RabbitMQ, and what only RabbitMQ promises.

#![allow(clippy::unwrap_used, reason = "a test")]

mod rabbit;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rabbit::{LIMIT, Rig, options, within};
use runtime::Tasks;
use testkit::Services;
use testkit::services::Vhost;
use transport::conformance::{self, Harness};
use transport::rabbitmq::{Options, RabbitMq};
use transport::{Handed, Message, Queue, Transport};

/// Transports on virtual hosts of their own.
#[derive(Debug, Default)]
struct Broker {
    opened: Mutex<Vec<(Options, Tasks)>>,
    /// Kept until the end of the test.
    vhosts: Mutex<Vec<Vhost>>,
}

impl Broker {
    async fn start(&self, options: Options) -> Arc<dyn Transport> {
        let tasks = Tasks::new();
        let transport = RabbitMq::start(options.clone(), &tasks).unwrap();
        within("a connection", transport.publisher().room(&options.queues[0])).await;
        self.opened.lock().unwrap().push((options, tasks));
        Arc::new(transport)
    }
}

#[async_trait]
impl Harness for Broker {
    async fn open(&self, queues: &[Queue], capacity: usize) -> Arc<dyn Transport> {
        let vhost = Services::shared().vhost().await;
        let options = Options { in_flight_max: capacity, ..options(vhost.url(), queues) };
        self.vhosts.lock().unwrap().push(vhost);
        self.start(options).await
    }

    async fn another(&self) -> Arc<dyn Transport> {
        let options = self.opened.lock().unwrap().last().expect("one was opened").0.clone();
        self.start(options).await
    }

    async fn close(&self) {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap());
        for (_, tasks) in opened {
            assert_eq!(tasks.shutdown(LIMIT).await, 0, "all tasks end");
        }
    }

    fn confirms_on_acknowledge(&self) -> bool {
        false
    }
}

macro_rules! conforms {
    ($($case:ident),+ $(,)?) => {$(
        #[tokio::test]
        #[ignore = "needs RabbitMQ: scripts/test"]
        async fn $case() {
            let broker = Broker::default();
            conformance::$case(&broker).await;
            broker.close().await;
        }
    )+};
}

conforms!(
    what_arrives_is_what_was_sent,
    confirmed_only_after_acknowledge,
    unacknowledged_comes_back,
    full_has_no_room_until_there_is,
    prefetch_is_respected,
    receive_can_be_dropped,
    a_ring_never_deadlocks,
    settled_exactly_once,
    two_consumers_share,
    closing_ends_consumers,
    a_dead_letter_that_was_sent_has_not_died,
    a_hint_reaches_everybody_who_listens,
);

#[tokio::test]
async fn a_broker_that_is_not_there_is_waited_for_and_told_of() {
    // Nothing listens on a port that was just given back.
    let (listener, address) = testkit::free_port().await.unwrap();
    drop(listener);
    let tasks = Tasks::new();
    let url = format!("amqp://user:hunter2@{address}/vhost");
    let transport = RabbitMq::start(options(&url, &[Queue::Replies]), &tasks).unwrap();
    let trouble = rabbit::troubled(&transport, "refused").await;
    assert!(trouble.starts_with("no connection to the broker") && !trouble.contains("hunter2"), "{trouble}");
    let message = conformance::message("x");
    assert_eq!(transport.publisher().publish(&[message]), [Handed::NoRoom]);
    assert!(!transport.publisher().is_open());
    let silence = Duration::from_millis(100);
    assert!(tokio::time::timeout(silence, transport.publisher().room(&Queue::Replies)).await.is_err());
    assert_eq!(tasks.shutdown(LIMIT).await, 0, "all tasks end");
    assert_eq!(transport.consumer(&Queue::Replies, 1).receive(1).await, None);
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn a_publisher_has_as_much_room_as_it_was_given() {
    let rig = Rig::with(&Services::shared(), &[Queue::Replies], |options| options.in_flight_max = 2).await;
    let publisher = rig.transport.publisher();
    let messages = rabbit::numbered(&Queue::Replies, 0..3);
    assert_eq!(publisher.publish(&messages), [Handed::Over, Handed::Over, Handed::NoRoom]);
    let stranger = Message { queue: Queue::Participant("stranger".to_owned()), ..conformance::message("x") };
    assert_eq!(publisher.publish(std::slice::from_ref(&stranger)), [Handed::NoRoom]);
    assert_eq!(rig.transport.consumer(&stranger.queue, 1).receive(1).await, None);
    // Confirmed is not enough: whoever never asks for fates must not fill the memory with them.
    rabbit::depth(&rig.vhost, &Queue::Replies, 2).await;
    assert_eq!(publisher.publish(&messages[2..]), [Handed::NoRoom]);
    assert_eq!(rabbit::fates(&*publisher, 2).await.len(), 2);
    within("room", publisher.room(&Queue::Replies)).await;
    assert_eq!(publisher.publish(&messages[2..]), [Handed::Over]);
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn acknowledgements_that_wait_for_others_stop_no_deliveries_and_go_with_their_consumer() {
    let queue = Queue::Replies;
    // As if for ever.
    let patient = |options: &mut Options| options.acknowledge_delay = Duration::from_secs(3_600);
    let rig = Rig::with(&Services::shared(), std::slice::from_ref(&queue), patient).await;
    rabbit::deliver(&*rig.transport.publisher(), &rabbit::numbered(&queue, 0..101)).await;
    let mut consumer = rig.transport.consumer(&queue, 16);
    let mut in_hand = Vec::new();
    for n in 0..100 {
        let delivery = rabbit::receive(&mut *consumer, 1).await;
        assert_eq!(rabbit::text(&delivery[0]), n.to_string());
        // From the middle on all but one place are taken by what takes its time.
        if (50..65).contains(&n) {
            in_hand.extend(rabbit::tags(&delivery));
        } else {
            consumer.acknowledge(&rabbit::tags(&delivery)).await;
        }
    }
    consumer.acknowledge(&in_hand).await;
    drop(consumer);
    rabbit::depth(&rig.vhost, &queue, 1).await;
    let mut other = rig.transport.consumer(&queue, 16);
    assert_eq!(rabbit::text(&rabbit::receive(&mut *other, 1).await[0]), "100", "the others were acknowledged");
    drop(other);
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn the_last_acknowledgement_waits_for_others_only_for_a_while() {
    let queue = Queue::Replies;
    let rig = Rig::new(&Services::shared(), std::slice::from_ref(&queue)).await;
    rabbit::deliver(&*rig.transport.publisher(), &rabbit::numbered(&queue, 0..1)).await;
    let mut consumer = rig.transport.consumer(&queue, 512);
    let delivery = rabbit::receive(&mut *consumer, 1).await;
    rabbit::depth(&rig.vhost, &queue, 1).await;
    consumer.acknowledge(&rabbit::tags(&delivery)).await;
    rabbit::depth(&rig.vhost, &queue, 0).await;
    drop(consumer);
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn shutdown_lets_what_is_in_hand_be_acknowledged_and_confirmed() {
    let queue = Queue::Replies;
    let rig = Rig::with(&Services::shared(), std::slice::from_ref(&queue), |options| options.drain = LIMIT).await;
    let publisher = rig.transport.publisher();
    let mut consumer = rig.transport.consumer(&queue, 2);
    rabbit::deliver(&*publisher, &rabbit::numbered(&queue, 0..4)).await;
    let held = rabbit::receive(&mut *consumer, 2).await;
    rig.tasks.stop();
    assert_eq!(within("the end", consumer.receive(1)).await, None);
    let answer = rabbit::numbered(&queue, 4..5);
    assert_eq!(rabbit::deliver(&*publisher, &answer).await, 0, "what is answered while stopping is confirmed");
    consumer.acknowledge(&rabbit::tags(&held)).await;
    drop(consumer);
    // Far sooner than the time for draining is over: nothing is left to wait for.
    assert_eq!(rig.tasks.shutdown(LIMIT / 4).await, 0, "all tasks end");
    assert_eq!(publisher.publish(&answer), [Handed::NoRoom]);
    rabbit::depth(&rig.vhost, &queue, 3).await;
}
