//! `GET /v1/payments`: the ledger for people.
//!
//! Must hold: admins only; lists are paged by saga.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use db::Db;
use runtime::clock::rfc3339;
use runtime::http::{Cursor, Page, Principal, Problem, Query, limit};
use saga_defs::contract::Money;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Error;
use crate::query::{self, Entry, Payments};

/// Sagas of a page when nothing is said.
const LIMIT_DEFAULT: u32 = 50;
/// Most sagas of a page.
const LIMIT_MAX: u32 = 200;

/// The routes of the payment ledger.
pub fn router(db: Db) -> Router {
    Router::new().route("/v1/payments", get(list)).with_state(db)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    saga_id: Option<Uuid>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct PaymentsView {
    saga_id: Uuid,
    charges: Vec<ChargeView>,
    refunds: Vec<RefundView>,
    net: Money,
}

#[derive(Serialize)]
struct ChargeView {
    key: Uuid,
    charge_id: String,
    amount: Money,
    created_at: String,
}

#[derive(Serialize)]
struct RefundView {
    key: Uuid,
    refund_id: String,
    amount: Money,
    created_at: String,
}

impl From<Payments> for PaymentsView {
    fn from(payments: Payments) -> Self {
        Self {
            saga_id: payments.saga_id,
            charges: payments.charges.into_iter().map(ChargeView::from).collect(),
            refunds: payments.refunds.into_iter().map(RefundView::from).collect(),
            net: payments.net,
        }
    }
}

impl From<Entry> for ChargeView {
    fn from(entry: Entry) -> Self {
        let created_at = rfc3339(entry.created_at);
        Self { key: entry.key, charge_id: entry.provider_ref, amount: entry.amount, created_at }
    }
}

impl From<Entry> for RefundView {
    fn from(entry: Entry) -> Self {
        let created_at = rfc3339(entry.created_at);
        Self { key: entry.key, refund_id: entry.provider_ref, amount: entry.amount, created_at }
    }
}

async fn list(
    State(db): State<Db>,
    principal: Principal,
    Query(asked): Query<Asked>,
) -> Result<Json<Page<PaymentsView>>, Problem> {
    principal.require_admin()?;
    let sagas_max = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = asked.cursor.as_deref().map(Cursor::decode::<Uuid>).transpose()?;
    let (payments, next) = match asked.saga_id {
        Some(saga_id) => (query::of_saga(&db, saga_id).await.map_err(problem)?, None),
        None => {
            let page = query::page(&db, after, sagas_max).await.map_err(problem)?;
            (page.payments, page.next)
        }
    };
    Ok(Json(Page {
        data: payments.into_iter().map(PaymentsView::from).collect(),
        has_more: next.is_some(),
        next_cursor: next.map(|saga_id| Cursor::encode(&saga_id)),
    }))
}

fn problem(error: Error) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the ledger could not be read");
    match error {
        Error::Database(cause) if cause.is_transient() => {
            Problem::unavailable("The ledger is busy. Ask again in a moment.")
        }
        Error::Database(_)
        | Error::Client(_)
        | Error::Unanswered(_)
        | Error::Status(_)
        | Error::Shape(_)
        | Error::IntentUnknown
        | Error::AmountUnknown => Problem::internal(),
    }
}
