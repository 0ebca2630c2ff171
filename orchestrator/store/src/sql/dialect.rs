//! What the two dialects do each in its own way.
//!
//! Must hold: chosen once, when the store is made; whatever else differs is a matter of sea-query.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use db::Db;
use sea_orm::DbBackend;
use uuid::Uuid;

use super::commit::Plan;
use super::{postgres, sqlite};
use crate::{Error, Outcome, Transition};

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

    /// Writes a batch in one transaction; returns the sagas that won.
    pub(super) async fn write(&self, db: &Db, plan: &Plan<'_>) -> Result<BTreeSet<Uuid>, Error> {
        match self {
            Self::Sqlite => sqlite::commit_sql::write(db, plan).await,
            Self::Postgres(fates) => postgres::commit_sql::write(db, fates, plan).await,
        }
    }

    /// What each of these starts has met; nothing for one that would find its keys free now.
    pub(super) async fn met(&self, db: &Db, starts: &[&Transition]) -> Result<BTreeMap<Uuid, Outcome>, Error> {
        match self {
            Self::Sqlite => sqlite::met_sql::read(db, starts).await,
            Self::Postgres(_) => postgres::met_sql::read(db, starts).await,
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
