//! Ended sagas on their way out, in memory.
//!
//! Must hold: the same conditions as on a database, see [`crate::Retention`].

use std::collections::{BTreeMap, BTreeSet};

use saga_defs::Timestamp;
use uuid::Uuid;

use super::{Queued, Row, Tables, at_most};
use crate::{LateReason, LateReply, Leaving, messages};

/// A saga whose participants are told that it has ended.
struct Departure {
    /// The outbox rows that tell of it and of its batch.
    messages: BTreeSet<Uuid>,
    due_at: Timestamp,
}

/// Sagas that are leaving, and what must outlive them.
#[derive(Default)]
pub(super) struct Departures {
    leaving: BTreeMap<Uuid, Departure>,
    deleted_ended_by: Option<Timestamp>,
}

/// When a saga ended: nothing changes it afterwards.
fn ended_at(row: &Row) -> Option<Timestamp> {
    row.saga.is_ended().then_some(row.updated_at)
}

impl Tables {
    pub(in crate::memory) fn ended(
        &self,
        (definition, version): (&str, u32),
        ended_by: Timestamp,
        passed: &[Uuid],
        limit: u64,
    ) -> Vec<Uuid> {
        let fits = |row: &&Row| {
            let (header, id) = (&row.header, row.header.id);
            header.definition == definition
                && header.definition_version == version
                && !self.departures.leaving.contains_key(&id)
                && !self.is_contradicted(id)
                && !passed.contains(&id)
        };
        let old = |row: &Row| ended_at(row).filter(|at| *at <= ended_by).map(|at| (at, row.header.id));
        let mut ended: Vec<(Timestamp, Uuid)> = self.sagas.values().filter(fits).filter_map(old).collect();
        ended.sort_unstable();
        ended.truncate(at_most(limit));
        ended.into_iter().map(|(_, id)| id).collect()
    }

    pub(in crate::memory) fn announce_ended(&mut self, batch: Uuid, leaving: &[Leaving], now: Timestamp) -> Vec<Uuid> {
        let unmarked = |leaving: &&Leaving| {
            let ended = self.sagas.get(&leaving.saga_id).is_some_and(|row| row.saga.is_ended());
            ended && !self.departures.leaving.contains_key(&leaving.saga_id)
        };
        let leaving: Vec<Leaving> = leaving.iter().filter(unmarked).cloned().collect();
        let messages = messages::announcements(batch, now, &leaving);
        let ids: BTreeSet<Uuid> = messages.iter().map(|message| message.id).collect();
        for message in messages {
            self.outbox.insert(message.id, Queued { message, due_at: now, created_at: now });
        }
        for leaving in &leaving {
            let departure = Departure { messages: ids.clone(), due_at: now };
            self.departures.leaving.insert(leaving.saga_id, departure);
        }
        leaving.into_iter().map(|leaving| leaving.saga_id).collect()
    }

    fn is_contradicted(&self, id: Uuid) -> bool {
        let of_saga = self.late.range((id, Uuid::nil(), LateReason::Ended)..=(id, Uuid::max(), LateReason::Orphan));
        of_saga.into_iter().any(|((.., reason), _)| *reason == LateReason::Contradiction)
    }

    /// Whether nothing more is waited for, and nothing speaks against it.
    fn may_go(&self, id: Uuid, departure: &Departure) -> bool {
        self.is_confirmed(departure) && !self.is_contradicted(id)
    }

    fn is_confirmed(&self, departure: &Departure) -> bool {
        departure.messages.iter().all(|id| !self.outbox.contains_key(id))
    }

    pub(in crate::memory) fn claim_departures(&mut self, now: Timestamp, limit: u64, push_ms: u64) -> Vec<Uuid> {
        let due = |(id, departure): (&Uuid, &Departure)| {
            (departure.due_at <= now && self.may_go(*id, departure)).then_some((departure.due_at, *id))
        };
        let mut due: Vec<(Timestamp, Uuid)> = self.departures.leaving.iter().filter_map(due).collect();
        due.sort_unstable();
        due.truncate(at_most(limit));
        for (_, id) in &due {
            if let Some(departure) = self.departures.leaving.get_mut(id) {
                departure.due_at = now.plus_ms(push_ms);
            }
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    pub(in crate::memory) fn late_page(&self, saga_id: Uuid, skip: u64, limit: u64) -> Vec<LateReply> {
        let mut late: Vec<LateReply> = self.late.values().filter(|reply| reply.saga_id == saga_id).cloned().collect();
        late.sort_by_key(|reply| (reply.received_at, reply.command_id));
        late.into_iter().skip(at_most(skip)).take(at_most(limit)).collect()
    }

    pub(in crate::memory) fn delete_departed(&mut self, ids: &[Uuid]) -> u64 {
        let mut deleted = 0;
        for id in ids {
            let leaves = self.departures.leaving.get(id).is_some_and(|departure| self.may_go(*id, departure));
            if !leaves {
                continue;
            }
            self.departures.leaving.remove(id);
            self.history.retain(|(saga_id, _), _| saga_id != id);
            self.late.retain(|(saga_id, ..), _| saga_id != id);
            self.spoiled.remove(id);
            if let Some(row) = self.sagas.remove(id) {
                deleted += 1;
                self.departures.deleted_ended_by = self.departures.deleted_ended_by.max(ended_at(&row));
            }
        }
        deleted
    }

    pub(in crate::memory) fn delete_start_keys(&mut self, created_by: Timestamp, limit: u64) -> u64 {
        let old = self.start_keys.iter().filter(|(_, taken)| taken.at <= created_by);
        let mut old: Vec<_> = old.filter(|(_, taken)| !self.sagas.contains_key(&taken.by)).collect();
        old.sort_by_key(|(_, taken)| taken.at);
        let old: Vec<_> = old.into_iter().take(at_most(limit)).map(|(key, _)| key.clone()).collect();
        for key in &old {
            self.start_keys.remove(key);
        }
        old.len() as u64
    }

    pub(in crate::memory) fn deleted_ended_by(&self) -> Option<Timestamp> {
        self.departures.deleted_ended_by
    }
}
