//! Sagas as this process committed them last, so that the next input need not read them.
//!
//! Not the truth: the store is. Must hold: what is decided on a hot saga counts only through a commit, which its version
//! guards; whatever else comes of it (ignored, refused) is decided again on what the store has. The number of sagas kept
//! is bounded, and each is given away once: it is hot again when it was committed again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use saga_store::Stored;
use uuid::Uuid;

/// Sagas that are kept.
#[derive(Debug)]
pub(crate) struct Hot {
    max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    sagas: HashMap<Uuid, (u64, Stored)>,
    /// By age, with what was given away meanwhile.
    order: VecDeque<(u64, Uuid)>,
    last: u64,
}

impl Hot {
    /// For at most `max` sagas.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, kept: Mutex::default() }
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).sagas.len()
    }

    /// Gives away those that are hot.
    pub(crate) fn take<'a>(&self, ids: impl Iterator<Item = &'a Uuid>) -> BTreeMap<Uuid, Stored> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        ids.filter_map(|id| kept.sagas.remove(id).map(|(_, stored)| (*id, stored))).collect()
    }

    /// Keeps sagas that were committed just now; the oldest make room.
    pub(crate) fn keep(&self, committed: impl Iterator<Item = Stored>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for stored in committed {
            kept.last += 1;
            let entry = (kept.last, stored.header.id);
            kept.order.push_back(entry);
            kept.sagas.insert(entry.1, (entry.0, stored));
        }
        while kept.sagas.len() > self.max || kept.order.len() > 2 * self.max {
            let Some((number, id)) = kept.order.pop_front() else { return };
            if kept.sagas.get(&id).is_some_and(|(of, _)| *of == number) {
                kept.sagas.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use saga_defs::Timestamp;
    use saga_store::{Header, State};
    use serde_json::Value;

    use super::*;

    fn stored(n: u128) -> Stored {
        let header = Header {
            id: Uuid::from_u128(n),
            tenant: String::new(),
            principal: String::new(),
            key: None,
            definition: String::new(),
            definition_version: 1,
            digest: String::new(),
            created_at: Timestamp(0),
        };
        Stored { header: Arc::new(header), state: State::Foreign(0), input: Arc::new(Value::Null) }
    }

    fn taken(hot: &Hot, ids: impl IntoIterator<Item = u128>) -> Vec<u128> {
        let ids: Vec<Uuid> = ids.into_iter().map(Uuid::from_u128).collect();
        hot.take(ids.iter()).into_keys().map(|id| id.as_u128()).collect()
    }

    #[test]
    fn the_oldest_make_room_and_each_is_given_away_once() {
        let hot = Hot::new(3);
        hot.keep((1..=4).map(stored));
        assert_eq!(taken(&hot, 1..=4), [2, 3, 4]);
        assert!(taken(&hot, 1..=4).is_empty());
    }

    #[test]
    fn what_is_kept_again_is_young_and_the_order_does_not_grow() {
        let hot = Hot::new(2);
        hot.keep([stored(1), stored(2), stored(1)].into_iter());
        hot.keep([stored(3)].into_iter());
        assert_eq!(taken(&hot, 1..=3), [1, 3]);
        for _ in 0..100 {
            hot.keep([stored(7)].into_iter());
            assert_eq!(taken(&hot, [7]), [7]);
        }
        assert!(hot.kept.lock().unwrap().order.len() <= 4);
    }
}
