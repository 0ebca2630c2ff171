//! What became of a commit whose answer was lost.
//!
//! A backend works on when its client's connection is gone, and may not even have begun. So history alone can't tell:
//! what it does not show may still come. Therefore a commit writes its id into `commit_fates` first, and whoever asks
//! writes the same id: one of the two gets it. The asker waits for a commit that is under way; one that comes later
//! finds its id taken, and changes nothing. Must hold: "not found" is only said of what can't be found later.

use std::sync::{Mutex, PoisonError};

use db::Db;
use sea_orm::sqlx::Arguments as _;
use sea_orm::sqlx::postgres::PgArguments;
use uuid::Uuid;

use crate::Error;

/// Answered commits whose ids are kept until there are this many, and then go with the next commit.
const FORGOTTEN_AT_ONCE: usize = 64;
/// No statement lives longer by far, neither in a backend nor on the wire.
const KEPT_MS: i64 = 3_600_000;

/// Commits that this instance got an answer for: nobody will ask for them, and their ids can go.
#[derive(Debug, Default)]
pub(in crate::sql) struct Fates {
    known: Mutex<Vec<Uuid>>,
}

impl Fates {
    /// A commit was answered.
    pub(super) fn known(&self, commit_id: Uuid) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).push(commit_id);
    }

    /// Ids to delete, once there are enough of them.
    pub(super) fn take(&self) -> Vec<Uuid> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < FORGOTTEN_AT_ONCE { Vec::new() } else { std::mem::take(&mut *known) }
    }

    /// Ids whose deletion failed.
    pub(super) fn give_back(&self, forgotten: Vec<Uuid>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).extend(forgotten);
    }
}

const DECIDE: &str = "
with forgotten as (
    delete from commit_fates where commit_id in (
        select commit_id from commit_fates where decided_at < $2 - $3 and commit_id <> $1
        limit 1000 for update skip locked
    )
)
insert into commit_fates (commit_id, decided_at) values ($1, $2) on conflict do nothing";

/// Sees to it that the commit is either over or never happens.
pub(in crate::sql) async fn decide(db: &Db, commit_id: Uuid) -> Result<(), Error> {
    match db.postgres_statement(DECIDE, arguments(commit_id, db.now().0)).await {
        Ok(_) => Ok(()),
        // Asking can be done again, whatever became of it.
        Err(db::Error::UnknownCommit(error)) => Err(Error::Unavailable(db::Error::Transient(error))),
        Err(error) => Err(error.into()),
    }
}

fn arguments(commit_id: Uuid, now: i64) -> db::Bound {
    let mut arguments = PgArguments::default();
    arguments.add(commit_id)?;
    arguments.add(now)?;
    arguments.add(KEPT_MS * 1_000)?;
    Ok(arguments)
}
