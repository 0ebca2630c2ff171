//! Waits between two tries of what must succeed in the end: doubled up to a bound, and over when shutdown begins.
//!
//! Not for calls that may fail for good: those are [`crate::retry`]'s. Must hold: no wait is longer than the bound.

use std::time::Duration;

use crate::Tasks;

/// The next wait, and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Pause {
    /// Waits from `first` to `max`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// Waits, and doubles the next wait. False when shutdown came first.
    pub async fn wait(&mut self, tasks: &Tasks) -> bool {
        let now = self.next;
        self.next = (now * 2).min(self.max);
        tasks.sleep(now).await
    }

    /// It succeeded: the next wait is the first again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_bound_and_begin_anew() {
        let (tasks, ms) = (Tasks::new(), Duration::from_millis);
        let mut pause = Pause::new(ms(10), ms(35));
        for expected in [10, 20, 35, 35] {
            let begun = Instant::now();
            assert!(pause.wait(&tasks).await);
            assert_eq!(begun.elapsed(), ms(expected));
        }
        pause.reset();
        let begun = Instant::now();
        assert!(pause.wait(&tasks).await);
        assert_eq!(begun.elapsed(), ms(10));
        tasks.stop();
        assert!(!pause.wait(&tasks).await);
    }
}
