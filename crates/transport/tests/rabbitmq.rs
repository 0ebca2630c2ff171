//! The contract of a transport, run against RabbitMQ, and what only RabbitMQ promises.

#![allow(clippy::unwrap_used, reason = "a test")]

mod rabbit;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rabbit::{LIMIT, options, within};
use runtime::Tasks;
use testkit::Services;
use testkit::services::Vhost;
use transport::conformance::{self, Harness};
use transport::rabbitmq::{Options, RabbitMq};
use transport::{Queue, Transport};

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
    assert_eq!(transport.publisher().publish(&[message]), [transport::Handed::NoRoom]);
    let silence = Duration::from_millis(100);
    assert!(tokio::time::timeout(silence, transport.publisher().room(&Queue::Replies)).await.is_err());
    assert_eq!(tasks.shutdown(LIMIT).await, 0, "all tasks end");
    assert_eq!(transport.consumer(&Queue::Replies, 1).receive(1).await, None);
}
