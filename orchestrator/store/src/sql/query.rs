//! Questions from columns alone: starts, commits, answers, history, lists, counts.

use saga_core::Status;
use saga_defs::Timestamp;
use sea_orm::FromQueryResult;
use sea_orm::sea_query::{Asterisk, Expr, ExprTrait, Order, Query};
use uuid::Uuid;

use super::load::{HEADER, HeaderRow};
use super::words::{parse, word};
use super::{SqlStore, set_sql, signed, unsigned};
use crate::{Error, Filter, HistoryRow, StartKey, Summary};

#[derive(FromQueryResult)]
struct SagaId {
    saga_id: Uuid,
}

#[derive(FromQueryResult)]
struct StartedBy {
    saga_id: Uuid,
    fingerprint: String,
}

pub(super) async fn started(store: &SqlStore, key: &StartKey) -> Result<Option<(Uuid, String)>, Error> {
    let select = Query::select()
        .columns(["saga_id", "fingerprint"])
        .from("start_keys")
        .and_where(Expr::col("tenant").eq(&key.tenant))
        .and_where(Expr::col("principal").eq(&key.principal))
        .and_where(Expr::col("key").eq(&key.key))
        .to_owned();
    Ok(store.read::<StartedBy, _>(&select).await?.pop().map(|row| (row.saga_id, row.fingerprint)))
}

/// Found through the sagas: an index of commits would cost each commit more than asking ever saves.
pub(super) async fn committed(store: &SqlStore, commit_id: Uuid, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
    let select = Query::select()
        .distinct()
        .column("saga_id")
        .from("history")
        .and_where(set_sql::is_one_of(store.db.backend(), "saga_id", ids))
        .and_where(Expr::col("commit_id").eq(commit_id))
        .order_by("saga_id", Order::Asc)
        .to_owned();
    Ok(store.read::<SagaId, _>(&select).await?.into_iter().map(|row| row.saga_id).collect())
}

#[derive(FromQueryResult)]
struct Version {
    id: Uuid,
    version: i64,
}

/// At least one id.
pub(super) async fn answered(store: &SqlStore, ids: &[Uuid]) -> Result<Vec<(Uuid, u64)>, Error> {
    let select = Query::select()
        .columns(["id", "version"])
        .from("sagas")
        .and_where(set_sql::is_one_of(store.db.backend(), "id", ids))
        .and_where(Expr::col("decision").is_not_null().or(Expr::col("stuck_cause").is_not_null()))
        .order_by("id", Order::Asc)
        .to_owned();
    Ok(store.read::<Version, _>(&select).await?.into_iter().map(|row| (row.id, unsigned(row.version))).collect())
}

#[derive(FromQueryResult)]
struct Past {
    seq: i64,
    at: i64,
    actor: String,
    reason: Option<String>,
    operation_id: Option<Uuid>,
    format: i32,
    events: String,
}

impl From<Past> for HistoryRow {
    fn from(row: Past) -> Self {
        Self {
            seq: unsigned(row.seq),
            at: Timestamp(row.at),
            actor: row.actor,
            reason: row.reason,
            operation_id: row.operation_id,
            format: u16::try_from(row.format).unwrap_or(u16::MAX),
            events: row.events,
        }
    }
}

pub(super) async fn history(
    store: &SqlStore,
    saga_id: Uuid,
    after_seq: u64,
    limit: u64,
) -> Result<Vec<HistoryRow>, Error> {
    let select = Query::select()
        .columns(["seq", "at", "actor", "reason", "operation_id", "format", "events"])
        .from("history")
        .and_where(Expr::col("saga_id").eq(saga_id))
        .and_where(Expr::col("seq").gt(signed(after_seq)))
        .order_by("seq", Order::Asc)
        .limit(limit)
        .to_owned();
    Ok(store.read::<Past, _>(&select).await?.into_iter().map(HistoryRow::from).collect())
}

#[derive(FromQueryResult)]
struct Listed {
    #[sea_orm(nested)]
    header: HeaderRow,
    status: String,
    decision: Option<String>,
    failure_code: Option<String>,
    stuck_cause: Option<String>,
    waiting_on: Option<String>,
    version: i64,
    updated_at: i64,
    decided_at: Option<i64>,
}

impl TryFrom<Listed> for Summary {
    type Error = Error;

    fn try_from(row: Listed) -> Result<Self, Error> {
        Ok(Self {
            header: row.header.into(),
            status: parse(row.status)?,
            decision: row.decision.map(parse).transpose()?,
            failure_code: row.failure_code,
            stuck: row.stuck_cause.map(parse).transpose()?.zip(row.waiting_on),
            version: unsigned(row.version),
            updated_at: Timestamp(row.updated_at),
            decided_at: row.decided_at.map(Timestamp),
        })
    }
}

pub(super) async fn list(store: &SqlStore, filter: &Filter, limit: u64) -> Result<Vec<Summary>, Error> {
    let Filter { tenant, principal, status, definition, key, before } = filter;
    let equal =
        |column: &'static str, value: &Option<String>| value.as_deref().map(|value| Expr::col(column).eq(value));
    let select = Query::select()
        .columns(HEADER)
        .columns(["status", "decision", "failure_code", "stuck_cause", "waiting_on"])
        .columns(["version", "updated_at", "decided_at"])
        .from("sagas")
        .and_where(Expr::col("tenant").eq(tenant.as_str()))
        .and_where_option(equal("principal", principal))
        .and_where_option(status.map(|status| Expr::col("status").eq(word(status))))
        .and_where_option(equal("definition", definition))
        .and_where_option(equal("business_key", key))
        .and_where_option(before.map(|before| Expr::col("id").lt(before)))
        .order_by("id", Order::Desc)
        .limit(limit)
        .to_owned();
    store.read::<Listed, _>(&select).await?.into_iter().map(Summary::try_from).collect()
}

#[derive(FromQueryResult)]
struct Counted {
    status: String,
    sagas: i64,
}

/// Asked every few seconds, so it reads nothing but the index of open sagas and, at most, their rows.
pub(super) async fn count_open(store: &SqlStore) -> Result<Vec<(Status, u64)>, Error> {
    let select = Query::select()
        .column("status")
        .expr_as(Expr::col(Asterisk).count(), "sagas")
        .from("sagas")
        .and_where(Expr::col("ended_at").is_null())
        .add_group_by([Expr::col("status")])
        .to_owned();
    let counted = store.read::<Counted, _>(&select).await?;
    let mut counts: Vec<(Status, u64)> =
        counted.into_iter().map(|row| Ok((parse(row.status)?, unsigned(row.sagas)))).collect::<Result<_, Error>>()?;
    counts.sort_unstable();
    Ok(counts)
}
