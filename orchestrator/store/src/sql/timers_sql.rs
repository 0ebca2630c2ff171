//! Timers: sagas that have to be looked at again, without any message.
//!
//! Must hold: claiming and re-arming leave the version alone, so that they never make a transition lose.

use saga_defs::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::Serialize;
use uuid::Uuid;

use super::{SqlStore, failed, rows, set_sql};
use crate::Error;

#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
}

/// Rows of another format are left to instances that know it.
pub(super) async fn claim(store: &SqlStore, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error> {
    let now = store.db.now();
    let due = Query::select()
        .column("id")
        .from("sagas")
        .and_where(Expr::col("wake_at").is_not_null())
        .and_where(Expr::col("wake_at").lte(now.0))
        .and_where(Expr::col("format").eq(saga_core::FORMAT))
        .order_by("wake_at", Order::Asc)
        .order_by("id", Order::Asc)
        .limit(limit)
        .to_owned();
    let mut update = Query::update()
        .table("sagas")
        .value("wake_at", now.plus_ms(push_ms).0)
        .and_where(Expr::col("id").in_subquery(due))
        .to_owned();
    update.returning(Query::returning().column("id"));
    let claimed: Vec<Row> = rows(store.db.writer(), &update).await.map_err(failed)?;
    Ok(claimed.into_iter().map(|row| row.id).collect())
}

#[derive(Serialize)]
struct Wake {
    id: uuid::fmt::Simple,
    version: u64,
    wake_at: Timestamp,
}

const REARM: &str = "
update sagas set wake_at = n.wake_at
from (
    select unhex(value ->> 'id') as id, value ->> 'version' as version, value ->> 'wake_at' as wake_at
    from json_each(?)
) as n
where sagas.id = n.id and sagas.version = n.version and sagas.wake_at is not null";

/// At least one.
pub(super) async fn rearm(store: &SqlStore, wakes: &[(Uuid, u64, Timestamp)]) -> Result<(), Error> {
    let wakes: Vec<_> =
        wakes.iter().map(|&(id, version, wake_at)| Wake { id: id.simple(), version, wake_at }).collect();
    store.db.writer().execute_raw(set_sql::over(REARM, &wakes)).await.map(|_| ()).map_err(failed)
}
