//! How long a worker waits for company before it commits.
//!
//! A commit of many costs little more than a commit of few, and what a last commit set going comes back together. Not a
//! timer that everybody pays: who is alone never waits. Must hold: the wait is bounded, shorter than the last turn, and
//! only begun when the last batch was worth it.

use std::time::Duration;

/// Fewer inputs than this are not waited for.
const WORTH: usize = 8;
/// The longest wait.
const PATIENCE_MAX: Duration = Duration::from_millis(5);

/// What the last turn was like.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    inputs: usize,
    took: Duration,
}

impl Gather {
    /// A turn is over.
    pub(crate) fn turned(&mut self, inputs: usize, took: Duration) {
        *self = Self { inputs, took };
    }

    /// How many inputs are worth waiting for, and for how long.
    pub(crate) fn goal(&self) -> (usize, Duration) {
        if self.inputs < WORTH {
            return (0, Duration::ZERO);
        }
        (self.inputs - self.inputs / 4, (self.took / 2).min(PATIENCE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_never_waits_and_nobody_waits_for_long() {
        let mut gather = Gather::default();
        assert_eq!(gather.goal(), (0, Duration::ZERO));
        gather.turned(WORTH - 1, Duration::from_secs(1));
        assert_eq!(gather.goal(), (0, Duration::ZERO));
        gather.turned(100, Duration::from_millis(4));
        assert_eq!(gather.goal(), (75, Duration::from_millis(2)));
        gather.turned(100, Duration::from_secs(1));
        assert_eq!(gather.goal(), (75, PATIENCE_MAX));
    }
}
