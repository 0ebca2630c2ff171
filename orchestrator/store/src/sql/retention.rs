//! Ended sagas on their way out, as rows.
//!
//! Must hold: a saga's rows go in one transaction, and only if its row in `departures` is there and no outbox row of its
//! batch is; rows of `departures` are locked in the order of their ids; every search starts at an index.

use db::{Db, Transaction, Work};
use saga_defs::Timestamp;
use sea_orm::sea_query::{
    CommonTableExpression, Expr, ExprTrait, InsertStatement, LockBehavior, LockType, OnConflict, Order, Query,
    SelectStatement, WithClause,
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult};
use uuid::Uuid;

use super::words::word;
use super::{SqlStore, failed, rows, set_sql};
use crate::retention::Leaving;
use crate::{Error, LateReason, OutboxMessage, messages};

/// The row of `retention_marks` that [`crate::Retention::deleted_ended_by`] reads.
const DELETED_ENDED_BY: &str = "deleted_ended_by";
/// Rows of one insert: a database limits the number of parameters.
const ROWS_MAX: usize = 500;

#[derive(FromQueryResult)]
struct Id {
    id: Uuid,
}

#[derive(FromQueryResult)]
struct SagaId {
    saga_id: Uuid,
}

#[derive(FromQueryResult)]
struct Instant {
    at: Option<i64>,
}

pub(super) async fn ended(
    store: &SqlStore,
    (definition, version): (&str, u32),
    ended_by: Timestamp,
    passed: &[Uuid],
    limit: u64,
) -> Result<Vec<Uuid>, Error> {
    let leaving = of_saga("departures", ("sagas", "id"));
    // Mostly there are none, and then nothing is asked of each row.
    let passed = (!passed.is_empty()).then(|| set_sql::is_one_of(store.db.backend(), "id", passed).not());
    let select = Query::select()
        .column("id")
        .from("sagas")
        .and_where(Expr::col("definition").eq(definition))
        .and_where(Expr::col("definition_version").eq(version))
        .and_where(Expr::col("ended_at").is_not_null())
        .and_where(Expr::col("ended_at").lte(ended_by.0))
        .and_where(Expr::col("format").lte(store.writing.format))
        .and_where(Expr::exists(leaving).not())
        .and_where(Expr::exists(contradictions(("sagas", "id"))).not())
        .and_where_option(passed)
        .order_by("ended_at", Order::Asc)
        .limit(limit)
        .to_owned();
    Ok(store.read::<Id, _>(&select).await?.into_iter().map(|row| row.id).collect())
}

/// Rows of a table about the saga that a column of the query around it names.
fn of_saga(table: &'static str, saga: (&'static str, &'static str)) -> SelectStatement {
    Query::select().expr(Expr::val(1)).from(table).and_where(Expr::col((table, "saga_id")).equals(saga)).to_owned()
}

/// What contradicts that saga. It may have come when the saga was on its way out already.
fn contradictions(saga: (&'static str, &'static str)) -> SelectStatement {
    let contradicts = Expr::col(("late_replies", "reason")).eq(word(LateReason::Contradiction));
    of_saga("late_replies", saga).and_where(contradicts).to_owned()
}

pub(super) async fn announce(store: &SqlStore, batch: Uuid, leaving: &[Leaving]) -> Result<Vec<Uuid>, Error> {
    if leaving.is_empty() {
        return Ok(Vec::new());
    }
    let (db, leaving) = (store.db.clone(), leaving.to_vec());
    Ok(store.db.transaction(move |tx| announce_in(tx, db.clone(), batch, leaving.clone())).await?)
}

fn announce_in(tx: &Transaction, db: Db, batch: Uuid, mut leaving: Vec<Leaving>) -> Work<'_, Vec<Uuid>> {
    Box::pin(async move {
        let now = db.now();
        let ids: Vec<Uuid> = leaving.iter().map(|leaving| leaving.saga_id).collect();
        let marked: Vec<SagaId> = rows(tx, &mark(db.backend(), batch, now, &ids)).await?;
        let marked: Vec<Uuid> = marked.into_iter().map(|row| row.saga_id).collect();
        leaving.retain(|leaving| marked.contains(&leaving.saga_id));
        let messages = messages::announcements(batch, now, &leaving);
        for chunk in messages.chunks(ROWS_MAX) {
            tx.execute(&queued(chunk, now)).await?;
            tx.execute(&noted(chunk, batch)).await?;
        }
        Ok(marked)
    })
}

