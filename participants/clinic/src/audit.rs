//! What must never be found in the clinic's data, looked for on purpose.
//!
//! Not for mending anything. The schema forbids what this looks for; an audit trusts no schema. Appointments by saga
//! are read through [`crate::query::appointments`].

use db::Db;
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::appointments::{ACTIVE, Column, Entity};
use crate::{Error, slots};

/// Up to `max` slots behind `after` that more than one active appointment stands on, by id.
///
/// # Errors
/// When the database failed.
pub async fn double_booked_slots(db: &Db, after: Option<Uuid>, max: u64) -> Result<Vec<Uuid>, Error> {
    let found = Entity::find()
        .select_only()
        .column(Column::SlotId)
        .filter(Column::Status.is_in(ACTIVE))
        .filter(Condition::all().add_option(after.map(|id| Column::SlotId.gt(id))))
        .group_by(Column::SlotId)
        .having(Expr::col(Column::Id).count().gt(1))
        .order_by_asc(Column::SlotId)
        .limit(max)
        .into_tuple()
        .all(db.reader());
    Ok(found.await?)
}

/// Up to `max` slots behind `after` whose status contradicts their appointments, by id: free with an active one, or
/// taken without.
///
/// # Errors
/// When the database failed.
pub async fn contradicting_slots(db: &Db, after: Option<Uuid>, max: u64) -> Result<Vec<Uuid>, Error> {
    let active = Query::select().column(Column::SlotId).from(Entity).and_where(Column::Status.is_in(ACTIVE)).to_owned();
    let free = slots::Column::Status.eq(slots::Status::Free);
    let contradicting = Condition::any()
        .add(Condition::all().add(free.clone()).add(slots::Column::Id.in_subquery(active.clone())))
        .add(Condition::all().add(free.not()).add(slots::Column::Id.not_in_subquery(active)));
    let found = slots::Entity::find()
        .select_only()
        .column(slots::Column::Id)
        .filter(contradicting)
        .filter(Condition::all().add_option(after.map(|id| slots::Column::Id.gt(id))))
        .order_by_asc(slots::Column::Id)
        .limit(max)
        .into_tuple()
        .all(db.reader());
    Ok(found.await?)
}
