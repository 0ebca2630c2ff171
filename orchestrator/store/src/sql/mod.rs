//! The store on a SQL database.
//!
//! What fits both dialects is built with sea-query; what is set-based, and so must differ, lies in files named
//! `*_sql.rs`. Must hold: only this module knows the engine's tables; statements have constant text whatever the
//! number of items, so that each is prepared once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use db::Db;
use saga_core::Status;
use saga_defs::{DeadLetter, Timestamp};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, StatementBuilder};
use uuid::Uuid;

use dialect::Dialect;

use crate::{
    Batch, Committed, Error, Filter, HistoryRow, KeptLetter, LateReply, Leaving, LetterFilter, LetterSummary, Loaded,
    OutboxLoad, OutboxMessage, PublishedDefinition, Retention, Settlement, StartKey, Store, Summary,
};

/// Sets as one bound parameter.
mod set_sql;

/// Words that enums are stored as.
mod words;

/// The rows that a commit writes.
mod commit_rows;

/// The commit, but for how each dialect writes it.
mod commit;

/// The two dialects, and what is chosen between them.
mod dialect;

mod sqlite;

mod postgres;

mod load;

mod outbox;

mod timers_sql;

mod late;

mod dead_letters;

mod retention;

mod query;

mod definitions;

mod spoil;

/// Tables `sagas`, `history`, … of one database. The caller runs their migrations first.
#[derive(Clone)]
pub struct SqlStore {
    db: Db,
    dialect: Dialect,
    writing: Writing,
    trust: Arc<commit::Trust>,
}

/// How commits are written.
#[derive(Clone, Copy, Debug)]
struct Writing {
    /// Of sagas.
    format: u16,
    /// Whether what there is a shorter text for is written like any other batch, too.
    longhand: bool,
}

impl SqlStore {
    /// The store in `db`.
    #[must_use]
    pub fn new(db: Db) -> Self {
        let writing = Writing { format: saga_core::FORMAT, longhand: false };
        Self { dialect: Dialect::of(db.backend()), db, writing, trust: Arc::default() }
    }

    /// The store as another build has it, for tests of several builds at work: sagas are written, read and claimed in
    /// this format. History rows say their format themselves.
    #[must_use]
    pub fn with_format(self, format: u16) -> Self {
        Self { writing: Writing { format, ..self.writing }, ..self }
    }

    /// With every commit written by the text that fits all, even where there is a shorter one, for putting both to the same
    /// tests.
    #[must_use]
    pub fn without_shortcuts(self) -> Self {
        Self { writing: Writing { longhand: true, ..self.writing }, ..self }
    }

    fn reader(&self) -> &db::Limited {
        self.db.reader()
    }

    async fn read<T: FromQueryResult, S: StatementBuilder>(&self, select: &S) -> Result<Vec<T>, Error> {
        rows(self.reader(), select).await.map_err(failed)
    }

    async fn write<S: StatementBuilder>(&self, statement: &S) -> Result<(), Error> {
        self.db.writer().execute(statement).await.map(|_| ()).map_err(failed)
    }
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SqlStore")
    }
}

/// Runs a statement and reads the rows it answers with.
async fn rows<C, T, S>(connection: &C, statement: &S) -> Result<Vec<T>, DbErr>
where
    C: ConnectionTrait,
    T: FromQueryResult,
    S: StatementBuilder,
{
    let rows = connection.query_all(statement).await?;
    rows.iter().map(|row| T::from_query_result(row, "")).collect()
}

fn failed(error: DbErr) -> Error {
    db::Error::from(error).into()
}

