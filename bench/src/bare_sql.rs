//! The rows of the bare job: one statement for a transition of many sagas, two for the work of a participant on many.
//!
//! For PostgreSQL alone. Must hold: a row is as long as the engine's own, and has a key but no second index; a key of the inbox lies anywhere in
//! its index, as the engine's derived ones do.

use db::sets;
use db::{Db, Transaction};
use sea_orm::prelude::Uuid;
use sea_orm::sqlx::Arguments as _;
use sea_orm::sqlx::postgres::PgArguments;
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, Statement};

use crate::effects_sql;

/// Bytes of a text of the job, about: a state half-way, the events of a transition, an answer with its digest.
pub(crate) const STATE: usize = 500;
pub(crate) const EVENTS: usize = 170;
pub(crate) const OUTCOME: usize = 100;

const ENGINE: [&str; 2] = [
    "create table if not exists bare_sagas (id uuid primary key, version integer not null, state text not null)
     with (fillfactor = 30)",
    "create table if not exists bare_history (saga_id uuid, seq integer, events text not null, primary key (saga_id, seq))",
];
const PARTICIPANT: &str =
    "create table if not exists bare_inbox (key uuid primary key, saga_id uuid not null, outcome text not null)";

const MOVE: &str = "with n as (select * from unnest($1::uuid[], $2::integer[]) as n (id, version)),
    made as (insert into bare_sagas select id, version, $3 from n where version = 1),
    moved as (update bare_sagas s set version = n.version, state = $3 from n where s.id = n.id and n.version > 1)
    insert into bare_history select id, version, $4 from n";

const ANSWER: &str =
    "insert into bare_inbox select n.key, n.saga_id, $3 from unnest($1::uuid[], $2::uuid[]) as n (key, saga_id)";

/// What a participant did for a saga.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) saga_id: Uuid,
    pub(crate) undo: bool,
    /// Whether there is an effect.
    pub(crate) made: bool,
}

pub(crate) async fn create_for_engine(db: &Db) -> Result<(), DbErr> {
    for table in ENGINE {
        db.writer().execute_unprepared(table).await?;
    }
    Ok(())
}

pub(crate) async fn create_for_participant(db: &Db) -> Result<(), DbErr> {
    db.writer().execute_unprepared(PARTICIPANT).await.map(|_| ())
}

/// Writes that sagas are at these versions; those at version 1 are new.
pub(crate) async fn move_to(db: &Db, versions: &[(Uuid, i32)]) -> Result<(), db::Error> {
    let mut arguments = PgArguments::default();
    let (ids, numbers): (Vec<Uuid>, Vec<i32>) = versions.iter().copied().unzip();
    let bound = arguments.add(ids).and_then(|()| arguments.add(numbers));
    let bound = bound.and_then(|()| arguments.add("s".repeat(STATE))).and_then(|()| arguments.add("e".repeat(EVENTS)));
    db.postgres_statement(MOVE, bound.map(|()| arguments)).await.map(|_| ())
}

/// Writes what a participant did, and that it did.
pub(crate) async fn answer(tx: &Transaction, step: &str, all: &[Done]) -> Result<(), DbErr> {
    for undo in [false, true] {
        let made: Vec<Uuid> =
            all.iter().filter(|done| done.made && done.undo == undo).map(|done| done.saga_id).collect();
        effects_sql::insert(tx, &made, step, undo).await?;
    }
    let (keys, ids) = (sets::uuids(all.iter().map(key)), sets::uuids(all.iter().map(|done| done.saga_id)));
    let values = [keys, ids, "o".repeat(OUTCOME).into()];
    tx.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, ANSWER, values)).await.map(|_| ())
}

/// The random half of the id comes first.
fn key(done: &Done) -> Uuid {
    Uuid::from_u128(done.saga_id.as_u128().rotate_left(64) ^ u128::from(done.undo))
}
