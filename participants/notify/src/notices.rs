//! The table of notices that went out: one row per effect, without personal data.

use saga_defs::contract::notify::{Send, Sent};
use saga_defs::{Command, Timestamp};
use sea_orm::{ActiveValue::Set, DatabaseTransaction, DbErr, EntityTrait};
use serde::Deserialize;
use serde_json::Value;

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

/// Writes the notice of a successful command down, once.
pub(crate) async fn add(
    tx: &DatabaseTransaction,
    now: Timestamp,
    command: &Command,
    output: &Value,
) -> Result<(), DbErr> {
    let notice: Send = read(&command.payload)?;
    let sent: Sent = read(output)?;
    let row = entity::ActiveModel {
        key: Set(command.key),
        saga_id: Set(command.saga_id),
        appointment_id: Set(notice.appointment_id),
        channel: Set(sent.channel.as_str().to_owned()),
        provider_ref: Set(sent.provider_ref),
        created_at: Set(now.0),
    };
    let insert = entity::Entity::insert(row).on_conflict_do_nothing_on([entity::Column::Key]);
    insert.exec_without_returning(tx).await.map(|_| ())
}

/// What this participant read or made before; what can't be read now must not pass without a row.
fn read<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, DbErr> {
    T::deserialize(value).map_err(|_| DbErr::Custom("a notice has an unknown shape".to_owned()))
}
