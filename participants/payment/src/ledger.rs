//! The ledger: one row per charge and one per refund, each written once and never changed.
//!
//! Not for reading (`query`). Must hold: rows are written in the transaction that records the verdict; amounts are
//! integer minor units as the gateway moved them.

use db::Transaction;
use participant_kit::Definite;
use saga_defs::contract::Money;
use saga_defs::contract::payment::Charged;
use saga_defs::message::NOTHING_TO_UNDO;
use saga_defs::{Outcome, Timestamp, Verb};
use sea_orm::{ConnectionTrait, DbErr};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{Undone, ledger_sql};

/// Money taken.
pub(crate) mod charges {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "charges")]
    pub(crate) struct Model {
        /// The effect's idempotency key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) key: Uuid,
        pub(crate) saga_id: Uuid,
        pub(crate) charge_id: String,
        pub(crate) amount_minor: i64,
        pub(crate) currency: String,
        /// Microseconds since 1970.
        pub(crate) created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Money given back.
pub(crate) mod refunds {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "refunds")]
    pub(crate) struct Model {
        /// The idempotency key of the effect that was undone.
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) key: Uuid,
        pub(crate) saga_id: Uuid,
        pub(crate) refund_id: String,
        pub(crate) amount_minor: i64,
        pub(crate) currency: String,
        /// Microseconds since 1970.
        pub(crate) created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Money that moved, either way.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Uuid,
    pub(crate) saga_id: Uuid,
    /// The gateway's id of the charge or refund.
    pub(crate) provider_id: String,
    pub(crate) amount: Money,
}

/// Books what successful verbs moved.
pub(crate) async fn book(tx: &Transaction, now: Timestamp, verdicts: &[Definite<'_>]) -> Result<(), DbErr> {
    let (mut charges, mut refunds) = (Vec::new(), Vec::new());
    for verdict in verdicts {
        let Some((provider_id, amount)) = moved(verdict)? else { continue };
        let command = &verdict.effect.command;
        let entry = Entry { key: command.key, saga_id: command.saga_id, provider_id, amount };
        match verdict.verb {
            Verb::Execute => charges.push(entry),
            Verb::Compensate => refunds.push(entry),
        }
    }
    let backend = tx.get_database_backend();
    if !charges.is_empty() {
        tx.execute_raw(ledger_sql::charge(backend, &charges, now)).await?;
    }
    if !refunds.is_empty() {
        tx.execute_raw(ledger_sql::refund(backend, &refunds, now)).await?;
    }
    Ok(())
}

/// What moved under which id of the gateway's, if anything did.
fn moved(verdict: &Definite<'_>) -> Result<Option<(String, Money)>, DbErr> {
    let output = match verdict.outcome {
        Outcome::Succeeded { output } => output,
        Outcome::Refused { .. } | Outcome::Retry { .. } => return Ok(None),
    };
    Ok(match verdict.verb {
        Verb::Execute => {
            let Charged { charge_id, amount } = read(output)?;
            Some((charge_id, amount))
        }
        Verb::Compensate if output.get(NOTHING_TO_UNDO).is_some() => None,
        Verb::Compensate => {
            let Undone::Refunded { refund_id, amount } = read(output)?;
            Some((refund_id, amount))
        }
    })
}

/// An output that this participant made itself; one that can't be read must not pass without a ledger row.
fn read<'a, T: Deserialize<'a>>(output: &'a Value) -> Result<T, DbErr> {
    T::deserialize(output).map_err(|_| DbErr::Custom("an output of payment has an unknown shape".to_owned()))
}
