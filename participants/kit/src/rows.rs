//! The inbox's rows in the participant's own database: claimed, read and written as slices.
//!
//! Not for deciding: that is [`crate::inbox`]. Must hold: rows are claimed and locked in key order, so that two
//! transactions never wait for each other in a ring; rows are read in a later statement than they are claimed,
//! because parts of one statement share a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use saga_defs::{Command, Outcome, Reply, Timestamp, Verb};
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr};
use serde_json::Value;

use crate::inbox::{self, Fit, State};
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
    /// The row that a first command for its key claims.
    fn claim(participant: &str, command: &Command, now: Timestamp) -> Self {
        let digest = match command.verb {
            Verb::Execute => Some(inbox::digest(&command.payload)),
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
    pub(crate) fn fit(&self, participant: &str, command: &Command) -> Fit {
        if self.participant != participant {
            return Fit::OtherParticipant;
        }
        match (command.verb, &self.digest) {
            (Verb::Execute, Some(digest)) if *digest != inbox::digest(&command.payload) => Fit::OtherPayload,
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

/// A row as a claim found it.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) row: Model,
    /// Whether this claim made the row: nothing was known of the effect.
    pub(crate) fresh: bool,
}

impl Claimed {
    /// What was known of the effect before the claim.
    pub(crate) fn state(&self) -> Result<Option<State>, DbErr> {
        if self.fresh { Ok(None) } else { self.row.state().map(Some) }
    }
}

/// Claims the rows of `commands`, which have different keys, and locks them until the transaction ends.
pub(crate) async fn claim(
    tx: &DatabaseTransaction,
    participant: &str,
    now: Timestamp,
    commands: &[&Command],
) -> Result<BTreeMap<Uuid, Claimed>, DbErr> {
    let row = |command: &&Command| (command.key, Model::claim(participant, command, now));
    let wanted: BTreeMap<Uuid, Model> = commands.iter().map(row).collect();
    let (fresh, known) = match tx.get_database_backend() {
        DbBackend::Postgres => insert_then_lock(tx, wanted).await?,
        _ => read_then_insert(tx, wanted).await?,
    };
    let claimed = |fresh| move |row: Model| (row.key, Claimed { fresh, row });
    Ok(fresh.into_iter().map(claimed(true)).chain(known.into_iter().map(claimed(false))).collect())
}

/// Rows that a claim made, and rows that it found.
type FreshAndKnown = (Vec<Model>, Vec<Model>);

/// Whoever wants a key that another transaction is inserting waits for it here.
async fn insert_then_lock(tx: &DatabaseTransaction, wanted: BTreeMap<Uuid, Model>) -> Result<FreshAndKnown, DbErr> {
    let backend = tx.get_database_backend();
    let wanted: Vec<Model> = wanted.into_values().collect();
    let inserted = tx.query_all_raw(set_sql::claim(backend, &wanted)).await?;
    let inserted: BTreeSet<Uuid> = inserted.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>()?;
    let (fresh, known): (Vec<Model>, Vec<Model>) = wanted.into_iter().partition(|row| inserted.contains(&row.key));
    let known = lock(tx, known.into_iter().map(|row| row.key)).await?;
    Ok((fresh, known))
}

/// There is one writer: nobody inserts in between.
async fn read_then_insert(tx: &DatabaseTransaction, mut wanted: BTreeMap<Uuid, Model>) -> Result<FreshAndKnown, DbErr> {
    let known = lock(tx, wanted.keys().copied()).await?;
    for row in &known {
        wanted.remove(&row.key);
    }
    let fresh: Vec<Model> = wanted.into_values().collect();
    if !fresh.is_empty() {
        tx.execute_raw(set_sql::claim(tx.get_database_backend(), &fresh)).await?;
    }
    Ok((fresh, known))
}

/// Reads and locks rows, in key order.
pub(crate) async fn lock(tx: &DatabaseTransaction, keys: impl IntoIterator<Item = Uuid>) -> Result<Vec<Model>, DbErr> {
    let keys: Vec<Uuid> = keys.into_iter().collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    Entity::find().from_raw_sql(set_sql::lock(tx.get_database_backend(), &keys)).all(tx).await
}

/// Writes back rows that this transaction holds.
pub(crate) async fn save(tx: &DatabaseTransaction, rows: &[Model]) -> Result<(), DbErr> {
    if !rows.is_empty() {
        tx.execute_raw(set_sql::save(tx.get_database_backend(), rows)).await?;
    }
    Ok(())
}

/// Gives back claims that nothing came of.
pub(crate) async fn forget(tx: &DatabaseTransaction, keys: &[Uuid]) -> Result<(), DbErr> {
    if !keys.is_empty() {
        tx.execute_raw(set_sql::forget(tx.get_database_backend(), keys)).await?;
    }
    Ok(())
}
