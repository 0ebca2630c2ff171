//! How many threads a process works with.
//!
//! Not for the threads that libraries start for themselves. Must hold: never none.

use std::num::NonZero;
use std::thread::available_parallelism;

/// Half of the processors, for a process that leaves most of the work to a database and a broker: on one machine they need
/// the rest, and each thread more that sleeps and is woken costs all of them time. A process that has its machine to
/// itself waits for its services most of the time.
#[must_use]
pub fn beside_services() -> usize {
    (available_parallelism().map_or(1, NonZero::get) / 2).max(1)
}
