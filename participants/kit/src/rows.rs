//! The inbox's rows in the participant's own database, read and written as slices.
//!
//! Not for deciding: that is [`crate::inbox`]. Must hold:
//! - A row is written once, with what came of its effect, in the transaction that makes the effect. Its key arbitrates: of
//!   two transactions that make one effect the second to write is rolled back whole, effects and all, begins again and
//!   then finds the row.
//! - Rows that are there are locked before any row of the owner, and rows that are new are written after all of them,
//!   both in key order, so that two transactions never wait for each other in a ring.

use std::collections::BTreeMap;
use std::fmt;

use db::{Db, Transaction, Work};
use saga_defs::{Command, Outcome, Reply, Timestamp, Verb, ids};
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, DbErr, IntoActiveModel};
use serde_json::Value;

use crate::inbox::{Fit, State};
use crate::set_sql;

/// Most rows one statement names: both databases limit the number of bound parameters.
pub(crate) const ROWS_MAX: usize = 1_000;

/// One effect. `Debug` leaves commands and outcomes out: they may hold personal data.
#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "inbox")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) key: Uuid,
    pub(crate) participant: String,
    pub(crate) saga_id: Uuid,
    pub(crate) tenant: String,
    pub(crate) state: String,
    pub(crate) digest: Option<String>,
    pub(crate) undo_requested: bool,
    pub(crate) command: Option<String>,
    pub(crate) undo_command: Option<String>,
    pub(crate) execute_outcome: Option<String>,
    pub(crate) compensate_outcome: Option<String>,
    pub(crate) provider_ref: Option<String>,
    pub(crate) calls: i32,
    pub(crate) owner: Option<Uuid>,
    pub(crate) lease_until: Option<i64>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) announcing: Option<String>,
    pub(crate) asked_again: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inbox row {} ({})", self.key, self.state)
    }
}

impl Model {
    /// The row of an effect that nothing is known of.
    fn new(participant: &str, command: &Command, now: Timestamp) -> Self {
        let digest = match command.verb {
            Verb::Execute => Some(ids::digest(&command.payload)),
            Verb::Compensate => None,
        };
        Self {
            key: command.key,
            participant: participant.to_owned(),
            saga_id: command.saga_id,
            tenant: command.tenant.clone(),
            state: State::Intent.as_str().to_owned(),
            digest,
            undo_requested: false,
            command: None,
            undo_command: None,
            execute_outcome: None,
            compensate_outcome: None,
            provider_ref: None,
            calls: 0,
            owner: None,
            lease_until: None,
            created_at: now.0,
            updated_at: now.0,
            announcing: None,
            asked_again: false,
        }
    }

    /// Whether the row holds nothing but what came of its effect: as a new row of an effect that was made and settled in one
    /// transaction does.
    fn is_settled(&self) -> bool {
        let texts = [&self.command, &self.undo_command, &self.provider_ref, &self.announcing];
        let flags = self.undo_requested || self.asked_again;
        let leased = self.owner.is_some() || self.lease_until.is_some();
        texts.iter().all(|text| text.is_none()) && !flags && !leased && self.calls == 0
    }

    /// What is known of the effect.
    pub(crate) fn state(&self) -> Result<State, DbErr> {
        State::parse(&self.state).ok_or_else(|| DbErr::Custom(format!("unknown inbox state {:?}", self.state)))
    }

    /// Whether an external call is open; none in a state that this build does not know, which is not its to continue.
    pub(crate) fn open(&self) -> Option<bool> {
        Some(match State::parse(&self.state)? {
            State::Intent | State::Undoing => true,
            State::Executed | State::Refused | State::Tombstoned | State::Undone | State::UndoRefused => false,
        })
    }

    /// Whether an external call is open that this build can continue.
    pub(crate) fn is_open(&self) -> bool {
        self.open() == Some(true)
    }

