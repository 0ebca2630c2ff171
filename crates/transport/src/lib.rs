//! Moves messages between the engine and its participants, at least once.
//!
//! The port takes slices and knows bytes only. Not for deciding anything: duplicates, order and loss are the
//! business of outbox and inbox. Must hold: handing over never waits, so that queues in a ring can't block each
//! other; a message counts as confirmed only when its consumer acknowledged it (in-process) or the broker has it
//! safe; what a consumer drops without acknowledging is delivered again. Knows nothing of the store.

pub mod topology;

pub mod in_process;

pub mod rabbitmq;

pub mod conformance;

mod error;

pub use error::Error;
pub use in_process::InProcess;
pub use rabbitmq::RabbitMq;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// Commands for the participant of this name.
    Participant(String),
    /// Replies, shared by all orchestrators.
    Replies,
    /// What could not be handled, for a person to look at; taken by any orchestrator.
    DeadLetters,
}

impl Queue {
    /// The queue's name in a broker and in the outbox.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Participant(name) => format!("bookend.{name}"),
            Self::Replies => "bookend.replies".to_owned(),
            Self::DeadLetters => "bookend.dead".to_owned(),
        }
    }

    /// The queue of this name, as [`Queue::name`] gives it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("bookend.")? {
            "replies" => Some(Self::Replies),
            "dead" => Some(Self::DeadLetters),
            "" => None,
            participant => Some(Self::Participant(participant.to_owned())),
        }
    }
}

/// Bytes on their way. `Debug` shows no body: it may hold personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Names the message to its publisher; sent again under the same id.
    pub id: Uuid,
    /// Where it goes.
    pub queue: Queue,
    /// A JSON object, or an array of them.
    pub body: Arc<str>,
    /// The saga it is about, or one of them: for tools and traces. Nothing is decided from it.
    pub about: Option<Uuid>,
}

impl Message {
    /// A message about no saga in particular.
    #[must_use]
    pub fn new(id: Uuid, queue: Queue, body: impl Into<Arc<str>>) -> Self {
        Self { id, queue, body: body.into(), about: None }
    }

    /// The same message, told to be about a saga.
    #[must_use]
    pub fn about(self, saga_id: Uuid) -> Self {
        Self { about: Some(saga_id), ..self }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} to {})", self.id, self.queue.name())
    }
}

/// What came of handing a message over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// On its way; its fate follows from [`Publisher::settled`], exactly once for each time it was handed over.
    Over,
    /// Not taken: the queue is full or out of reach, or known to be nowhere. Nothing follows.
    NoRoom,
}

/// The fate of a message that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The message.
    pub id: Uuid,
    /// Safe at the other side; else it may be lost and should be sent again.
    pub confirmed: bool,
}

/// Hands messages over.
#[async_trait]
pub trait Publisher: Send + Sync + fmt::Debug {
    /// Hands over without waiting; one result per message, in order.
    fn publish(&self, messages: &[Message]) -> Vec<Handed>;

    /// Whether messages are taken at all. While not, each of them finds no room, and trying is of no use.
    fn is_open(&self) -> bool;

    /// Waits until a message for `queue` is likely to be taken. Cancel-safe.
    async fn room(&self, queue: &Queue);

    /// Waits for the fate of at least one message and returns all that is known. Cancel-safe: nothing is lost
    /// when the future is dropped. At most one caller at a time.
    async fn settled(&self) -> Vec<Settled>;

    /// Tells every consumer of hints, in this process and in others, without waiting. May be lost.
    fn hint(&self, body: &str);
}

/// A message as a consumer gets it. `Debug` shows no body.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names the delivery to its consumer.
    pub tag: u64,
    /// The message's body, whatever somebody put into the queue.
    pub body: Arc<[u8]>,
    /// How the message came to [`Queue::DeadLetters`], when a broker put it there.
    pub died: Option<Died>,
}

/// Why a broker gave up on a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Died {
    /// The name of the queue it was in.
    pub queue: String,
    /// The broker's word: `rejected`, `delivery_limit`, `expired` or `maxlen`.
    pub reason: String,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivery({})", self.tag)
    }
}

/// Takes messages from one queue. Dropping it gives back what was not acknowledged.
#[async_trait]
pub trait Consumer: Send + fmt::Debug {
    /// Waits for at least one message and takes up to `max`, never more than its prefetch unacknowledged.
    /// `None` when the transport has closed. Cancel-safe.
    async fn receive(&mut self, max: usize) -> Option<Vec<Delivery>>;

    /// Acknowledges. Tags of earlier connections or unknown ones are ignored.
    async fn acknowledge(&mut self, tags: &[u64]);
}

/// Hears what publishers hint at. What was hinted at before it was made is not heard.
#[async_trait]
pub trait Hints: Send + fmt::Debug {
    /// Waits for the next hint. `None` when the transport has closed. Cancel-safe.
    async fn next(&mut self) -> Option<Arc<str>>;
}

/// A way to move messages.
pub trait Transport: Send + Sync + fmt::Debug {
    /// A publisher with a stream of fates of its own.
    fn publisher(&self) -> Arc<dyn Publisher>;

    /// A consumer of `queue` that holds at most `prefetch` unacknowledged messages.
    fn consumer(&self, queue: &Queue, prefetch: usize) -> Box<dyn Consumer>;

    /// A consumer of hints.
    fn hints(&self) -> Box<dyn Hints>;

    /// What keeps messages from moving right now, in words for an operator; none when they move.
    fn trouble(&self) -> Option<String>;
}