/// Marks ended sagas, in the order of their ids; those that are marked already are not answered with.
fn mark(backend: DbBackend, batch: Uuid, now: Timestamp, ids: &[Uuid]) -> InsertStatement {
    let ended = Query::select()
        .column("id")
        .expr(Expr::val(batch))
        .expr(Expr::val(now.0))
        .from("sagas")
        .and_where(set_sql::is_one_of(backend, "id", ids))
        .and_where(Expr::col("ended_at").is_not_null())
        .order_by("id", Order::Asc)
        .to_owned();
    let mut insert = Query::insert();
    insert
        .into_table("departures")
        .columns(["saga_id", "batch", "due_at"])
        .select_from(ended)
        .expect("as many values as columns")
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .returning(Query::returning().column("saga_id"));
    insert
}

/// Due at once: nobody else is about to publish them.
fn queued(messages: &[OutboxMessage], now: Timestamp) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table("outbox").columns(["id", "participant", "body", "due_at", "attempts", "created_at"]);
    for message in messages {
        insert.values_panic([
            message.id.into(),
            message.participant.as_str().into(),
            (*message.body).into(),
            now.0.into(),
            0.into(),
            now.0.into(),
        ]);
    }
    insert
}

fn noted(messages: &[OutboxMessage], batch: Uuid) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table("announcements").columns(["message_id", "batch"]);
    for message in messages {
        insert.values_panic([message.id.into(), batch.into()]);
    }
    insert
}

/// The outbox rows that still tell of the departure of the query around it.
fn unconfirmed() -> SelectStatement {
    Query::select()
        .expr(Expr::val(1))
        .from("announcements")
        .inner_join("outbox", Expr::col(("outbox", "id")).equals(("announcements", "message_id")))
        .and_where(Expr::col(("announcements", "batch")).equals(("departures", "batch")))
        .to_owned()
}

pub(super) async fn claim(store: &SqlStore, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error> {
    let now = store.db.now();
    let due = Query::select()
        .expr_as(Expr::col("saga_id"), "id")
        .from("departures")
        .and_where(Expr::col("due_at").lte(now.0))
        .and_where(Expr::exists(unconfirmed()).not())
        .and_where(Expr::exists(contradictions(("departures", "saga_id"))).not())
        .order_by("due_at", Order::Asc)
        .limit(limit)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let mut update = Query::update()
        .table("departures")
        .value("due_at", now.plus_ms(push_ms).0)
        .and_where(Expr::col("saga_id").in_subquery(set_sql::all_of("due")))
        .to_owned();
    update.returning(Query::returning().column("saga_id"));
    let update = update.with(set_sql::named("due", due));
    let claimed: Vec<SagaId> = rows(store.db.writer(), &update).await.map_err(failed)?;
    Ok(claimed.into_iter().map(|row| row.saga_id).collect())
}

pub(super) async fn delete(store: &SqlStore, ids: &[Uuid]) -> Result<u64, Error> {
    if ids.is_empty() {
        return Ok(0);
    }
    let (db, ids) = (store.db.clone(), ids.to_vec());
    Ok(store.db.transaction(move |tx| delete_in(tx, db.backend(), ids.clone())).await?)
}

#[derive(FromQueryResult)]
struct Departed {
    saga_id: Uuid,
    batch: Uuid,
}

fn delete_in(tx: &Transaction, backend: DbBackend, ids: Vec<Uuid>) -> Work<'_, u64> {
    Box::pin(async move {
        let departed = Query::select()
            .columns(["saga_id", "batch"])
            .from("departures")
            .and_where(set_sql::is_one_of(backend, "saga_id", &ids))
            .and_where(Expr::exists(unconfirmed()).not())
            .and_where(Expr::exists(contradictions(("departures", "saga_id"))).not())
            .order_by("saga_id", Order::Asc)
            .lock(LockType::Update)
            .to_owned();
        let departed: Vec<Departed> = rows(tx, &departed).await?;
        let ids: Vec<Uuid> = departed.iter().map(|row| row.saga_id).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        let latest = Query::select()
            .expr_as(Expr::col("ended_at").max(), "at")
            .from("sagas")
            .and_where(set_sql::is_one_of(backend, "id", &ids))
            .to_owned();
        let latest: Vec<Instant> = rows(tx, &latest).await?;
        if let Some(at) = latest.into_iter().find_map(|row| row.at) {
            raise_mark(tx, at).await?;
        }
        // What contradicts one of them this very moment outlives it.
        let late = Query::delete()
            .from_table("late_replies")
            .and_where(set_sql::is_one_of(backend, "saga_id", &ids))
            .and_where(Expr::col("reason").ne(word(LateReason::Contradiction)))
            .to_owned();
        tx.execute(&late).await?;
        let mut deleted = 0;
        for (table, column) in
            [("saga_inputs", "saga_id"), ("history", "saga_id"), ("departures", "saga_id"), ("sagas", "id")]
        {
            let of_these = set_sql::is_one_of(backend, column, &ids);
            let delete = Query::delete().from_table(table).and_where(of_these).to_owned();
            deleted = tx.execute(&delete).await?.rows_affected();
        }
        tx.execute(&over(backend, &departed)).await?;
        Ok(deleted)
    })
}

