//! Dead letters in memory.

use std::collections::BTreeMap;

use saga_defs::{DeadLetter, Timestamp};
use uuid::Uuid;

use crate::{KeptLetter, LetterFilter, LetterState, LetterSummary, Settled, Settlement};

/// The table of dead letters.
#[derive(Default)]
pub(super) struct Letters(BTreeMap<Uuid, KeptLetter>);

impl Letters {
    pub(super) fn keep(&mut self, letters: &[DeadLetter], now: Timestamp) {
        for letter in letters {
            let fresh = kept(letter, now);
            match self.0.get_mut(&fresh.summary.id) {
                None => {
                    self.0.insert(fresh.summary.id, fresh);
                }
                Some(known) => match known.summary.state {
                    LetterState::Waiting => {}
                    LetterState::Replayed | LetterState::Discarded => {
                        let settled = known.summary.settled.take();
                        known.summary = LetterSummary { settled, ..fresh.summary };
                    }
                },
            }
        }
    }

    pub(super) fn list(&self, filter: &LetterFilter, limit: usize) -> Vec<LetterSummary> {
        let fitting = self.0.values().map(|kept| &kept.summary).filter(|letter| fits(letter, filter));
        let mut found: Vec<LetterSummary> = fitting.cloned().collect();
        found.sort_unstable_by_key(|letter| std::cmp::Reverse((letter.at, letter.id)));
        found.truncate(limit);
        found
    }

    pub(super) fn get(&self, id: Uuid) -> Option<KeptLetter> {
        self.0.get(&id).cloned()
    }

    /// Whether the letter was waiting, and is settled now.
    pub(super) fn settle(&mut self, id: Uuid, settlement: &Settlement, now: Timestamp) -> bool {
        let Some(kept) = self.0.get_mut(&id).filter(|kept| kept.summary.state == LetterState::Waiting) else {
            return false;
        };
        kept.summary.state = settlement.how.state();
        kept.summary.settled = Some(Settled { by: settlement.by.clone(), reason: settlement.reason.clone(), at: now });
        true
    }

    pub(super) fn waiting(&self) -> u64 {
        self.0.values().filter(|kept| kept.summary.state == LetterState::Waiting).count() as u64
    }
}

fn kept(letter: &DeadLetter, now: Timestamp) -> KeptLetter {
    let summary = LetterSummary {
        id: letter.id(),
        queue: letter.queue.clone(),
        reason: letter.reason,
        detail: letter.detail.clone(),
        at: letter.at.unwrap_or(now),
        attempts: letter.attempts,
        bytes: letter.bytes,
        state: LetterState::Waiting,
        settled: None,
    };
    KeptLetter { summary, encoding: letter.encoding, body: letter.body.clone() }
}

fn fits(letter: &LetterSummary, filter: &LetterFilter) -> bool {
    let LetterFilter { state, reason, queue, before } = filter;
    state.is_none_or(|state| letter.state == state)
        && reason.is_none_or(|reason| letter.reason == reason)
        && queue.as_ref().is_none_or(|queue| letter.queue == *queue)
        && before.is_none_or(|before| (letter.at, letter.id) < before)
}
