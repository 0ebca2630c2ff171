//! What the two dialects do each in its own way.
//!
//! Must hold: chosen once, when the store is made; whatever else differs is a matter of sea-query.

use std::sync::Arc;

use db::Db;
use sea_orm::DbBackend;
use uuid::Uuid;

use super::{Writing, postgres, sqlite};
use crate::{Batch, Committed, Error};

/// One of the two dialects.
#[derive(Clone)]
pub(super) enum Dialect {
    Sqlite,
    Postgres(Arc<postgres::fates_sql::Fates>),
}

impl Dialect {
    pub(super) fn of(backend: DbBackend) -> Self {
        match backend {
            DbBackend::Postgres => Self::Postgres(Arc::default()),
            _ => Self::Sqlite,
        }
    }

    pub(super) async fn commit(&self, db: &Db, batch: Batch, writing: &Writing) -> Result<Committed, Error> {
        match self {
            Self::Sqlite => {
                let (batch, clock, writing) = (Arc::new(batch), db.clone(), *writing);
                let work =
                    db.transaction(move |tx| sqlite::commit_sql::work(tx, Arc::clone(&batch), clock.now(), writing));
                Ok(work.await?)
            }
            Self::Postgres(fates) => postgres::commit_sql::commit(db, fates, &batch, writing).await,
        }
    }

    /// Sees to it that a commit is either over or never happens. On SQLite it is over: nothing runs when its
    /// transaction has returned.
    pub(super) async fn decide_fate(&self, db: &Db, commit_id: Uuid) -> Result<(), Error> {
        match self {
            Self::Sqlite => Ok(()),
            Self::Postgres(_) => postgres::fates_sql::decide(db, commit_id).await,
        }
    }
}
