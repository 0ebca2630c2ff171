//! A session of PostgreSQL in somebody's hands, and the one that is kept for whoever comes next.
//!
//! A session that comes back to its pool is asked twice for a sign of life, which costs as much as two small statements. So the
//! last one does not go back while they come soon after each other. Must hold: a session whose last word is not known is closed,
//! and never used again: it may be inside a transaction, or owe an answer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sea_orm::DbErr;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::postgres::{PgConnection, PgRow};
use sea_orm::sqlx::{Error as Driver, Postgres, query_with};
use tokio::time::Instant;

use crate::patience::{Limited, no_answer};
use crate::{Bound, Error, of_driver};

/// For how long a session is kept: its pool ends those that are old.
const KEPT_MAX: Duration = Duration::from_secs(60);
/// A session that was idle for longer is tested before it is used.
pub(crate) const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);

/// A session in somebody's hands.
#[derive(Debug)]
pub(crate) struct Session {
    connection: PoolConnection<Postgres>,
    since: Instant,
    used: Instant,
    /// Whether the server's last word about it is still to come: then it ends with whoever drops it.
    open: bool,
}

impl Session {
    /// The session that is kept, or one of the pool's.
    ///
    /// # Errors
    /// When none is to be had: nothing was sent.
    pub(crate) async fn take(Limited { connection, kept, .. }: &Limited) -> Result<Self, Error> {
        if let Some(mut session) = kept.swap(None).filter(Self::is_fresh) {
            session.open = true;
            return Ok(session);
        }
        let acquired = connection.get_postgres_connection_pool().acquire().await;
        let connection = acquired.map_err(|error| Error::Transient(DbErr::Conn(of_driver(error))))?;
        let now = Instant::now();
        Ok(Self { connection, since: now, used: now, open: true })
    }

    /// For a statement.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// All went well: whoever comes next may have it, unless others wait for one at the pool.
    pub(crate) fn keep(mut self, Limited { connection, kept, .. }: &Limited) {
        self.open = false;
        self.used = Instant::now();
        let pool = connection.get_postgres_connection_pool();
        let wanted = pool.num_idle() == 0 && pool.size() >= pool.options().get_max_connections();
        if !wanted && !pool.is_closed() {
            drop(kept.swap(Some(self)));
        }
    }

    /// The server has answered, and holds nothing for it: its pool will see whether it is good for more.
    pub(crate) fn give_back(mut self) {
        self.open = false;
    }

    fn is_fresh(&self) -> bool {
        self.used.elapsed() < TEST_AFTER_IDLE && self.since.elapsed() < KEPT_MAX
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.open {
            self.connection.close_on_drop();
        }
    }
}

/// The session of the last statement that committed.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Option<Session>>);

impl Kept {
    /// What is kept instead; what was kept goes back to its pool when it is dropped.
    fn swap(&self, kept: Option<Session>) -> Option<Session> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), kept)
    }

    /// Gives back what is kept.
    pub(crate) fn clear(&self) {
        drop(self.swap(None));
    }
}

/// Runs a statement that commits itself.
pub(crate) async fn run(limited: &Limited, text: &'static str, arguments: Bound) -> Result<Vec<PgRow>, Error> {
    let arguments = arguments.map_err(|error| Error::from_driver(Driver::Encode(error)))?;
    let mut session = Session::take(limited).await?;
    // All rows are read, which includes the server's word that the commit is done.
    match limited.patience.statement(query_with(text, arguments).fetch_all(session.connection())).await {
        Some(Ok(rows)) => {
            session.keep(limited);
            Ok(rows)
        }
        Some(Err(error)) => {
            session.give_back();
            Err(Error::of_commit(DbErr::Query(of_driver(error))))
        }
        None => Err(Error::UnknownCommit(no_answer())),
    }
}
