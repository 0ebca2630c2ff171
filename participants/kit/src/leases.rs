//! Who continues an open external call, or an announcement: each is either leased to a live run or due at a known
//! instant.
//!
//! Not for safety: two runs that both call a provider say the same provider key, and the row's state decides whose
//! verdict counts. Leases only save work. Must hold: what is unfinished is never without an instant at which it is
//! due, and what is done has none; a sweep never waits for a row that somebody else is writing.

use std::time::Duration;

use db::Db;
use saga_defs::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType, SimpleExpr};
use sea_orm::{Condition, QueryOrder, QuerySelect, Select};

use crate::Error;
use crate::inbox::State;
use crate::rows::{self, Column, Entity, Model};

/// One run of one participant, as the owner of leases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lessee {
    pub(crate) participant: &'static str,
    pub(crate) owner: Uuid,
    pub(crate) lease: Duration,
}

impl Lessee {
    /// Leases `row` to this run.
    pub(crate) fn take(&self, row: &mut Model, now: Timestamp) {
        row.owner = Some(self.owner);
        row.lease_until = Some(self.until(now));
        row.updated_at = now.0;
    }

    fn until(&self, now: Timestamp) -> i64 {
        now.plus_ms(u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)).0
    }

    /// Rows with something unfinished, in a state that this build knows.
    fn unfinished(&self) -> Condition {
        Condition::all()
            .add(Column::Participant.eq(self.participant))
            .add(Column::LeaseUntil.is_not_null())
            .add(Column::State.is_in(State::ALL.map(State::as_str)))
    }

    /// Ends the leases of all other runs: they are known to be gone, and what they had under way was interrupted.
    pub(crate) async fn take_over(&self, db: &Db) -> Result<(), Error> {
        let others = self.unfinished().add(Column::Owner.is_not_null()).add(Column::Owner.ne(self.owner));
        update(db, others, vec![(Column::LeaseUntil, Expr::value(db.now().0))], Busy::Wait).await
    }

    /// Gives up this run's lease for work that was not begun, so that another run continues at once. That a former run
    /// interrupted a call stays known.
    pub(crate) async fn release(&self, db: &Db, key: Uuid, state: State, interrupted: bool) -> Result<(), Error> {
        let mut values = vec![(Column::LeaseUntil, Expr::value(db.now().0))];
        if !interrupted {
            values.push((Column::Owner, Expr::value(None::<Uuid>)));
        }
        update(db, self.own_in(key, state), values, Busy::Wait).await
    }

    fn own(&self, keys: &[Uuid]) -> Condition {
        self.unfinished().add(Column::Owner.eq(self.owner)).add(Column::Key.is_in(keys.iter().copied()))
    }

    /// What this run has a lease of for work in `state`: it may have another one by now, for what came after.
    fn own_in(&self, key: Uuid, state: State) -> Condition {
        self.own(&[key]).add(Column::State.eq(state.as_str()))
    }

    /// Makes this run's leases of `keys` last longer. A row that is just being written waits for the next renewal.
    pub(crate) async fn renew(&self, db: &Db, keys: &[Uuid]) -> Result<(), Error> {
        for keys in keys.chunks(rows::ROWS_MAX) {
            let until = Expr::value(self.until(db.now()));
            update(db, self.own(keys), vec![(Column::LeaseUntil, until)], Busy::Skip).await?;
        }
        Ok(())
    }

    /// The row, if this run has it leased for a call in `state`.
    pub(crate) async fn look(&self, db: &Db, key: Uuid, state: State) -> Result<Option<Model>, Error> {
        let row = Entity::find().filter(self.own_in(key, state)).one(db.reader()).await;
        row.map_err(|error| Error::Db(error.into()))
    }

    /// The same, and then the lease is taken anew.
    pub(crate) async fn hold(self, db: &Db, key: Uuid, state: State) -> Result<Option<Model>, Error> {
        let now = db.now();
        let held = db.transaction(move |tx| {
            let row = Busy::Wait.lock(Entity::find().filter(self.own_in(key, state)));
            Box::pin(async move {
                let mut row = row.all(tx).await?;
                row.iter_mut().for_each(|row| self.take(row, now));
                rows::save(tx, &row).await?;
                Ok(row.pop())
            })
        });
        Ok(held.await?)
    }

    /// Up to `max` rows with something unfinished that nobody has under way, the longest due first.
    pub(crate) async fn due(&self, db: &Db, max: usize) -> Result<Vec<Uuid>, Error> {
        Entity::find()
            .select_only()
            .column(Column::Key)
            .filter(self.unfinished().add(Column::LeaseUntil.lte(db.now().0)))
            .order_by_asc(Column::LeaseUntil)
            .order_by_asc(Column::Key)
            .limit(u64::try_from(max).unwrap_or(u64::MAX))
            .into_tuple()
            .all(db.reader())
            .await
            .map_err(|error| Error::Db(error.into()))
    }

    /// Leases those of `keys` that are still due and that nobody is just writing; with each, whether it was interrupted:
    /// its lease lapsed without having been given up.
    pub(crate) async fn claim(self, db: &Db, keys: Vec<Uuid>) -> Result<Vec<(Model, bool)>, Error> {
        let now = db.now();
        let claimed = db.transaction(move |tx| {
            let due = self.unfinished().add(Column::LeaseUntil.lte(now.0)).add(Column::Key.is_in(keys.iter().copied()));
            Box::pin(async move {
                let mut due = Busy::Skip.lock(Entity::find().filter(due)).all(tx).await?;
                let interrupted: Vec<bool> = due.iter().map(|row| row.owner.is_some()).collect();
                for row in &mut due {
                    self.take(row, now);
                }
                rows::save(tx, &due).await?;
                Ok(due.into_iter().zip(interrupted).collect())
            })
        });
        Ok(claimed.await?)
    }
}

