//! What every long-running part needs from its surroundings: tasks, clock, shutdown, telemetry, the HTTP edge,
//! retries and the circuit breaker.
//!
//! Not for business: nothing here knows a saga. Must hold: nothing here reads configuration; each part has an
//! options struct, and only the binary fills it.

pub mod threads;

pub mod tasks;

mod pause;

pub mod clock;

pub mod health;

pub mod telemetry;

pub mod metrics;

pub mod retry;

pub mod breaker;

pub mod http;

mod error;

pub use breaker::{Breaker, BreakerError};
pub use clock::{Clock, SystemClock};
pub use error::Error;
pub use health::Health;
pub use pause::Pause;
pub use retry::retry;
pub use tasks::Tasks;
