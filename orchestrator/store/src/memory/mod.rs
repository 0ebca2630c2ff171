//! The store in memory: for simulations on one thread and for tests of what happens when a commit fails.
//!
//! Not for keeping anything: all is gone with the last clone. Must hold: passes [`crate::conformance`]; no IO, no
//! randomness and no clock but the one it is given, so that a run repeats; gives way at every call, so that other
//! tasks run in between and a caller can be dropped before or after a commit.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use runtime::Clock;
use saga_core::Status;
use saga_defs::{DeadLetter, Timestamp};
use sea_orm::DbErr;
use tokio::sync::watch;
use tokio::task::yield_now;
use uuid::Uuid;

use crate::{
    Batch, Committed, Error, Filter, HistoryRow, KeptLetter, LateReply, Leaving, LetterFilter, LetterSummary, Loaded,
    OutboxLoad, OutboxMessage, PublishedDefinition, Retention, Settlement, StartKey, Store, Summary,
};

use tables::Tables;

use crate::conformance::{Part, Spoil};

/// The tables, without any waiting.
mod tables;

mod dead_letters;

/// What can go wrong with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing is committed, and the caller is told so.
    Unavailable,
    /// All is committed, and the caller is told nothing.
    CommittedUnknown,
    /// Nothing is committed, and the caller is told nothing.
    DroppedUnknown,
    /// Nothing is committed, and the caller is told that it never will be.
    Refused,
    /// The first compare-and-swap of the commit loses; waits for a commit that has one.
    Lost,
}

#[derive(Default)]
struct Faults {
    next: VecDeque<Fault>,
    fired: BTreeMap<Fault, u64>,
    /// Keeps of dead letters that will fail.
    keeps: u64,
    /// Every keep of dead letters is refused.
    no_letters: bool,
    /// The saga whose commits find the store out of reach.
    unlucky: Option<Uuid>,
    /// The command whose reply is never kept as a fact.
    unkept: Option<Uuid>,
}

impl Faults {
    /// Whether this keep of dead letters fails.
    fn takes_a_keep(&mut self) -> bool {
        let fails = self.keeps > 0;
        self.keeps = self.keeps.saturating_sub(1);
        fails
    }

    /// The fault that this commit meets, if it meets one.
    fn take(&mut self, batch: &Batch) -> Option<Fault> {
        if batch.transitions.iter().any(|transition| self.unlucky == Some(transition.header.id)) {
            *self.fired.entry(Fault::Unavailable).or_default() += 1;
            return Some(Fault::Unavailable);
        }
        let fault = *self.next.front()?;
        let fits = match fault {
            Fault::Unavailable | Fault::CommittedUnknown | Fault::DroppedUnknown | Fault::Refused => true,
            Fault::Lost => tables::first_swap(batch).is_some(),
        };
        if !fits {
            return None;
        }
        *self.fired.entry(fault).or_default() += 1;
        self.next.pop_front()
    }
}

/// The engine's tables in memory. Clones share them.
#[derive(Clone)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    tables: Arc<Mutex<Tables>>,
    faults: Arc<Mutex<Faults>>,
    held: watch::Sender<bool>,
}

