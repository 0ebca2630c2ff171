//! Dead letters as rows.
//!
//! Must hold: a letter that waits is left as it is when its item dies again; one that was settled waits again, and
//! keeps saying who settled it. What is sent again lies in the outbox in the very transaction that says so.

use std::collections::BTreeMap;

use db::{Db, Transaction, Work};
use saga_defs::dead_letter::Encoding;
use saga_defs::{DeadLetter, Timestamp};
use sea_orm::sea_query::{Cond, Expr, ExprTrait, InsertStatement, OnConflict, Order, Query, SelectStatement};
use sea_orm::{ConnectionTrait, FromQueryResult};
use uuid::Uuid;

use super::words::{parse, word};
use super::{SqlStore, signed, unsigned};
use crate::{
    Error, KeptLetter, LetterFilter, LetterState, LetterSummary, OutboxMessage, Settled, Settlement, Settling,
};

/// Rows of one insert: a database limits the number of parameters.
const ROWS_MAX: usize = 500;
const SUMMARY: [&str; 11] = [
    "id",
    "queue",
    "reason",
    "detail",
    "at",
    "attempts",
    "bytes",
    "state",
    "settled_by",
    "settled_reason",
    "settled_at",
];

pub(super) async fn keep(store: &SqlStore, letters: &[DeadLetter]) -> Result<(), Error> {
    // In id order, so that two who keep the same letters don't wait for each other; each once, because one statement
    // must not meet a row twice.
    let letters: BTreeMap<Uuid, &DeadLetter> = letters.iter().map(|letter| (letter.id(), letter)).collect();
    let letters: Vec<(Uuid, &DeadLetter)> = letters.into_iter().collect();
    for chunk in letters.chunks(ROWS_MAX) {
        store.write(&insert(chunk, store.db.now())).await?;
    }
    Ok(())
}

fn insert(letters: &[(Uuid, &DeadLetter)], now: Timestamp) -> InsertStatement {
    let again = ["reason", "detail", "at", "attempts", "state"];
    let on_conflict = OnConflict::column("id")
        .update_columns(again)
        .action_and_where(Expr::col(("dead_letters", "state")).ne(word(LetterState::Waiting)))
        .to_owned();
    let columns = ["id", "queue", "reason", "detail", "at", "attempts", "bytes", "state", "encoding", "body"];
    let mut insert = Query::insert();
    insert.into_table("dead_letters").columns(columns).on_conflict(on_conflict);
    for (id, letter) in letters {
        insert.values_panic([
            (*id).into(),
            letter.queue.as_str().into(),
            word(letter.reason).into(),
            letter.detail.as_str().into(),
            letter.at.unwrap_or(now).0.into(),
            i32::try_from(letter.attempts).unwrap_or(i32::MAX).into(),
            letter.bytes.map(signed).into(),
            word(LetterState::Waiting).into(),
            word(letter.encoding).into(),
            letter.body.as_str().into(),
        ]);
    }
    insert
}

#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
    queue: String,
    reason: String,
    detail: String,
    at: i64,
    attempts: i32,
    bytes: Option<i64>,
    state: String,
    settled_by: Option<String>,
    settled_reason: Option<String>,
    settled_at: Option<i64>,
}

impl TryFrom<Row> for LetterSummary {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let settled = match (row.settled_by, row.settled_reason, row.settled_at) {
            (Some(by), Some(reason), Some(at)) => Some(Settled { by, reason, at: Timestamp(at) }),
            (_, _, _) => None,
        };
        Ok(Self {
            id: row.id,
            queue: row.queue,
            reason: parse(row.reason)?,
            detail: row.detail,
            at: Timestamp(row.at),
            attempts: u32::try_from(row.attempts).unwrap_or(0),
            bytes: row.bytes.map(unsigned),
            state: parse(row.state)?,
            settled,
        })
    }
}

