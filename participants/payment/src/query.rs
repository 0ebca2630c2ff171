//! Reading the ledger: the payments of one saga, and of all sagas page by page, for people and for the audit.
//!
//! Must hold: every list is paged by saga id; a refund is never seen without its charge, so that a sum taken while
//! money moves is right.

use std::collections::{BTreeMap, BTreeSet};

use db::{Db, Limited};
use saga_defs::Timestamp;
use saga_defs::contract::Money;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::Error;
use crate::ledger::{charges, refunds};

/// What one saga moved in one currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payments {
    /// The saga.
    pub saga_id: Uuid,
    /// Money taken, oldest first.
    pub charges: Vec<Entry>,
    /// Money given back, oldest first.
    pub refunds: Vec<Entry>,
    /// Taken minus given back.
    pub net: Money,
}

/// One row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Idempotency key of the effect.
    pub key: Uuid,
    /// The gateway's id of the charge or the refund.
    pub provider_ref: String,
    /// How much.
    pub amount: Money,
    /// When it was booked.
    pub created_at: Timestamp,
}

/// Sagas in the order of their ids, as many as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sagas {
    /// One item per saga and currency.
    pub payments: Vec<Payments>,
    /// Where the next page begins: after this saga. None on the last page.
    pub next: Option<Uuid>,
}

/// What one saga paid: one item per currency, none when it paid nothing.
///
/// # Errors
/// When the database failed.
pub async fn of_saga(db: &Db, saga_id: Uuid) -> Result<Vec<Payments>, Error> {
    between(db.reader(), saga_id, saga_id).await.map_err(failed)
}

/// The payments of at most `sagas_max` sagas whose ids come after `after`.
///
/// # Errors
/// When the database failed.
pub async fn page(db: &Db, after: Option<Uuid>, sagas_max: u64) -> Result<Sagas, Error> {
    let ids = saga_ids(db.reader(), after, sagas_max.saturating_add(1)).await.map_err(failed)?;
    let shown: Vec<Uuid> = ids.iter().copied().take(usize::try_from(sagas_max).unwrap_or(usize::MAX)).collect();
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else {
        return Ok(Sagas { payments: Vec::new(), next: None });
    };
    let payments = between(db.reader(), *first, *last).await.map_err(failed)?;
    Ok(Sagas { payments, next: (ids.len() > shown.len()).then_some(*last) })
}

fn failed(error: DbErr) -> Error {
    Error::Database(db::Error::from(error))
}

/// Ids of sagas that moved money, in either direction: a refund without a charge must show up too.
async fn saga_ids(reader: &Limited, after: Option<Uuid>, limit: u64) -> Result<BTreeSet<Uuid>, DbErr> {
    let mut charged = charges::Entity::find()
        .select_only()
        .column(charges::Column::SagaId)
        .distinct()
        .order_by_asc(charges::Column::SagaId)
        .limit(limit);
    let mut refunded = refunds::Entity::find()
        .select_only()
        .column(refunds::Column::SagaId)
        .distinct()
        .order_by_asc(refunds::Column::SagaId)
        .limit(limit);
    if let Some(after) = after {
        charged = charged.filter(charges::Column::SagaId.gt(after));
        refunded = refunded.filter(refunds::Column::SagaId.gt(after));
    }
    let mut ids: BTreeSet<Uuid> = charged.into_tuple::<Uuid>().all(reader).await?.into_iter().collect();
    ids.extend(refunded.into_tuple::<Uuid>().all(reader).await?);
    // Each list is complete only up to its own limit: what lies beyond the first `limit` ids may have gaps.
    Ok(ids.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
}

async fn between(reader: &Limited, first: Uuid, last: Uuid) -> Result<Vec<Payments>, DbErr> {
    // Refunds first: the charge of a refund that is seen was booked before it, and is seen too.
    let refunds = refunds::Entity::find()
        .filter(refunds::Column::SagaId.between(first, last))
        .order_by_asc(refunds::Column::CreatedAt)
        .all(reader)
        .await?;
    let charges = charges::Entity::find()
        .filter(charges::Column::SagaId.between(first, last))
        .order_by_asc(charges::Column::CreatedAt)
        .all(reader)
        .await?;
    Ok(sum(charges, refunds))
}

fn sum(charges: Vec<charges::Model>, refunds: Vec<refunds::Model>) -> Vec<Payments> {
    let mut sagas: BTreeMap<(Uuid, String), Payments> = BTreeMap::new();
    for row in charges {
        let payments = entry_of(&mut sagas, row.saga_id, &row.currency);
        payments.net.amount_minor = payments.net.amount_minor.saturating_add(row.amount_minor);
        payments.charges.push(Entry {
            key: row.key,
            provider_ref: row.charge_id,
            amount: Money { amount_minor: row.amount_minor, currency: row.currency },
            created_at: Timestamp(row.created_at),
        });
    }
    for row in refunds {
        let payments = entry_of(&mut sagas, row.saga_id, &row.currency);
        payments.net.amount_minor = payments.net.amount_minor.saturating_sub(row.amount_minor);
        payments.refunds.push(Entry {
            key: row.key,
            provider_ref: row.refund_id,
            amount: Money { amount_minor: row.amount_minor, currency: row.currency },
            created_at: Timestamp(row.created_at),
        });
    }
    sagas.into_values().collect()
}

fn entry_of<'a>(sagas: &'a mut BTreeMap<(Uuid, String), Payments>, saga_id: Uuid, currency: &str) -> &'a mut Payments {
    sagas.entry((saga_id, currency.to_owned())).or_insert_with(|| Payments {
        saga_id,
        charges: Vec::new(),
        refunds: Vec::new(),
        net: Money { amount_minor: 0, currency: currency.to_owned() },
    })
}