impl MemoryStore {
    /// Empty tables with this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tables: Arc::default(), faults: Arc::default(), held: watch::Sender::new(false) }
    }

    /// Makes a later commit meet `fault`: the next one, or the next after those that faults wait for already.
    pub fn fail_next(&self, fault: Fault) {
        lock(&self.faults).next.push_back(fault);
    }

    /// Makes the next `times` keeps of dead letters find the store out of reach.
    pub fn fail_keeps(&self, times: u64) {
        lock(&self.faults).keeps = times;
    }

    /// Refuses to keep any dead letter, or takes them again.
    pub fn refuse_letters(&self, refused: bool) {
        lock(&self.faults).no_letters = refused;
    }

    /// Makes every commit with this saga find the store out of reach; with none, no commit any more.
    pub fn fail_with(&self, saga_id: Option<Uuid>) {
        lock(&self.faults).unlucky = saga_id;
    }

    /// Makes commits wait until they are let go, as a slow disk does.
    pub fn hold_commits(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Refuses to keep a reply to this command as a fact.
    pub fn refuse_late(&self, command_id: Uuid) {
        lock(&self.faults).unkept = Some(command_id);
    }

    /// Makes a part of a saga unreadable.
    pub fn make_unreadable(&self, saga_id: Uuid, part: Part) {
        self.tables().spoil(saga_id, part);
    }

    /// Makes a saga readable again, as it was.
    pub fn mend(&self, saga_id: Uuid) {
        self.tables().mend(saga_id);
    }

    /// How many keeps of dead letters are still to fail.
    #[must_use]
    pub fn keeps_to_fail(&self) -> u64 {
        lock(&self.faults).keeps
    }

    /// How many commits met `fault`.
    #[must_use]
    pub fn fired(&self, fault: Fault) -> u64 {
        lock(&self.faults).fired.get(&fault).copied().unwrap_or(0)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

#[async_trait]
impl Spoil for MemoryStore {
    async fn spoil(&self, saga_id: Uuid, part: Part) {
        self.make_unreadable(saga_id, part);
    }
}

/// No code panics between two writes that belong together, so tables behind a poisoned lock are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn injected() -> DbErr {
    DbErr::Custom("a fault that a test asked for".to_owned())
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self, ids: &[Uuid]) -> Result<Loaded, Error> {
        yield_now().await;
        Ok(Loaded { now: self.clock.now(), sagas: self.tables().load(ids) })
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, Error> {
        yield_now().await;
        // It only fails when there is no store any more.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        let fault = lock(&self.faults).take(&batch);
        let now = self.clock.now();
        let answer = match fault {
            None => self.tables().commit(&batch, now, None),
            Some(Fault::Unavailable) => Err(Error::Unavailable(db::Error::Transient(injected()))),
            Some(Fault::CommittedUnknown) => {
                let committed = self.tables().commit(&batch, now, None);
                committed.and(Err(Error::UnknownCommit(db::Error::Unknown)))
            }
            Some(Fault::Refused) => Err(Error::Bug(db::Error::Bug(injected()))),
            Some(Fault::DroppedUnknown) => Err(Error::UnknownCommit(db::Error::Unknown)),
            Some(Fault::Lost) => {
                let loser = tables::first_swap(&batch);
                self.tables().commit(&batch, now, loser)
            }
        };
        yield_now().await;
        answer
    }

    async fn started(&self, key: &StartKey) -> Result<Option<(Uuid, String)>, Error> {
        yield_now().await;
        Ok(self.tables().started(key))
    }

    async fn committed(&self, commit_id: Uuid, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        yield_now().await;
        Ok(self.tables().committed(commit_id, ids))
    }

    async fn claim_outbox(&self, limit: u64, push_ms: u64) -> Result<Vec<OutboxMessage>, Error> {
        yield_now().await;
        Ok(self.tables().claim_outbox(self.clock.now(), limit, push_ms))
    }

    async fn release_outbox(&self) -> Result<(), Error> {
        yield_now().await;
        self.tables().release_outbox(self.clock.now());
        Ok(())
    }

    async fn extend_outbox(&self, ids: &[Uuid], push_ms: u64) -> Result<(), Error> {
        yield_now().await;
        self.tables().extend_outbox(ids, self.clock.now().plus_ms(push_ms));
        Ok(())
    }

    async fn confirm_outbox(&self, ids: &[Uuid]) -> Result<(), Error> {
        yield_now().await;
        self.tables().confirm_outbox(ids);
        Ok(())
    }

    async fn outbox_load(&self) -> Result<OutboxLoad, Error> {
        yield_now().await;
        Ok(self.tables().outbox_load(self.clock.now()))
    }

    async fn claim_timers(&self, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error> {
        yield_now().await;
        Ok(self.tables().claim_timers(self.clock.now(), limit, push_ms))
    }

    async fn rearm_timers(&self, wakes: &[(Uuid, u64, Timestamp)]) -> Result<(), Error> {
        yield_now().await;
        self.tables().rearm_timers(wakes);
        Ok(())
    }

    async fn keep_late(&self, replies: &[LateReply]) -> Result<(), Error> {
        yield_now().await;
        if replies.iter().any(|reply| lock(&self.faults).unkept == Some(reply.command_id)) {
            return Err(Error::Bug(db::Error::Bug(injected())));
        }
        self.tables().keep_late(replies);
        Ok(())
    }

    async fn late(&self, saga_id: Uuid) -> Result<Vec<LateReply>, Error> {
        yield_now().await;
        Ok(self.tables().late(saga_id))
    }

    async fn contradictions(&self, ids: RangeInclusive<Uuid>, limit: u64) -> Result<Vec<(Uuid, u64)>, Error> {
        yield_now().await;
        Ok(self.tables().contradictions(&ids, limit))
    }

    async fn keep_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        yield_now().await;
        if lock(&self.faults).takes_a_keep() {
            return Err(Error::Unavailable(db::Error::Transient(injected())));
        }
        if lock(&self.faults).no_letters {
            return Err(Error::Bug(db::Error::Bug(injected())));
        }
        self.tables().letters.keep(letters, self.clock.now());
        Ok(())
    }

    async fn dead_letters(&self, filter: &LetterFilter, limit: u64) -> Result<Vec<LetterSummary>, Error> {
        yield_now().await;
        Ok(self.tables().letters.list(filter, tables::at_most(limit)))
    }

    async fn dead_letter(&self, id: Uuid) -> Result<Option<KeptLetter>, Error> {
        yield_now().await;
        Ok(self.tables().letters.get(id))
    }

    async fn settle_dead_letter(&self, id: Uuid, settlement: &Settlement) -> Result<bool, Error> {
        yield_now().await;
        Ok(self.tables().settle(id, settlement, self.clock.now()))
    }

    async fn dead_letters_waiting(&self) -> Result<u64, Error> {
        yield_now().await;
        Ok(self.tables().letters.waiting())
    }

    async fn answered(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, u64)>, Error> {
        yield_now().await;
        Ok(self.tables().answered(ids))
    }

    async fn history(&self, saga_id: Uuid, after_seq: u64, limit: u64) -> Result<Vec<HistoryRow>, Error> {
        yield_now().await;
        Ok(self.tables().history(saga_id, after_seq, limit))
    }

    async fn list(&self, filter: &Filter, limit: u64) -> Result<Vec<Summary>, Error> {
        yield_now().await;
        Ok(self.tables().list(filter, limit))
    }

    async fn count_open(&self) -> Result<Vec<(Status, u64)>, Error> {
        yield_now().await;
        Ok(self.tables().count_open())
    }

    async fn publish_definitions(&self, definitions: &[PublishedDefinition]) -> Result<(), Error> {
        yield_now().await;
        self.tables().publish_definitions(definitions)
    }

    async fn definitions(&self) -> Result<Vec<PublishedDefinition>, Error> {
        yield_now().await;
        Ok(self.tables().definitions())
    }

    async fn check_writable(&self) -> Result<(), Error> {
        yield_now().await;
        Ok(())
    }
}

#[async_trait]
impl Retention for MemoryStore {
    async fn ended(
        &self,
        definition: (&str, u32),
        ended_by: Timestamp,
        passed: &[Uuid],
        limit: u64,
    ) -> Result<Vec<Uuid>, Error> {
        yield_now().await;
        Ok(self.tables().ended(definition, ended_by, passed, limit))
    }

    async fn announce_ended(&self, batch: Uuid, leaving: &[Leaving]) -> Result<Vec<Uuid>, Error> {
        yield_now().await;
        Ok(self.tables().announce_ended(batch, leaving, self.clock.now()))
    }

    async fn claim_departures(&self, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error> {
        yield_now().await;
        Ok(self.tables().claim_departures(self.clock.now(), limit, push_ms))
    }

    async fn late_page(&self, saga_id: Uuid, skip: u64, limit: u64) -> Result<Vec<LateReply>, Error> {
        yield_now().await;
        Ok(self.tables().late_page(saga_id, skip, limit))
    }

    async fn delete_departed(&self, ids: &[Uuid]) -> Result<u64, Error> {
        yield_now().await;
        Ok(self.tables().delete_departed(ids))
    }

    async fn delete_start_keys(&self, created_by: Timestamp, limit: u64) -> Result<u64, Error> {
        yield_now().await;
        Ok(self.tables().delete_start_keys(created_by, limit))
    }

    async fn deleted_ended_by(&self) -> Result<Option<Timestamp>, Error> {
        yield_now().await;
        Ok(self.tables().deleted_ended_by())
    }
}
