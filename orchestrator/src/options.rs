//! The engine's own limits. Only the binary fills them from configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::retention::Retention;

/// How much the engine takes on at once, and how often it looks around.
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers; inputs are routed to them by saga.
    pub workers: usize,
    /// Inputs that wait for one worker. A full queue refuses new sagas and holds back replies.
    pub queue: usize,
    /// Inputs of one commit.
    pub batch_max: usize,
    /// Sagas kept in memory as they were committed last, so that the next input need not read them.
    pub hot_max: usize,
    /// Reply messages taken but not acknowledged.
    pub prefetch: usize,
    /// Messages handed to the transport and not settled.
    pub in_flight_max: usize,
    /// Participants that get each command in a message of its own, because not all who consume their queues understand
    /// more.
    pub one_at_a_time: BTreeSet<String>,
    /// How often due outbox rows are looked for.
    pub relay_every: Duration,
    /// How often due sagas are looked for.
    pub timers_every: Duration,
    /// How often waited sagas are looked at, in case a hint was lost.
    pub hints_every: Duration,
    /// Whether instances tell each other of sagas that can answer a wait. Without, waits elsewhere are answered by
    /// looking.
    pub hints: bool,
    /// How long a request waits for its commit.
    pub answer_within: Duration,
    /// This process is provably the only one on its store: what a dead one left in the outbox is sent at once.
    pub alone: bool,
    /// How long ended sagas are kept. None: for ever.
    pub retention: Option<Retention>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // One batch of many costs less than two of half as many, on any database.
            workers: 1,
            queue: 1_024,
            batch_max: 256,
            hot_max: 4_096,
            prefetch: 512,
            in_flight_max: 2_048,
            one_at_a_time: BTreeSet::new(),
            relay_every: Duration::from_millis(250),
            timers_every: Duration::from_millis(100),
            hints_every: Duration::from_millis(100),
            hints: true,
            answer_within: Duration::from_secs(10),
            alone: false,
            retention: None,
        }
    }
}