/// A number that is never negative, as the database keeps it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that was written by [`signed`].
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[async_trait]
impl Store for SqlStore {
    async fn load(&self, ids: &[Uuid]) -> Result<Loaded, Error> {
        let now = self.db.now();
        let sagas = if ids.is_empty() { BTreeMap::new() } else { load::sagas(self, ids).await? };
        Ok(Loaded { now, sagas })
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, Error> {
        commit::commit(&self.db, &self.dialect, &self.trust, &batch, self.writing).await
    }

    async fn started(&self, key: &StartKey) -> Result<Option<(Uuid, String)>, Error> {
        query::started(self, key).await
    }

    async fn committed(&self, commit_id: Uuid, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        self.dialect.decide_fate(&self.db, commit_id).await?;
        query::committed(self, commit_id, ids).await
    }

    async fn claim_outbox(&self, limit: u64, push_ms: u64) -> Result<Vec<OutboxMessage>, Error> {
        outbox::claim(self, limit, push_ms).await
    }

    async fn release_outbox(&self) -> Result<(), Error> {
        outbox::release(self).await
    }

    async fn extend_outbox(&self, ids: &[Uuid], push_ms: u64) -> Result<(), Error> {
        outbox::extend(self, ids, push_ms).await
    }

    async fn confirm_outbox(&self, ids: &[Uuid]) -> Result<(), Error> {
        outbox::confirm(self, ids).await
    }

    async fn outbox_load(&self) -> Result<OutboxLoad, Error> {
        outbox::load(self).await
    }

    async fn claim_timers(&self, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error> {
        timers_sql::claim(self, limit, push_ms).await
    }

    async fn rearm_timers(&self, wakes: &[(Uuid, u64, Timestamp)]) -> Result<(), Error> {
        if wakes.is_empty() { Ok(()) } else { timers_sql::rearm(self, wakes).await }
    }

    async fn keep_late(&self, replies: &[LateReply]) -> Result<(), Error> {
        late::keep(self, replies).await
    }

    async fn late(&self, saga_id: Uuid) -> Result<Vec<LateReply>, Error> {
        late::of_saga(self, saga_id).await
    }

    async fn contradictions(&self, ids: RangeInclusive<Uuid>, limit: u64) -> Result<Vec<(Uuid, u64)>, Error> {
        late::contradictions(self, ids, limit).await
    }

    async fn keep_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        dead_letters::keep(self, letters).await
    }

    async fn dead_letters(&self, filter: &LetterFilter, limit: u64) -> Result<Vec<LetterSummary>, Error> {
        dead_letters::list(self, filter, limit).await
    }

    async fn dead_letter(&self, id: Uuid) -> Result<Option<KeptLetter>, Error> {
        dead_letters::get(self, id).await
    }

    async fn settle_dead_letter(&self, id: Uuid, settlement: &Settlement) -> Result<bool, Error> {
        dead_letters::settle(self, id, settlement).await
    }

    async fn dead_letters_waiting(&self) -> Result<u64, Error> {
        dead_letters::waiting(self).await
    }

    async fn answered(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, u64)>, Error> {
        if ids.is_empty() { Ok(Vec::new()) } else { query::answered(self, ids).await }
    }

    async fn history(&self, saga_id: Uuid, after_seq: u64, limit: u64) -> Result<Vec<HistoryRow>, Error> {
        query::history(self, saga_id, after_seq, limit).await
    }

    async fn list(&self, filter: &Filter, limit: u64) -> Result<Vec<Summary>, Error> {
        query::list(self, filter, limit).await
    }

    async fn count_open(&self) -> Result<Vec<(Status, u64)>, Error> {
        query::count_open(self).await
    }

    async fn publish_definitions(&self, definitions: &[PublishedDefinition]) -> Result<(), Error> {
        definitions::publish(self, definitions).await
    }

    async fn definitions(&self) -> Result<Vec<PublishedDefinition>, Error> {
        definitions::all(self).await
    }

    async fn check_writable(&self) -> Result<(), Error> {
        Ok(self.db.check_writable().await?)
    }
}

#[async_trait]
impl Retention for SqlStore {
    async fn ended(
        &self,
        definition: (&str, u32),
        ended_by: Timestamp,
        passed: &[Uuid],
        limit: u64,
    ) -> Result<Vec<Uuid>, Error> {
        retention::ended(self, definition, ended_by, passed, limit).await
    }

    async fn announce_ended(&self, batch: Uuid, leaving: &[Leaving]) -> Result<Vec<Uuid>, Error> {
        retention::announce(self, batch, leaving).await
    }

    async fn claim_departures(&self, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error> {
        retention::claim(self, limit, push_ms).await
    }

    async fn late_page(&self, saga_id: Uuid, skip: u64, limit: u64) -> Result<Vec<LateReply>, Error> {
        late::page(self, saga_id, skip, limit).await
    }

    async fn delete_departed(&self, ids: &[Uuid]) -> Result<u64, Error> {
        retention::delete(self, ids).await
    }

    async fn delete_start_keys(&self, created_by: Timestamp, limit: u64) -> Result<u64, Error> {
        retention::delete_keys(self, created_by, limit).await
    }

    async fn deleted_ended_by(&self) -> Result<Option<Timestamp>, Error> {
        retention::deleted_ended_by(self).await
    }
}