#[derive(FromQueryResult)]
struct WholeRow {
    #[sea_orm(nested)]
    summary: Row,
    encoding: String,
    body: String,
}

pub(super) async fn list(store: &SqlStore, filter: &LetterFilter, limit: u64) -> Result<Vec<LetterSummary>, Error> {
    let LetterFilter { state, reason, queue, before } = filter;
    let older = |(at, id): (Timestamp, Uuid)| {
        let same_moment = Cond::all().add(Expr::col("at").eq(at.0)).add(Expr::col("id").lt(id));
        Cond::any().add(Expr::col("at").lt(at.0)).add(same_moment)
    };
    let mut select = of_letters();
    select
        .and_where_option(state.map(|state| Expr::col("state").eq(word(state))))
        .and_where_option(reason.map(|reason| Expr::col("reason").eq(word(reason))))
        .and_where_option(queue.as_deref().map(|queue| Expr::col("queue").eq(queue)))
        .order_by("at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(limit);
    if let Some(before) = before {
        select.cond_where(older(*before));
    }
    store.read::<Row, _>(&select).await?.into_iter().map(LetterSummary::try_from).collect()
}

fn of_letters() -> SelectStatement {
    Query::select().columns(SUMMARY).from("dead_letters").to_owned()
}

pub(super) async fn get(store: &SqlStore, id: Uuid) -> Result<Option<KeptLetter>, Error> {
    let select = of_letters().columns(["encoding", "body"]).and_where(Expr::col("id").eq(id)).to_owned();
    let Some(row) = store.read::<WholeRow, _>(&select).await?.into_iter().next() else { return Ok(None) };
    let encoding: Encoding = parse(row.encoding)?;
    Ok(Some(KeptLetter { summary: row.summary.try_into()?, encoding, body: row.body }))
}

/// Whether the letter was waiting, and is settled now.
pub(super) async fn settle(store: &SqlStore, id: Uuid, settlement: &Settlement) -> Result<bool, Error> {
    let (db, settlement) = (store.db.clone(), settlement.clone());
    Ok(store.db.transaction(move |tx| settle_in(tx, db.clone(), id, settlement.clone())).await?)
}

fn settle_in(tx: &Transaction, db: Db, id: Uuid, settlement: Settlement) -> Work<'_, bool> {
    Box::pin(async move {
        let now = db.now();
        let update = Query::update()
            .table("dead_letters")
            .value("state", word(settlement.how.state()))
            .value("settled_by", settlement.by)
            .value("settled_reason", settlement.reason)
            .value("settled_at", now.0)
            .and_where(Expr::col("id").eq(id))
            .and_where(Expr::col("state").eq(word(LetterState::Waiting)))
            .to_owned();
        let won = tx.execute(&update).await?.rows_affected() == 1;
        if let (true, Settling::Replay(Some(message))) = (won, settlement.how) {
            tx.execute(&queued(&message, now)).await?;
        }
        Ok(won)
    })
}

/// Due at once: nobody else is about to publish it.
fn queued(message: &OutboxMessage, now: Timestamp) -> InsertStatement {
    Query::insert()
        .into_table("outbox")
        .columns(["id", "participant", "body", "due_at", "attempts", "created_at"])
        .values_panic([
            message.id.into(),
            message.participant.as_str().into(),
            (*message.body).into(),
            now.0.into(),
            0.into(),
            now.0.into(),
        ])
        .to_owned()
}

#[derive(FromQueryResult)]
struct CountRow {
    rows: i64,
}

pub(super) async fn waiting(store: &SqlStore) -> Result<u64, Error> {
    let select = Query::select()
        .expr_as(Expr::col("id").count(), "rows")
        .from("dead_letters")
        .and_where(Expr::col("state").eq(word(LetterState::Waiting)))
        .to_owned();
    Ok(store.read::<CountRow, _>(&select).await?.into_iter().map(|row| unsigned(row.rows)).sum())
}
