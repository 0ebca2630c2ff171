//! The table of notices that went out: one row per effect, without personal data.

use db::Transaction;
use participant_kit::Definite;
use saga_defs::contract::notify::{Send, Sent};
use saga_defs::{Outcome, Timestamp, Verb};
use sea_orm::{ConnectionTrait, DbErr};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::notices_sql;

/// A notice that went out.
pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notices")]
    pub(crate) struct Model {
        /// The effect's idempotency key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) key: Uuid,
        pub(crate) saga_id: Uuid,
        pub(crate) appointment_id: Uuid,
        pub(crate) channel: String,
        pub(crate) provider_ref: String,
        /// Microseconds since 1970.
        pub(crate) created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// A notice to be written down.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) key: Uuid,
    pub(crate) saga_id: Uuid,
    pub(crate) appointment_id: Uuid,
    pub(crate) sent: Sent,
}

/// Writes the notices of successful commands down, each once.
pub(crate) async fn add(tx: &Transaction, now: Timestamp, verdicts: &[Definite<'_>]) -> Result<(), DbErr> {
    let notices: Vec<New> =
        verdicts.iter().filter_map(|verdict| notice(verdict).transpose()).collect::<Result<_, _>>()?;
    if !notices.is_empty() {
        tx.execute_raw(notices_sql::insert(tx.get_database_backend(), &notices, now)).await?;
    }
    Ok(())
}

/// The notice that went out, if one did.
fn notice(verdict: &Definite<'_>) -> Result<Option<New>, DbErr> {
    let command = &verdict.effect.command;
    match (verdict.verb, verdict.outcome) {
        (Verb::Execute, Outcome::Succeeded { output }) => {
            let Send { appointment_id, .. } = read(&command.payload)?;
            Ok(Some(New { key: command.key, saga_id: command.saga_id, appointment_id, sent: read(output)? }))
        }
        (Verb::Compensate, Outcome::Succeeded { .. })
        | (Verb::Execute | Verb::Compensate, Outcome::Refused { .. } | Outcome::Retry { .. }) => Ok(None),
    }
}

/// What this participant read or made before; what can't be read now must not pass without a row.
fn read<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, DbErr> {
    T::deserialize(value).map_err(|_| DbErr::Custom("a notice has an unknown shape".to_owned()))
}