/// Forgets the messages of batches that have departed whole.
fn over(backend: DbBackend, departed: &[Departed]) -> sea_orm::sea_query::DeleteStatement {
    let mut batches: Vec<Uuid> = departed.iter().map(|row| row.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    let left = Query::select()
        .expr(Expr::val(1))
        .from("departures")
        .and_where(Expr::col(("departures", "batch")).equals(("announcements", "batch")))
        .to_owned();
    Query::delete()
        .from_table("announcements")
        .and_where(set_sql::is_one_of(backend, "batch", &batches))
        .and_where(Expr::exists(left).not())
        .to_owned()
}

async fn raise_mark(tx: &Transaction, at: i64) -> Result<(), DbErr> {
    let insert = Query::insert()
        .into_table("retention_marks")
        .columns(["name", "at"])
        .values_panic([DELETED_ENDED_BY.into(), at.into()])
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .to_owned();
    tx.execute(&insert).await?;
    let update = Query::update()
        .table("retention_marks")
        .value("at", at)
        .and_where(Expr::col("name").eq(DELETED_ENDED_BY))
        .and_where(Expr::col("at").lt(at))
        .to_owned();
    tx.execute(&update).await.map(|_| ())
}

pub(super) async fn deleted_ended_by(store: &SqlStore) -> Result<Option<Timestamp>, Error> {
    let select = Query::select()
        .column("at")
        .from("retention_marks")
        .and_where(Expr::col("name").eq(DELETED_ENDED_BY))
        .to_owned();
    Ok(store.read::<Instant, _>(&select).await?.into_iter().find_map(|row| row.at).map(Timestamp))
}

pub(super) async fn delete_keys(store: &SqlStore, created_by: Timestamp, limit: u64) -> Result<u64, Error> {
    let columns = ["tenant", "principal", "key"];
    let saga = Query::select()
        .expr(Expr::val(1))
        .from("sagas")
        .and_where(Expr::col(("sagas", "id")).equals(("start_keys", "saga_id")))
        .to_owned();
    let old = Query::select()
        .columns(columns)
        .from("start_keys")
        .and_where(Expr::col("created_at").lte(created_by.0))
        // Not `exists`, which PostgreSQL makes a join of all sagas: this asks for one at a time, up to the limit.
        .and_where(Expr::SubQuery(None, Box::new(saga.into())).is_null())
        .order_by("created_at", Order::Asc)
        .limit(limit)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let old = CommonTableExpression::new().query(old).columns(columns).table_name("old").materialized(true).to_owned();
    let key = Expr::tuple(columns.map(Expr::col));
    let delete = Query::delete()
        .from_table("start_keys")
        .and_where(key.in_subquery(Query::select().columns(columns).from("old").to_owned()))
        .to_owned();
    let delete = delete.with(WithClause::new().cte(old).to_owned());
    Ok(store.db.writer().execute(&delete).await.map_err(failed)?.rows_affected())
}
