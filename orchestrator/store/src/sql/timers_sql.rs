//! Timers: sagas that have to be looked at again, without any message.
//!
//! Must hold: claiming and re-arming leave the version alone, so that they never make a transition lose.

use saga_defs::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, Order, Query};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement};
use serde::Serialize;
use uuid::Uuid;

use super::{SqlStore, failed, rows, set_sql, signed};
use crate::Error;

#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
}

/// Rows of a newer format are left to instances that know it.
pub(super) async fn claim(store: &SqlStore, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error> {
    let now = store.db.now();
    let due = Query::select()
        .column("id")
        .from("sagas")
        // What has ended never wakes, but without these words the index of open sagas can't be used.
        .and_where(Expr::col("ended_at").is_null())
        .and_where(Expr::col("wake_at").is_not_null())
        .and_where(Expr::col("wake_at").lte(now.0))
        .and_where(Expr::col("format").lte(store.writing.format))
        .order_by("wake_at", Order::Asc)
        .order_by("id", Order::Asc)
        .limit(limit)
        // Never waits for a commit that is under way: what it holds is no longer due.
        .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked)
        .to_owned();
    let mut update = Query::update()
        .table("sagas")
        .value("wake_at", now.plus_ms(push_ms).0)
        .and_where(Expr::col("id").in_subquery(set_sql::all_of("due")))
        .to_owned();
    update.returning(Query::returning().column("id"));
    let update = update.with(set_sql::named("due", due));
    let claimed: Vec<Row> = rows(store.db.writer(), &update).await.map_err(failed)?;
    Ok(claimed.into_iter().map(|row| row.id).collect())
}

/// A saga, the version it must have, and when to wake it.
#[derive(Serialize)]
struct Wake {
    id: uuid::fmt::Simple,
    version: u64,
    wake_at: Timestamp,
}

const REARM_SQLITE: &str = "
update sagas set wake_at = n.wake_at
from (
    select unhex(value ->> 'id') as id, value ->> 'version' as version, value ->> 'wake_at' as wake_at
    from json_each(?)
) as n
where sagas.id = n.id and sagas.version = n.version and sagas.wake_at is not null";

const REARM_POSTGRES: &str = "
with n as materialized (
    select sagas.id, n.version, n.wake_at
    from unnest($1::uuid[], $2::bigint[], $3::bigint[]) as n (id, version, wake_at)
    join sagas on sagas.id = n.id and sagas.version = n.version
    order by sagas.id
    for no key update of sagas
)
update sagas set wake_at = n.wake_at from n
where sagas.id = n.id and sagas.version = n.version and sagas.wake_at is not null";

/// At least one.
pub(super) async fn rearm(store: &SqlStore, wakes: &[(Uuid, u64, Timestamp)]) -> Result<(), Error> {
    let statement = match store.db.backend() {
        DbBackend::Postgres => {
            let ids: Vec<Uuid> = wakes.iter().map(|(id, ..)| *id).collect();
            let versions: Vec<i64> = wakes.iter().map(|(_, version, _)| signed(*version)).collect();
            let wake_ats: Vec<i64> = wakes.iter().map(|(.., wake_at)| wake_at.0).collect();
            let values = [ids.into(), versions.into(), wake_ats.into()];
            Statement::from_sql_and_values(DbBackend::Postgres, REARM_POSTGRES, values)
        }
        _ => {
            let wake = |&(id, version, wake_at): &(Uuid, u64, Timestamp)| Wake { id: id.simple(), version, wake_at };
            set_sql::over(REARM_SQLITE, &wakes.iter().map(wake).collect::<Vec<_>>())
        }
    };
    store.db.writer().execute_raw(statement).await.map(|_| ()).map_err(failed)
}
