//! Simulators of the world outside: a card gateway, an SMS provider and a mail provider, over HTTP.
//!
//! For demos and tests, never for production. What was accepted is forgotten when the process ends, unless
//! [`Options::journal`] names a file to remember it in. Must hold: the list of accepted effects is written where the
//! effect happens and by nothing else, so that it can witness for or against the participants; every list is bounded;
//! magic inputs work only here.
//!
//! | input | what happens |
//! |---|---|
//! | payment method `tok_visa` | charged |
//! | `tok_declined`, or any unknown token | declined |
//! | `tok_slow` | charged after [`Options::slow_ms`], whether or not the caller still waits |
//! | `tok_timeout` | charged at once, but the first confirmation is never answered |
//! | phone `+15005550009` | the SMS provider is down: 503 |
//! | phone `+15005550008` | the message goes out, but the request is never answered |
//! | phone `+15005550001` | a landline, which takes no SMS: 400 |
//! | mail `nobody@example.org` | an address that takes no mail: 400 |

mod refusal;

mod accepted;

mod intents;

mod journal;

mod world;

mod gateway;

mod messages;

mod witness;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use runtime::{Clock, Tasks};
use saga_defs::Timestamp;
use serde::Deserialize;

pub use accepted::{Counts, Filter, Kind, Record, Summary};
use world::World;

/// Most bytes of a request body.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Why the simulators could not remember.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal could not be opened, read or cut to its last whole line.
    #[error("the simulators' journal can't be opened")]
    Journal(#[source] io::Error),
    /// A whole line of the journal is not one that a simulator wrote.
    #[error("line {line} of the simulators' journal can't be read")]
    JournalLine {
        /// Counted from one.
        line: u64,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A line of the journal can't follow the lines before it.
    #[error("line {line} of the simulators' journal does not follow from the lines before it")]
    JournalOrder {
        /// Counted from one.
        line: u64,
    },
}

/// How the simulators behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long a charge with `tok_slow` takes to land.
    pub slow_ms: u64,
    /// Most intents, and most messages of each channel; what comes later is refused with 503 `full`.
    pub records_max: usize,
    /// Where [`Providers::open`] keeps what happened, so that it outlives the process. Without it nothing does.
    pub journal: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { slow_ms: 3_000, records_max: 250_000, journal: None }
    }
}

/// The simulators' shared memory; cheap to clone.
#[derive(Clone)]
pub struct Providers {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    /// Under a standard mutex: no guard lives across an await.
    world: Mutex<World>,
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Providers {
    /// Providers in memory, without a journal, that have accepted nothing yet. Slow charges land in `tasks`.
    #[must_use]
    pub fn new(mut options: Options, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        let world = World::in_memory(options.records_max);
        options.journal = None;
        Self::over(world, options, clock, tasks)
    }

    /// Providers that know what [`Options::journal`] holds; without one, the same as [`Providers::new`]. Slow charges
    /// that were under way land in `tasks` when they were due, those overdue at once. Reads the file in one go: for
    /// the start of a process, within a tokio runtime.
    ///
    /// # Errors
    /// When the journal can't be opened, or holds what no simulator wrote.
    pub fn open(options: Options, clock: Arc<dyn Clock>, tasks: Tasks) -> Result<Self, Error> {
        let Some(path) = &options.journal else {
            return Ok(Self::new(options, clock, tasks));
        };
        let world = World::open(options.records_max, path)?;
        let providers = Self::over(world, options, clock, tasks);
        gateway::resume(&providers);
        Ok(providers)
    }

    fn over(world: World, options: Options, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self { inner: Arc::new(Inner { options, clock, tasks, world: Mutex::new(world) }) }
    }

    /// Switches the SMS provider off or on.
    pub fn set_sms_down(&self, down: bool) {
        self.world().sms_down = down;
        tracing::info!(down, "the SMS simulator was switched");
    }

    /// Counts of what was accepted.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.world().accepted.summary()
    }

    /// What was accepted, oldest first: at most `limit` records after sequence number `after`.
    #[must_use]
    pub fn accepted(&self, filter: &Filter, after: u64, limit: usize) -> Vec<Record> {
        self.world().accepted.list(filter, after, limit)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.inner.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    fn slow_ms(&self) -> u64 {
        self.inner.options.slow_ms
    }
}

/// The HTTP interface of all simulators.
pub fn router(providers: Providers) -> Router {
    Router::new()
        .merge(gateway::routes())
        .merge(messages::routes())
        .merge(witness::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(providers)
}
