//! The inbox's rows in the participant's own database: claimed, read and written as slices.
//!
//! Not for deciding: that is [`crate::inbox`]. Must hold: rows are claimed and locked in key order, so that two
//! transactions never wait for each other in a ring; rows are read in a later statement than they are claimed,
//! because parts of one statement share a snapshot.

use std::collections::BTreeMap;
use std::fmt;

use saga_defs::{Command, Outcome, Reply, Timestamp, Verb};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{OnConflict, Query};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, IntoActiveModel, Iterable, QueryOrder, QuerySelect, QueryTrait,
};
use serde_json::Value;

use crate::inbox::{self, Fit, State};

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
    let by_key: BTreeMap<Uuid, &Command> = commands.iter().map(|command| (command.key, *command)).collect();
    let in_order: Vec<&Command> = by_key.into_values().collect();
    let mut claimed = BTreeMap::new();
    for chunk in in_order.chunks(ROWS_MAX) {
        let fresh = insert(tx, participant, now, chunk).await?;
        let rows = lock(tx, chunk.iter().map(|command| command.key)).await?;
        claimed.extend(rows.into_iter().map(|row| (row.key, Claimed { fresh: fresh.contains(&row.key), row })));
    }
    Ok(claimed)
}

/// Inserts what is not there yet; the keys that were not.
async fn insert(
    tx: &DatabaseTransaction,
    participant: &str,
    now: Timestamp,
    commands: &[&Command],
) -> Result<Vec<Uuid>, DbErr> {
    let rows = commands.iter().map(|command| Model::claim(participant, command, now).into_active_model());
    let mut insert = Entity::insert_many::<ActiveModel, _>(rows)
        .on_conflict(OnConflict::column(Column::Key).do_nothing().to_owned())
        .into_query();
    insert.returning(Query::returning().column(Column::Key));
    tx.query_all(&insert).await?.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Reads and locks rows, in key order.
pub(crate) async fn lock(tx: &DatabaseTransaction, keys: impl IntoIterator<Item = Uuid>) -> Result<Vec<Model>, DbErr> {
    Entity::find().filter(Column::Key.is_in(keys)).order_by_asc(Column::Key).lock_exclusive().all(tx).await
}

/// Writes back rows that this transaction holds.
pub(crate) async fn save(tx: &DatabaseTransaction, rows: &[Model]) -> Result<(), DbErr> {
    let changeable = Column::iter().filter(|column| !matches!(column, Column::Key | Column::CreatedAt));
    let update = OnConflict::column(Column::Key).update_columns(changeable).to_owned();
    for chunk in rows.chunks(ROWS_MAX) {
        let insert = Entity::insert_many::<ActiveModel, _>(chunk.iter().cloned().map(Model::into_active_model))
            .on_conflict(update.clone())
            .into_query();
        tx.execute(&insert).await?;
    }
    Ok(())
}

/// Gives back claims that nothing came of.
pub(crate) async fn forget(tx: &DatabaseTransaction, keys: &[Uuid]) -> Result<(), DbErr> {
    for chunk in keys.chunks(ROWS_MAX) {
        Entity::delete_many().filter(Column::Key.is_in(chunk.iter().copied())).exec(tx).await?;
    }
    Ok(())
}
