//! What a connection to RabbitMQ is made of.
//!
//! Must hold: the URL's password shows up nowhere, not even in `Debug`; every wait and every queue has a limit here.

use std::fmt;
use std::time::Duration;

use lapin::uri::AMQPUri;

use crate::{Error, Queue};

/// How RabbitMQ is used.
#[derive(Clone)]
pub struct Options {
    /// `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://…`.
    pub url: String,
    /// Shown beside the connections in the broker's management.
    pub name: String,
    /// The queues that this process declares, as [`crate::topology::queues`] lists them; it consumes no others. A
    /// message for a queue that nobody declared comes back. The queue of dead letters is always among them.
    pub queues: Vec<Queue>,
    /// Messages that each publisher may have handed over without having asked for their fate; at least 1.
    pub in_flight_max: usize,
    /// Failed deliveries after which the broker makes a message a dead letter. Every process must say the same.
    pub delivery_limit: u32,
    /// How long connecting, or any other question to the broker, may take.
    pub answer_max: Duration,
    /// A connection without a sign of life for twice this long is lost.
    pub heartbeat: Duration,
    /// Wait before the second attempt to connect; it doubles from then on.
    pub backoff: Duration,
    /// Longest such wait.
    pub backoff_max: Duration,
    /// Spreads these waits, so that many processes do not come back at once.
    pub jitter_seed: u64,
    /// How long a message may wait for its confirm before it counts as lost.
    pub confirm_max: Duration,
    /// How long the fate of a message that the broker would not take is kept back, so that whoever sends it again
    /// at once does not do so in a circle.
    pub refused_pause: Duration,
    /// How long an acknowledgement may wait for others to be told with it: the broker writes down each time it is told.
    pub acknowledge_delay: Duration,
    /// How long after shutdown began messages are still confirmed and acknowledged.
    pub drain: Duration,
}

impl Options {
    /// The defaults, for these queues of the broker at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>, queues: Vec<Queue>) -> Self {
        Self {
            url: url.into(),
            name: "bookend".to_owned(),
            queues,
            in_flight_max: 1_024,
            delivery_limit: 20,
            answer_max: Duration::from_secs(5),
            heartbeat: Duration::from_secs(10),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            jitter_seed: u64::from(std::process::id()),
            confirm_max: Duration::from_secs(30),
            refused_pause: Duration::from_millis(200),
            acknowledge_delay: Duration::from_millis(50),
            drain: Duration::from_secs(5),
        }
    }

    /// Whether this queue is declared here.
    pub(super) fn declares(&self, queue: &Queue) -> bool {
        *queue == Queue::DeadLetters || self.queues.contains(queue)
    }

    /// The address with the heartbeat in it.
    pub(super) fn uri(&self) -> Result<AMQPUri, Error> {
        // A reason would quote the URL.
        let mut uri: AMQPUri = self.url.parse().map_err(|_| Error::Url)?;
        let secs = self.heartbeat.as_secs().clamp(1, u64::from(u16::MAX));
        uri.query.heartbeat = Some(u16::try_from(secs).unwrap_or(u16::MAX));
        Ok(uri)
    }

    /// How to try again for as long as it takes.
    pub(super) fn patience(&self) -> runtime::retry::Options {
        runtime::retry::Options {
            attempts_max: u32::MAX,
            delay_first: self.backoff,
            delay_max: self.backoff_max,
            // Longer than any process lives, and short enough for a clock to add.
            total_max: Duration::from_secs(10 * 365 * 86_400),
            jitter_seed: Some(self.jitter_seed),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("name", &self.name).field("queues", &self.queues).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_shows_up_nowhere() {
        for url in ["amqp://user:hunter2@broker:5672/vhost", "amqp:user:hunter2@broker", "http://user:hunter2@broker"] {
            let options = Options::new(url, vec![Queue::Replies]);
            assert!(!format!("{options:?}").contains("hunter2"));
            if let Err(error) = options.uri() {
                assert!(!format!("{error:?} {error} {}", error.line()).contains("hunter2"), "{error}");
            }
        }
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        for url in ["", "localhost", "amqp:broker", "http://broker", "amqp://broker:port"] {
            assert!(matches!(Options::new(url, Vec::new()).uri(), Err(Error::Url)), "{url}");
        }
        assert_eq!(Options::new("amqp://broker/v", Vec::new()).uri().expect("a URL").query.heartbeat, Some(10));
    }
}