    /// Whether a command fits this row.
    fn fit(&self, participant: &str, command: &Command) -> Fit {
        if self.participant != participant {
            return Fit::OtherParticipant;
        }
        match (command.verb, &self.digest) {
            (Verb::Execute, Some(digest)) if *digest != ids::digest(&command.payload) => Fit::OtherPayload,
            (Verb::Execute | Verb::Compensate, _) => Fit::Same,
        }
    }

    /// The stored outcome of a verb.
    pub(crate) fn outcome(&self, verb: Verb) -> Result<Option<Outcome>, DbErr> {
        let text = match verb {
            Verb::Execute => &self.execute_outcome,
            Verb::Compensate => &self.compensate_outcome,
        };
        text.as_deref().map(read).transpose()
    }

    /// Moves to `state`, leased to nobody.
    pub(crate) fn close(&mut self, state: State, now: Timestamp) {
        self.state = state.as_str().to_owned();
        self.updated_at = now.0;
        self.asked_again = false;
        self.rest();
    }

    /// Nothing is left to be done: neither leased nor due.
    pub(crate) fn rest(&mut self) {
        self.owner = None;
        self.lease_until = None;
    }

    /// Whoever sweeps first takes it.
    pub(crate) fn due(&mut self, now: Timestamp) {
        self.owner = None;
        self.lease_until = Some(now.0);
    }

    /// Replies that attempts nobody has in hand are still owed.
    pub(crate) fn announcing(&self) -> Result<Vec<Reply>, DbErr> {
        Ok(self.announcing.as_deref().map(read).transpose()?.unwrap_or_default())
    }

    /// Owes exactly `replies`.
    pub(crate) fn announce(&mut self, replies: &[Reply]) -> Result<(), DbErr> {
        self.announcing = if replies.is_empty() { None } else { Some(write(&replies)?) };
        Ok(())
    }

    /// Keeps who asked but not for what: a payload may hold personal data, and is not needed any more.
    pub(crate) fn strip_command(&mut self) -> Result<(), DbErr> {
        if let Some(text) = &self.command {
            let mut command: Command = read(text)?;
            command.payload = Value::Null;
            self.command = Some(write(&command)?);
        }
        Ok(())
    }
}

/// Reads a stored JSON text.
pub(crate) fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DbErr> {
    serde_json::from_str(text).map_err(|error| DbErr::Json(error.to_string()))
}

/// Writes a JSON text to store.
pub(crate) fn write<T: serde::Serialize>(value: &T) -> Result<String, DbErr> {
    serde_json::to_string(value).map_err(|error| DbErr::Json(error.to_string()))
}

/// How often a transaction begins again because somebody else made one of its effects at the same time. Each time it
/// knows of more that were made.
const TRIES_MAX: u32 = 5;
/// What stops the second to write an effect's row.
const ONE_PER_EFFECT: &str = "inbox_pkey";

/// Runs a transaction, and again when somebody else was first to write the row of one of its effects. `look` says whether
/// it looks for what is there before it does anything, and is what `work` is told. Where it does not, whatever a first try
/// is refused for may come of what it did not see, so that the next one looks.
pub(crate) async fn transaction<T, F>(db: &Db, mut look: bool, work: F) -> Result<T, db::Error>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c Transaction, bool) -> Work<'c, T> + Clone + Send + Sync + 'static,
{
    let mut tries = 1;
    loop {
        let once = work.clone();
        match db.transaction(move |tx| once(tx, look)).await {
            Err(db::Error::Bug(_) | db::Error::Unknown) if !look => look = true,
            Err(error) if tries < TRIES_MAX && error.unique_violation() == Some(ONE_PER_EFFECT) => tries += 1,
            result => return result,
        }
    }
}

/// The rows of a transaction's effects: those that were there, locked, and those that it adds.
///
/// That a row is there already is rare: it takes a message that came twice, or a command that was asked before. Who need
/// not expect it may begin unlooked, and is stopped by the key when it was wrong.
pub(crate) struct Rows {
    participant: &'static str,
    now: Timestamp,
    rows: BTreeMap<Uuid, Kept>,
}

