//! The ledger's statements over sets of entries, in both dialects.
//!
//! Not for deciding what is booked. Must hold: a statement's text does not depend on the size of its set; an entry that
//! is there already stays as it is.

use db::sets::{Text, bigints, texts, uuids};
use saga_defs::Timestamp;
use sea_orm::{DbBackend, Statement};
use serde::Serialize;
use uuid::fmt::Simple;

use crate::ledger::Entry;

/// Both tables have the same columns, but for the provider's id.
macro_rules! insert {
    ($table:literal, $provider_id:literal) => {
        Text {
            postgres: concat!(
                "
insert into ",
                $table,
                " (key, saga_id, ",
                $provider_id,
                ", amount_minor, currency, created_at)
select
    unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::text[]), unnest($4::bigint[]), unnest($5::text[]), $6
on conflict (key) do nothing"
            ),
            sqlite: concat!(
                "
insert into ",
                $table,
                " (key, saga_id, ",
                $provider_id,
                ", amount_minor, currency, created_at)
select
    unhex(value ->> 'key'), unhex(value ->> 'saga_id'), value ->> 'provider_id', value ->> 'amount_minor',
    value ->> 'currency', ?2
from jsonb_each(?1) where true
on conflict (key) do nothing"
            ),
        }
    };
}

const CHARGE: Text = insert!("charges", "charge_id");
const REFUND: Text = insert!("refunds", "refund_id");

/// Adds charges.
pub(crate) fn charge(backend: DbBackend, entries: &[Entry], now: Timestamp) -> Statement {
    insert(CHARGE, backend, entries, now)
}

/// Adds refunds.
pub(crate) fn refund(backend: DbBackend, entries: &[Entry], now: Timestamp) -> Statement {
    insert(REFUND, backend, entries, now)
}

fn insert(text: Text, backend: DbBackend, entries: &[Entry], now: Timestamp) -> Statement {
    let columns = || {
        vec![
            uuids(entries.iter().map(|entry| entry.key)),
            uuids(entries.iter().map(|entry| entry.saga_id)),
            texts(entries.iter().map(|entry| entry.provider_id.as_str())),
            bigints(entries.iter().map(|entry| entry.amount.amount_minor)),
            texts(entries.iter().map(|entry| entry.amount.currency.as_str())),
        ]
    };
    text.over(backend, columns, || entries.iter().map(Row::of).collect(), [now.0.into()])
}

/// An entry as SQLite reads it.
#[derive(Serialize)]
struct Row<'a> {
    key: Simple,
    saga_id: Simple,
    provider_id: &'a str,
    amount_minor: i64,
    currency: &'a str,
}

impl<'a> Row<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            key: entry.key.simple(),
            saga_id: entry.saga_id.simple(),
            provider_id: &entry.provider_id,
            amount_minor: entry.amount.amount_minor,
            currency: &entry.amount.currency,
        }
    }
}
