//! Replies that could not change their sagas any more.

use std::ops::RangeInclusive;

use saga_defs::Timestamp;
use sea_orm::FromQueryResult;
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Order, Query};
use uuid::Uuid;

use super::words::{parse, word};
use super::{SqlStore, unsigned};
use crate::{Error, LateReason, LateReply};

/// Most that a saga's list shows.
const SHOWN_MAX: u64 = 200;
/// Rows of one insert: a database limits the number of parameters.
const ROWS_MAX: usize = 500;
const COLUMNS: [&str; 5] = ["saga_id", "command_id", "reason", "reply", "received_at"];

pub(super) async fn keep(store: &SqlStore, replies: &[LateReply]) -> Result<(), Error> {
    for chunk in replies.chunks(ROWS_MAX) {
        let mut insert = Query::insert();
        insert.into_table("late_replies").columns(COLUMNS).on_conflict(OnConflict::new().do_nothing().to_owned());
        for reply in chunk {
            insert.values_panic([
                reply.saga_id.into(),
                reply.command_id.into(),
                word(reply.reason).into(),
                reply.reply.as_str().into(),
                reply.received_at.0.into(),
            ]);
        }
        store.write(&insert).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Row {
    saga_id: Uuid,
    command_id: Uuid,
    reason: String,
    reply: String,
    received_at: i64,
}

impl TryFrom<Row> for LateReply {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            saga_id: row.saga_id,
            command_id: row.command_id,
            reason: parse(row.reason)?,
            reply: row.reply,
            received_at: Timestamp(row.received_at),
        })
    }
}

pub(super) async fn of_saga(store: &SqlStore, saga_id: Uuid) -> Result<Vec<LateReply>, Error> {
    page(store, saga_id, 0, SHOWN_MAX).await
}

/// `limit` replies after the first `skip`.
pub(super) async fn page(store: &SqlStore, saga_id: Uuid, skip: u64, limit: u64) -> Result<Vec<LateReply>, Error> {
    let select = Query::select()
        .columns(COLUMNS)
        .from("late_replies")
        .and_where(Expr::col("saga_id").eq(saga_id))
        .order_by("received_at", Order::Asc)
        .order_by("command_id", Order::Asc)
        .order_by("reason", Order::Asc)
        .offset(skip)
        .limit(limit)
        .to_owned();
    store.read::<Row, _>(&select).await?.into_iter().map(LateReply::try_from).collect()
}

#[derive(FromQueryResult)]
struct Contradicted {
    saga_id: Uuid,
    replies: i64,
}

pub(super) async fn contradictions(
    store: &SqlStore,
    ids: RangeInclusive<Uuid>,
    limit: u64,
) -> Result<Vec<(Uuid, u64)>, Error> {
    let select = Query::select()
        .column("saga_id")
        .expr_as(Expr::col("command_id").count(), "replies")
        .from("late_replies")
        .and_where(Expr::col("reason").eq(word(LateReason::Contradiction)))
        .and_where(Expr::col("saga_id").between(*ids.start(), *ids.end()))
        .group_by_col("saga_id")
        .order_by("saga_id", Order::Asc)
        .limit(limit)
        .to_owned();
    let found = store.read::<Contradicted, _>(&select).await?;
    Ok(found.into_iter().map(|row| (row.saga_id, unsigned(row.replies))).collect())
}
