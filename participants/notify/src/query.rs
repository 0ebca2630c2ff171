//! Reading the notices that went out, page by page.

use db::Db;
use saga_defs::Timestamp;
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Error;
use crate::notices::entity::{Column, Entity, Model};

/// A notice that went out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Idempotency key of the effect.
    pub key: Uuid,
    /// The saga that asked.
    pub saga_id: Uuid,
    /// The appointment it was about.
    pub appointment_id: Uuid,
    /// `sms` or `mail`.
    pub channel: String,
    /// The provider's id of the message.
    pub provider_ref: String,
    /// When it was known to have gone out.
    pub created_at: Timestamp,
}

/// Where a notice stands in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    created_at: Timestamp,
    key: Uuid,
}

impl Notice {
    /// Where this notice stands: the next page begins after it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { created_at: self.created_at, key: self.key }
    }
}

impl From<Model> for Notice {
    fn from(row: Model) -> Self {
        Self {
            key: row.key,
            saga_id: row.saga_id,
            appointment_id: row.appointment_id,
            channel: row.channel,
            provider_ref: row.provider_ref,
            created_at: Timestamp(row.created_at),
        }
    }
}

/// At most `limit` notices after `after`, oldest first; of one saga or of all.
///
/// # Errors
/// When the database failed.
pub async fn page(db: &Db, saga_id: Option<Uuid>, after: Option<Position>, limit: u64) -> Result<Vec<Notice>, Error> {
    let later = |after: Position| {
        let same_instant =
            Condition::all().add(Column::CreatedAt.eq(after.created_at.0)).add(Column::Key.gt(after.key));
        Condition::any().add(Column::CreatedAt.gt(after.created_at.0)).add(same_instant)
    };
    let rows = Entity::find()
        .filter(Condition::all().add_option(saga_id.map(|saga_id| Column::SagaId.eq(saga_id))))
        .filter(Condition::all().add_option(after.map(later)))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Key)
        .limit(limit)
        .all(db.reader())
        .await
        .map_err(|error: DbErr| Error::Database(db::Error::from(error)))?;
    Ok(rows.into_iter().map(Notice::from).collect())
}
