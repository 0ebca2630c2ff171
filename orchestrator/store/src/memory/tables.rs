//! The tables in memory, and what each call does to them.
//!
//! Must hold: a commit either happens whole or returns before its first write; every answer is in the order that a
//! database would be asked for.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use saga_core::{Saga, Status};
use saga_defs::Timestamp;
use sea_orm::DbErr;
use serde_json::Value;
use uuid::Uuid;

use super::dead_letters::Letters;
use crate::conformance::Part;
use crate::messages::{self, HEAD_START_MS, backoff_ms};
use crate::{
    Batch, Committed, Error, Filter, Guard, Header, HistoryRow, LateReason, LateReply, OutboxLoad, OutboxMessage,
    Outcome, PublishedDefinition, Settlement, Settling, StartKey, State, Stored, Summary, Transition, Unreadable,
};

mod retention;

/// Most late replies that a saga's list shows.
const SHOWN_MAX: u64 = 200;

struct Row {
    header: Arc<Header>,
    saga: Arc<Saga>,
    input: Arc<Value>,
    /// Apart from the state's: claims push it.
    wake_at: Option<Timestamp>,
    updated_at: Timestamp,
}

/// A start key that is taken.
struct Taken {
    by: Uuid,
    fingerprint: String,
    at: Timestamp,
}

struct Past {
    commit_id: Uuid,
    row: HistoryRow,
}

struct Queued {
    message: OutboxMessage,
    due_at: Timestamp,
    created_at: Timestamp,
}

/// All tables of the engine.
#[derive(Default)]
pub(super) struct Tables {
    sagas: BTreeMap<Uuid, Row>,
    start_keys: BTreeMap<StartKey, Taken>,
    history: BTreeMap<(Uuid, u64), Past>,
    outbox: BTreeMap<Uuid, Queued>,
    late: BTreeMap<(Uuid, Uuid, LateReason), LateReply>,
    definitions: BTreeMap<(String, u32), PublishedDefinition>,
    departures: retention::Departures,
    spoiled: BTreeMap<Uuid, Part>,
    pub(super) letters: Letters,
}

/// The first saga of `batch` that is guarded by a version.
pub(super) fn first_swap(batch: &Batch) -> Option<Uuid> {
    let swap = |transition: &&Transition| matches!(transition.guard, Guard::Version(_));
    batch.transitions.iter().find(swap).map(|transition| transition.header.id)
}

