//! The transport between processes: quorum queues of RabbitMQ.
//!
//! Two connections, one to publish and one to consume, because a broker that is short of memory stops reading from
//! those that publish; each is kept up by a loop of its own, and everything on it begins anew when it is lost. Not the
//! only holder of any message: the outbox and the inbox are. Must hold: a message is confirmed when the broker has it
//! on disk; nobody waits for the broker but tasks of this module; every task ends soon after shutdown began, at the
//! latest when the time for draining is over.
//!
//! When shutdown begins, consumers get nothing more (`receive` answers none), while acknowledgements and confirms
//! still pass until every consumer is dropped and every message has its fate, or the time is over. Then all that is
//! in flight is not confirmed, publishing finds no room, and `room` and `settled` wait for ever, except that fates
//! already known can still be collected.

mod activity;
mod connection;
mod consumer;
mod held;
mod hints;
mod inflight;
mod options;
mod prefix;
mod properties;
mod publisher;
mod topology;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lapin::uri::AMQPUri;
use runtime::Tasks;
use tokio::sync::{mpsc, watch};

use activity::{Activity, Seats};
use connection::Link;
pub use options::Options;

use crate::{Consumer, Error, Hints, Publisher, Queue, Transport};

/// Queues in RabbitMQ. Clones share the connections.
#[derive(Clone)]
pub struct RabbitMq {
    shared: Arc<Shared>,
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// How far shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    Draining,
    Closed,
}

/// What the transport's parts share.
struct Shared {
    options: Options,
    uri: AMQPUri,
    tasks: Tasks,
    phase: watch::Sender<Phase>,
    publishing: Link,
    consuming: Link,
    activity: Activity,
    seats: Seats,
    last_tag: AtomicU64,
    hints: mpsc::Sender<Arc<str>>,
}

impl Shared {
    fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() == phase
    }

    /// Waits until shutdown has come this far.
    async fn reached(&self, phase: Phase) {
        // It only fails when the sender is gone, which this struct owns.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// A tag that no consumer ever had, on whatever connection: the broker's begin at one on every channel.
    fn tag(&self) -> u64 {
        self.last_tag.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn hint(&self, body: &str) {
        if self.hints.try_send(Arc::from(body)).is_err() {
            hints::dropped(1);
        }
    }
}

impl RabbitMq {
    /// Begins to connect; whether the broker is there is told by [`Transport::trouble`]. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the URL can't be read.
    pub fn start(options: Options, tasks: &Tasks) -> Result<Self, Error> {
        let uri = options.uri()?;
        let (hints, given) = mpsc::channel(hints::GIVEN_MAX);
        let shared = Arc::new(Shared {
            options,
            uri,
            tasks: tasks.clone(),
            phase: watch::Sender::new(Phase::Open),
            publishing: Link::new("publish"),
            consuming: Link::new("consume"),
            activity: Activity::default(),
            seats: Seats::default(),
            last_tag: AtomicU64::new(0),
            hints,
        });
        tasks.spawn_vital("drain", drain(Arc::clone(&shared)));
        tasks.spawn_vital("publishing", connection::keep(Arc::clone(&shared), shared.publishing.clone()));
        tasks.spawn_vital("consuming", connection::keep(Arc::clone(&shared), shared.consuming.clone()));
        tasks.spawn_vital("hints", hints::give(Arc::clone(&shared), given));
        Ok(Self { shared })
    }
}

/// Closes the transport in two steps once shutdown has begun.
async fn drain(shared: Arc<Shared>) {
    shared.tasks.stopping().await;
    shared.phase.send_replace(Phase::Draining);
    if tokio::time::timeout(shared.options.drain, shared.activity.quiet()).await.is_err() {
        tracing::warn!("stopped before everything was confirmed and acknowledged; it comes again");
    }
    shared.phase.send_replace(Phase::Closed);
}

impl Transport for RabbitMq {
    fn publisher(&self) -> Arc<dyn Publisher> {
        Arc::new(publisher::Handle::start(&self.shared))
    }

    fn consumer(&self, queue: &Queue, prefetch: usize) -> Box<dyn Consumer> {
        Box::new(consumer::Handle::start(&self.shared, queue, prefetch))
    }

    fn hints(&self) -> Box<dyn Hints> {
        Box::new(hints::Heard::start(&self.shared))
    }

    fn trouble(&self) -> Option<String> {
        let links = [&self.shared.publishing, &self.shared.consuming];
        links.iter().find_map(|link| link.trouble()).or_else(|| self.shared.seats.trouble())
    }
}