/// A row, and how it differs from the table.
struct Kept {
    row: Model,
    new: bool,
    changed: bool,
}

impl Rows {
    /// As if nothing were there.
    pub(crate) fn unlooked(participant: &'static str, now: Timestamp) -> Self {
        Self { participant, now, rows: BTreeMap::new() }
    }

    /// Reads and locks what is there.
    pub(crate) async fn lock(
        tx: &Transaction,
        participant: &'static str,
        now: Timestamp,
        commands: &[Command],
    ) -> Result<Self, DbErr> {
        let there = lock(tx, commands.iter().map(|command| command.key)).await?;
        let rows = there.into_iter().map(|row| (row.key, Kept { row, new: false, changed: false })).collect();
        Ok(Self { participant, now, rows })
    }

    /// What is known of a command's effect, if anything, whether the command fits that, and its row.
    pub(crate) fn of(&self, command: &Command) -> Result<(Option<(State, Fit)>, Model), DbErr> {
        match self.rows.get(&command.key) {
            Some(Kept { row, .. }) => Ok((Some((row.state()?, row.fit(self.participant, command))), row.clone())),
            None => Ok((None, Model::new(self.participant, command, self.now))),
        }
    }

    /// Keeps a row as it is to be written.
    pub(crate) fn put(&mut self, row: Model) {
        let new = self.rows.get(&row.key).is_none_or(|kept| kept.new);
        self.rows.insert(row.key, Kept { row, new, changed: true });
    }

    /// Writes what was put.
    pub(crate) async fn write(self, tx: &Transaction) -> Result<(), DbErr> {
        let (new, known): (Vec<Kept>, Vec<Kept>) =
            self.rows.into_values().filter(|kept| kept.changed).partition(|kept| kept.new);
        // New ones first: whoever wants to write a row that is there is told so at once, as long as it is only locked.
        insert(tx, self.participant, self.now, new.into_iter().map(|kept| kept.row).collect()).await?;
        save(tx, &known.into_iter().map(|kept| kept.row).collect::<Vec<_>>()).await
    }

    /// Refuses to go on when a row of these effects is there after all, though nobody looked.
    pub(crate) async fn must_be_new(tx: &Transaction, keys: Vec<Uuid>) -> Result<(), DbErr> {
        match lock(tx, keys).await?.first() {
            Some(row) => Err(DbErr::Custom(format!("{row:?} was there before anybody looked"))),
            None => Ok(()),
        }
    }
}

/// Adds rows, those of many effects in one statement, so that they are written in key order.
async fn insert(tx: &Transaction, participant: &'static str, now: Timestamp, new: Vec<Model>) -> Result<(), DbErr> {
    let backend = tx.get_database_backend();
    match (new.len(), new.iter().all(Model::is_settled)) {
        (0, _) => {}
        // A set of one costs several times as much as its row.
        (1, true) => {
            let row = new.into_iter().map(IntoActiveModel::into_active_model);
            Entity::insert_many(row).exec_without_returning(tx).await?;
        }
        (_, true) => {
            tx.execute_raw(set_sql::insert_settled(backend, participant, now, &new)).await?;
        }
        (_, false) => {
            tx.execute_raw(set_sql::insert(backend, &new)).await?;
        }
    }
    Ok(())
}

/// Reads and locks rows, in key order.
pub(crate) async fn lock(tx: &Transaction, keys: impl IntoIterator<Item = Uuid>) -> Result<Vec<Model>, DbErr> {
    let keys: Vec<Uuid> = keys.into_iter().collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    Entity::find().from_raw_sql(set_sql::lock(tx.get_database_backend(), &keys)).all(tx).await
}

/// Writes back rows that this transaction holds.
pub(crate) async fn save(tx: &Transaction, rows: &[Model]) -> Result<(), DbErr> {
    if !rows.is_empty() {
        tx.execute_raw(set_sql::save(tx.get_database_backend(), rows)).await?;
    }
    Ok(())
}
