//! The ledger: one row per charge and one per refund, each written once and never changed.
//!
//! Not for reading (`query`). Must hold: rows are written in the transaction that records the verdict; amounts are
//! integer minor units as the gateway moved them.

use saga_defs::contract::payment::Charged;
use saga_defs::message::NOTHING_TO_UNDO;
use saga_defs::{Command, Timestamp, Verb};
use sea_orm::{ActiveValue::Set, DatabaseTransaction, DbErr, EntityTrait};
use serde::Deserialize;
use serde_json::Value;

use crate::Undone;

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

/// Books what a successful verb moved.
pub(crate) async fn book(
    tx: &DatabaseTransaction,
    now: Timestamp,
    command: &Command,
    verb: Verb,
    output: &Value,
) -> Result<(), DbErr> {
    match verb {
        Verb::Execute => charge(tx, now, command, read(output)?).await,
        Verb::Compensate if output.get(NOTHING_TO_UNDO).is_some() => Ok(()),
        Verb::Compensate => match read(output)? {
            Undone::Canceled => Ok(()),
            Undone::Refunded { refund_id, amount } => {
                let row = refunds::ActiveModel {
                    key: Set(command.key),
                    saga_id: Set(command.saga_id),
                    refund_id: Set(refund_id),
                    amount_minor: Set(amount.amount_minor),
                    currency: Set(amount.currency),
                    created_at: Set(now.0),
                };
                let insert = refunds::Entity::insert(row).on_conflict_do_nothing_on([refunds::Column::Key]);
                insert.exec_without_returning(tx).await.map(|_| ())
            }
        },
    }
}

async fn charge(tx: &DatabaseTransaction, now: Timestamp, command: &Command, charged: Charged) -> Result<(), DbErr> {
    let row = charges::ActiveModel {
        key: Set(command.key),
        saga_id: Set(command.saga_id),
        charge_id: Set(charged.charge_id),
        amount_minor: Set(charged.amount.amount_minor),
        currency: Set(charged.amount.currency),
        created_at: Set(now.0),
    };
    let insert = charges::Entity::insert(row).on_conflict_do_nothing_on([charges::Column::Key]);
    insert.exec_without_returning(tx).await.map(|_| ())
}

/// An output that this participant made itself; one that can't be read must not pass without a ledger row.
fn read<'a, T: Deserialize<'a>>(output: &'a Value) -> Result<T, DbErr> {
    T::deserialize(output).map_err(|_| DbErr::Custom("an output of payment has an unknown shape".to_owned()))
}
