//! The rows that a run has under way: they are renewed, and not swept up a second time.
//!
//! Must hold: a row counts as under way until the last of those that work on it is dropped.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// Keys of the rows under way or in line, and how often. Clones share them. Bounded by what the queue hands out
/// unacknowledged, and by the number of calls at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    keys: Mutex<BTreeMap<Uuid, usize>>,
    idle: Notify,
}

/// Marks a row as under way for as long as it lives.
#[derive(Debug)]
pub(crate) struct Mark {
    live: Live,
    key: Uuid,
}

impl Live {
    pub(crate) fn mark(&self, key: Uuid) -> Mark {
        *self.keys_and_times().entry(key).or_insert(0) += 1;
        Mark { live: self.clone(), key }
    }

    pub(crate) fn keys(&self) -> Vec<Uuid> {
        self.keys_and_times().keys().copied().collect()
    }

    /// Waits until no row is under way. Cancel-safe.
    pub(crate) async fn idle(&self) {
        loop {
            let mut idle = pin!(self.0.idle.notified());
            idle.as_mut().enable();
            if self.keys_and_times().is_empty() {
                return;
            }
            idle.await;
        }
    }

    /// No code panics half-way through a change, so what is behind a poisoned lock is whole.
    fn keys_and_times(&self) -> MutexGuard<'_, BTreeMap<Uuid, usize>> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut keys = self.live.keys_and_times();
        if let Entry::Occupied(mut times) = keys.entry(self.key) {
            *times.get_mut() -= 1;
            if *times.get() == 0 {
                times.remove();
            }
        }
        if keys.is_empty() {
            self.live.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_live_until_its_last_mark_is_gone() {
        let (live, key) = (Live::default(), Uuid::from_u128(1));
        let (one, other) = (live.mark(key), live.mark(key));
        drop(one);
        assert_eq!(live.keys(), [key]);
        drop(other);
        assert!(live.keys().is_empty());
    }
}