/// What to do about rows that another transaction has locked.
#[derive(Clone, Copy, Debug)]
enum Busy {
    Wait,
    Skip,
}

impl Busy {
    /// Locks rows, in key order. SQLite has no row locks, and needs none: one transaction writes at a time.
    fn lock(self, rows: Select<Entity>) -> Select<Entity> {
        let rows = rows.order_by_asc(Column::Key);
        match self {
            Self::Wait => rows.lock_exclusive(),
            Self::Skip => rows.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked),
        }
    }
}

async fn update(db: &Db, which: Condition, values: Vec<(Column, SimpleExpr)>, busy: Busy) -> Result<(), Error> {
    let updated = db.transaction(move |tx| {
        let keys = busy.lock(Entity::find().select_only().column(Column::Key).filter(which.clone()));
        let mut update = Entity::update_many();
        for (column, value) in &values {
            update = update.col_expr(*column, value.clone());
        }
        Box::pin(async move {
            let keys: Vec<Uuid> = keys.into_tuple().all(tx).await?;
            for chunk in keys.chunks(rows::ROWS_MAX) {
                update.clone().filter(Column::Key.is_in(chunk.iter().copied())).exec(tx).await?;
            }
            Ok(())
        })
    });
    Ok(updated.await?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]
mod tests {
    use fixture::{Owned, Stack};
    use saga_defs::Verb;
    use serde_json::Value;

    use super::*;
    use crate::conformance::command;
    use crate::rows::Rows;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A row in `state`, leased to `lessee`; its key.
    async fn leased(db: &Db, lessee: Lessee, state: State) -> Uuid {
        let key = Uuid::from_u128(1);
        let stored = db.transaction(move |tx| {
            Box::pin(async move {
                let command = command(lessee.participant, key, Verb::Compensate, 1, Value::Null);
                let mut rows = Rows::unlooked(lessee.participant, Timestamp(0));
                let (_, mut row) = rows.of(&command)?;
                row.close(state, Timestamp(0));
                lessee.take(&mut row, Timestamp(0));
                rows.put(row);
                rows.write(tx).await
            })
        });
        stored.await.unwrap();
        key
    }

    /// An announcement that was not begun must not give up the undo that has come since.
    #[tokio::test]
    async fn a_lease_is_only_given_up_in_the_state_that_it_was_taken_for() {
        let owned = Owned::open::<migrations::Clinic>(Stack::Sqlite).await;
        let lessee = Lessee { participant: "provider", owner: Uuid::from_u128(7), lease: HOUR };
        let key = leased(&owned.db, lessee, State::Undoing).await;
        let owner = async || lessee.look(&owned.db, key, State::Undoing).await.unwrap().and_then(|row| row.owner);
        lessee.release(&owned.db, key, State::Executed, false).await.unwrap();
        assert_eq!(owner().await, Some(lessee.owner));
        lessee.release(&owned.db, key, State::Undoing, false).await.unwrap();
        assert_eq!(owner().await, None);
    }
}