pub(super) fn at_most(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

impl Tables {
    pub(super) fn load(&self, ids: &[Uuid]) -> BTreeMap<Uuid, Stored> {
        let stored = |row: &Row| {
            let (header, known) = (Arc::clone(&row.header), State::Known(Arc::clone(&row.saga)));
            let unreadable = |name: &str| {
                let why = format!("its {name} is not what was written (a test spoiled it)");
                State::Unreadable(Unreadable { version: row.saga.version, why })
            };
            match self.spoiled.get(&header.id) {
                None => Stored { header, state: known, input: Arc::clone(&row.input) },
                Some(Part::State) => Stored { header, state: unreadable("state"), input: Arc::clone(&row.input) },
                Some(Part::Input) => Stored { header, state: unreadable("input"), input: Arc::default() },
            }
        };
        ids.iter().filter_map(|id| self.sagas.get(id).map(|row| (*id, stored(row)))).collect()
    }

    pub(super) fn spoil(&mut self, saga_id: Uuid, part: Part) {
        self.spoiled.insert(saga_id, part);
    }

    pub(super) fn mend(&mut self, saga_id: Uuid) {
        self.spoiled.remove(&saga_id);
    }

    /// Commits `batch`; `loser` loses whatever its version is.
    pub(super) fn commit(&mut self, batch: &Batch, now: Timestamp, loser: Option<Uuid>) -> Result<Committed, Error> {
        self.check_history(batch, loser)?;
        let mut in_order: Vec<&Transition> = batch.transitions.iter().collect();
        // Ends free business keys before starts ask for them.
        in_order.sort_unstable_by_key(|next| (matches!(next.guard, Guard::Start { .. }), next.header.id));
        let mut outcomes: BTreeMap<Uuid, Outcome> = BTreeMap::new();
        for next in &in_order {
            let outcome = if loser == Some(next.header.id) { Outcome::Lost } else { self.judge(next) };
            if outcome == Outcome::Committed {
                self.write(next, batch);
            }
            outcomes.insert(next.header.id, outcome);
        }
        in_order.retain(|next| outcomes.get(&next.header.id) == Some(&Outcome::Committed));
        in_order.sort_unstable_by_key(|next| next.header.id);
        let commands = in_order.iter().flat_map(|winner| &winner.commands);
        let messages = messages::group(batch.commit_id, batch.now, commands);
        for message in &messages {
            let queued = Queued { message: message.clone(), due_at: now.plus_ms(HEAD_START_MS), created_at: now };
            self.outbox.insert(message.id, queued);
        }
        self.confirm_outbox(&batch.confirmed);
        let outcome = |next: &Transition| outcomes.remove(&next.header.id).unwrap_or(Outcome::Lost);
        Ok(Committed { outcomes: batch.transitions.iter().map(outcome).collect(), messages })
    }

    /// Fails as a database does when a winner would write a row of history that is there.
    fn check_history(&self, batch: &Batch, loser: Option<Uuid>) -> Result<(), Error> {
        let wins = |next: &&Transition| loser != Some(next.header.id) && self.judge(next) == Outcome::Committed;
        let mut winners = batch.transitions.iter().filter(wins);
        let taken =
            |next: &Transition| next.history.iter().any(|row| self.history.contains_key(&(next.header.id, row.seq)));
        if winners.any(taken) {
            let error = DbErr::Custom("a row of history is there already".to_owned());
            return Err(Error::Bug(db::Error::Bug(error)));
        }
        Ok(())
    }

    pub(super) fn started(&self, key: &StartKey) -> Option<(Uuid, String)> {
        self.start_keys.get(key).map(|taken| (taken.by, taken.fingerprint.clone()))
    }

    fn judge(&self, next: &Transition) -> Outcome {
        let Header { id, tenant, key, .. } = &*next.header;
        match &next.guard {
            Guard::Version(expected) => match self.sagas.get(id) {
                Some(row) if row.saga.version == *expected => Outcome::Committed,
                Some(_) | None => Outcome::Lost,
            },
            Guard::Start { start_key, .. } => {
                if let Some(taken) = self.start_keys.get(start_key) {
                    return Outcome::KeyTaken { saga_id: taken.by, fingerprint: taken.fingerprint.clone() };
                }
                let same = |row: &&Row| row.header.tenant == *tenant && row.header.key == *key;
                let open = self.sagas.values().filter(|row| key.is_some() && !row.saga.is_ended()).find(same);
                match open {
                    Some(row) => Outcome::BusinessKeyTaken { saga_id: row.header.id },
                    None if self.sagas.contains_key(id) => Outcome::Lost,
                    None => Outcome::Committed,
                }
            }
        }
    }

    fn write(&mut self, next: &Transition, batch: &Batch) {
        let id = next.header.id;
        let (wake_at, updated_at) = (next.saga.wake_at(), batch.now);
        match &next.guard {
            Guard::Start { start_key, fingerprint, input } => {
                let taken = Taken { by: id, fingerprint: fingerprint.clone(), at: next.header.created_at };
                self.start_keys.insert(start_key.clone(), taken);
                let (header, saga, input) = (Arc::clone(&next.header), Arc::clone(&next.saga), Arc::clone(input));
                self.sagas.insert(id, Row { header, saga, input, wake_at, updated_at });
            }
            Guard::Version(_) => {
                // A commit writes the whole state, and no input.
                if self.spoiled.get(&id) == Some(&Part::State) {
                    self.spoiled.remove(&id);
                }
                if let Some(row) = self.sagas.get_mut(&id) {
                    row.saga = Arc::clone(&next.saga);
                    row.wake_at = match (row.wake_at, wake_at) {
                        (Some(stored), Some(next)) => Some(stored.min(next)),
                        (None, next) => next,
                        (Some(_), None) => None,
                    };
                    row.updated_at = updated_at;
                }
            }
        }
        for row in &next.history {
            self.history.insert((id, row.seq), Past { commit_id: batch.commit_id, row: row.clone() });
        }
    }

    pub(super) fn committed(&self, commit_id: Uuid, ids: &[Uuid]) -> Vec<Uuid> {
        let mut sagas: Vec<Uuid> = self
            .history
            .iter()
            .filter(|((saga_id, _), past)| past.commit_id == commit_id && ids.contains(saga_id))
            .map(|((saga_id, _), _)| *saga_id)
            .collect();
        sagas.dedup();
        sagas
    }

    pub(super) fn claim_outbox(&mut self, now: Timestamp, limit: u64, push_ms: u64) -> Vec<OutboxMessage> {
        let mut due: Vec<&mut Queued> = self.outbox.values_mut().filter(|queued| queued.due_at <= now).collect();
        due.sort_unstable_by_key(|queued| (queued.due_at, queued.message.id));
        due.truncate(at_most(limit));
        due.sort_unstable_by_key(|queued| queued.message.id);
        let claim = |queued: &mut Queued| {
            queued.due_at = now.plus_ms(backoff_ms(push_ms, queued.message.attempts));
            queued.message.attempts += 1;
            queued.message.clone()
        };
        due.into_iter().map(claim).collect()
    }

    pub(super) fn release_outbox(&mut self, now: Timestamp) {
        for queued in self.outbox.values_mut() {
            queued.due_at = now;
            queued.message.attempts = 0;
        }
    }

    pub(super) fn extend_outbox(&mut self, ids: &[Uuid], due_at: Timestamp) {
        for id in ids {
            if let Some(queued) = self.outbox.get_mut(id) {
                queued.due_at = queued.due_at.max(due_at);
            }
        }
    }

    pub(super) fn confirm_outbox(&mut self, ids: &[Uuid]) {
        for id in ids {
            self.outbox.remove(id);
        }
    }

    pub(super) fn outbox_load(&self, now: Timestamp) -> OutboxLoad {
        let oldest = self.outbox.values().map(|queued| queued.created_at).min();
        OutboxLoad { rows: self.outbox.len() as u64, oldest_ms: oldest.map_or(0, |oldest| oldest.ms_until(now)) }
    }

    pub(super) fn claim_timers(&mut self, now: Timestamp, limit: u64, push_ms: u64) -> Vec<Uuid> {
        let due = |row: &Row| row.wake_at.filter(|wake_at| *wake_at <= now).map(|wake_at| (wake_at, row.header.id));
        let mut due: Vec<(Timestamp, Uuid)> = self.sagas.values().filter_map(due).collect();
        due.sort_unstable();
        due.truncate(at_most(limit));
        for (_, id) in &due {
            if let Some(row) = self.sagas.get_mut(id) {
                row.wake_at = Some(now.plus_ms(push_ms));
            }
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn rearm_timers(&mut self, wakes: &[(Uuid, u64, Timestamp)]) {
        for (id, version, wake_at) in wakes {
            if let Some(row) = self.sagas.get_mut(id)
                && row.saga.version == *version
                && row.wake_at.is_some()
            {
                row.wake_at = Some(*wake_at);
            }
        }
    }

    pub(super) fn keep_late(&mut self, replies: &[LateReply]) {
        for reply in replies {
            let key = (reply.saga_id, reply.command_id, reply.reason);
            self.late.entry(key).or_insert_with(|| reply.clone());
        }
    }

    pub(super) fn late(&self, saga_id: Uuid) -> Vec<LateReply> {
        self.late_page(saga_id, 0, SHOWN_MAX)
    }

    pub(super) fn contradictions(&self, ids: &RangeInclusive<Uuid>, limit: u64) -> Vec<(Uuid, u64)> {
        let mut contradicted: BTreeMap<Uuid, u64> = BTreeMap::new();
        let within = self.late.values().filter(|reply| ids.contains(&reply.saga_id));
        for reply in within.filter(|reply| reply.reason == LateReason::Contradiction) {
            *contradicted.entry(reply.saga_id).or_default() += 1;
        }
        contradicted.into_iter().take(at_most(limit)).collect()
    }

    /// Settles a waiting dead letter, and queues what is sent again.
    pub(super) fn settle(&mut self, id: Uuid, settlement: &Settlement, now: Timestamp) -> bool {
        let settled = self.letters.settle(id, settlement, now);
        if let (true, Settling::Replay(Some(message))) = (settled, &settlement.how) {
            self.outbox.insert(message.id, Queued { message: message.clone(), due_at: now, created_at: now });
        }
        settled
    }

    pub(super) fn answered(&self, ids: &[Uuid]) -> Vec<(Uuid, u64)> {
        let found = ids.iter().filter_map(|id| self.sagas.get(id).map(|row| (*id, &row.saga)));
        let mut versions: Vec<(Uuid, u64)> =
            found.filter(|(_, saga)| saga.is_answered()).map(|(id, saga)| (id, saga.version)).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    pub(super) fn history(&self, saga_id: Uuid, after_seq: u64, limit: u64) -> Vec<HistoryRow> {
        let after = (saga_id, after_seq.saturating_add(1))..=(saga_id, u64::MAX);
        self.history.range(after).take(at_most(limit)).map(|(_, past)| past.row.clone()).collect()
    }

    pub(super) fn list(&self, filter: &Filter, limit: u64) -> Vec<Summary> {
        let newest_first = self.sagas.values().rev();
        newest_first.filter(|row| fits(row, filter)).take(at_most(limit)).map(summary).collect()
    }

    pub(super) fn count_open(&self) -> Vec<(Status, u64)> {
        let mut counts: BTreeMap<Status, u64> = BTreeMap::new();
        for row in self.sagas.values().filter(|row| !row.saga.is_ended()) {
            *counts.entry(row.saga.status()).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    pub(super) fn publish_definitions(&mut self, definitions: &[PublishedDefinition]) -> Result<(), Error> {
        let key = |definition: &PublishedDefinition| (definition.name.clone(), definition.version);
        let other = definitions.iter().find(|definition| {
            self.definitions.get(&key(definition)).is_some_and(|stored| stored.digest != definition.digest)
        });
        if let Some(changed) = other {
            return Err(Error::DefinitionChanged(format!("{}@{}", changed.name, changed.version)));
        }
        for definition in definitions {
            self.definitions.entry(key(definition)).or_insert_with(|| definition.clone());
        }
        Ok(())
    }

    pub(super) fn definitions(&self) -> Vec<PublishedDefinition> {
        self.definitions.values().cloned().collect()
    }
}

fn fits(row: &Row, filter: &Filter) -> bool {
    let Filter { tenant, principal, status, definition, key, before } = filter;
    let header = &row.header;
    header.tenant == *tenant
        && principal.as_ref().is_none_or(|principal| header.principal == *principal)
        && status.is_none_or(|status| row.saga.status() == status)
        && definition.as_ref().is_none_or(|definition| header.definition == *definition)
        && key.as_ref().is_none_or(|key| header.key.as_ref() == Some(key))
        && before.is_none_or(|before| header.id < before)
}

fn summary(row: &Row) -> Summary {
    Summary {
        header: (*row.header).clone(),
        status: row.saga.status(),
        decision: row.saga.decision,
        failure_code: row.saga.failure.as_ref().map(|failure| failure.code.clone()),
        stuck: row.saga.stuck.as_ref().map(|stuck| (stuck.cause, stuck.step.clone())),
        version: row.saga.version,
        updated_at: row.updated_at,
        decided_at: row.saga.decided_at,
    }
}
