//! The outbox: claimed, pushed ahead, confirmed.
//!
//! Not for writing messages: those are born in the commit. Must hold: a claim is a conditional update, so that two
//! instances never hold one row at the same time; what claims give is work saved, never safety.

use saga_defs::Timestamp;
use sea_orm::FromQueryResult;
use sea_orm::sea_query::{CaseStatement, Expr, ExprTrait, LockBehavior, LockType, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{SqlStore, failed, rows, set_sql, unsigned};
use crate::messages::{BACKOFF_DOUBLINGS_MAX, backoff_ms};
use crate::{Error, OutboxLoad, OutboxMessage};

#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
    participant: String,
    body: String,
    attempts: i32,
}

impl From<Row> for OutboxMessage {
    fn from(row: Row) -> Self {
        let attempts = u32::try_from(row.attempts).unwrap_or(0);
        Self { id: row.id, participant: row.participant, body: row.body.into(), attempts }
    }
}

pub(super) async fn claim(store: &SqlStore, limit: u64, push_ms: u64) -> Result<Vec<OutboxMessage>, Error> {
    let now = store.db.now();
    let mut update = Query::update()
        .table("outbox")
        .value("due_at", pushed(now, push_ms))
        .value("attempts", Expr::col("attempts").add(1))
        .and_where(Expr::col("id").in_subquery(set_sql::all_of("due")))
        .to_owned();
    update.returning(Query::returning().columns(["id", "participant", "body", "attempts"]));
    let update = update.with(set_sql::named("due", due(now, limit)));
    let mut claimed: Vec<Row> = rows(store.db.writer(), &update).await.map_err(failed)?;
    // Ids sort by birth.
    claimed.sort_unstable_by_key(|row| row.id);
    Ok(claimed.into_iter().map(OutboxMessage::from).collect())
}

fn due(now: Timestamp, limit: u64) -> SelectStatement {
    Query::select()
        .column("id")
        .from("outbox")
        .and_where(Expr::col("due_at").lte(now.0))
        .order_by("due_at", Order::Asc)
        .order_by("id", Order::Asc)
        .limit(limit)
        // Never waits for another instance that claims or confirms at this moment.
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned()
}

/// The instant a row is due again; the further ahead the more often it was tried.
fn pushed(now: Timestamp, push_ms: u64) -> CaseStatement {
    let at = |attempts| Expr::val(now.plus_ms(backoff_ms(push_ms, attempts)).0);
    (0..BACKOFF_DOUBLINGS_MAX)
        .fold(CaseStatement::new(), |case, attempts| case.case(Expr::col("attempts").eq(attempts), at(attempts)))
        .finally(at(BACKOFF_DOUBLINGS_MAX))
}

pub(super) async fn release(store: &SqlStore) -> Result<(), Error> {
    let update = Query::update().table("outbox").value("due_at", store.db.now().0).value("attempts", 0).to_owned();
    store.write(&update).await
}

pub(super) async fn extend(store: &SqlStore, ids: &[Uuid], push_ms: u64) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let due_at = store.db.now().plus_ms(push_ms).0;
    let update = Query::update()
        .table("outbox")
        .value("due_at", due_at)
        // A claim that came back often has pushed it further.
        .and_where(Expr::col("due_at").lt(due_at))
        .and_where(Expr::col("id").in_subquery(set_sql::locked(store.db.backend(), "outbox", ids)))
        .to_owned();
    store.write(&update).await
}

pub(super) async fn confirm(store: &SqlStore, ids: &[Uuid]) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let locked = set_sql::locked(store.db.backend(), "outbox", ids);
    let delete = Query::delete().from_table("outbox").and_where(Expr::col("id").in_subquery(locked)).to_owned();
    store.write(&delete).await
}

#[derive(FromQueryResult)]
struct LoadRow {
    rows: i64,
    oldest: Option<i64>,
}

pub(super) async fn load(store: &SqlStore) -> Result<OutboxLoad, Error> {
    let select = Query::select()
        .expr_as(Expr::col("id").count(), "rows")
        .expr_as(Expr::col("created_at").min(), "oldest")
        .from("outbox")
        .to_owned();
    let load = store.read::<LoadRow, _>(&select).await?.into_iter().next();
    Ok(load.map_or_else(OutboxLoad::default, |row| OutboxLoad {
        rows: unsigned(row.rows),
        oldest_ms: row.oldest.map_or(0, |oldest| Timestamp(oldest).ms_until(store.db.now())),
    }))
}
