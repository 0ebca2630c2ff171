//! Simulators of the world outside: a card gateway, an SMS provider and a mail provider, over HTTP and in memory.
//!
//! For demos and tests, never for production: what was accepted is forgotten when the process ends. Must hold: the
//! list of accepted effects is written where the effect happens and by nothing else, so that it can witness for or
//! against the participants; every list is bounded; magic inputs work only here.
//!
//! | input | what happens |
//! |---|---|
//! | payment method `tok_visa` | charged |
//! | `tok_declined`, or any unknown token | declined |
//! | `tok_slow` | charged after [`Options::slow_ms`], whether or not the caller still waits |
//! | `tok_timeout` | charged at once, but the first confirmation is never answered |
//! | phone `+15005550009` | the SMS provider is down: 503 |
//! | phone `+15005550008` | the message goes out, but the request is never answered |

mod refusal;

mod journal;

mod intents;

mod gateway;

mod messages;

mod witness;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use runtime::{Clock, Tasks};
use saga_defs::Timestamp;
use serde::Deserialize;

use intents::Intents;
use journal::Journal;
pub use journal::{Counts, Filter, Kind, Record, Summary};

/// Most bytes of a request body.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How the simulators behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long a charge with `tok_slow` takes to land.
    pub slow_ms: u64,
    /// Most intents, and most messages of each channel; what comes later is refused with 503 `full`.
    pub records_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { slow_ms: 3_000, records_max: 250_000 }
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

/// Everything that the providers know.
struct World {
    intents: Intents,
    journal: Journal,
    sms_down: bool,
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Providers {
    /// Providers that have accepted nothing yet. Slow charges land in `tasks`.
    #[must_use]
    pub fn new(options: Options, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        let records_max = options.records_max;
        let world = World { intents: Intents::new(records_max), journal: Journal::new(records_max), sms_down: false };
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
        self.world().journal.summary()
    }

    /// What was accepted, oldest first: at most `limit` records after sequence number `after`.
    #[must_use]
    pub fn accepted(&self, filter: &Filter, after: u64, limit: usize) -> Vec<Record> {
        self.world().journal.list(filter, after, limit)
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

    fn slow(&self) -> Duration {
        Duration::from_millis(self.inner.options.slow_ms)
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
