//! How long this process waits for a server's answer: a server that is gone says nothing, and neither does a network that
//! swallows everything.
//!
//! Not for how long a server works: it has limits of its own, and all of them are shorter. Must hold: every statement is waited
//! for through here but those of migrations; a session that owed an answer is never used again, and keeps no place in its pool,
//! unless it has more to send than the system takes: then it keeps it until the system gives up.

use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sqlx::Connection as _;
use sea_orm::sqlx::Error as Driver;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use tokio::time::Instant;

use crate::of_driver;
use crate::session::Kept;

/// A statement is waited for this many times as long as the server may work at it.
const TIMES: u32 = 2;
/// How long after an answer did not come no session stays that comes back.
const DOUBT: Duration = Duration::from_secs(10);
/// How long a session has for a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How long to wait. Clones share what they met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    /// For one statement; none where an answer always comes, or may take its time.
    limit: Option<Duration>,
    /// How long a session is waited for before it.
    acquire: Duration,
    /// When it last ran out.
    lost: Arc<Mutex<Option<Instant>>>,
}

impl Patience {
    /// With a server that works at a statement for `statement_timeout` at most, zero: for ever, and a pool that gives a session
    /// within `acquire`, or none.
    pub(crate) fn with(statement_timeout: Duration, acquire: Duration) -> Self {
        let limit = (!statement_timeout.is_zero()).then(|| statement_timeout * TIMES);
        Self { limit, acquire, lost: Arc::default() }
    }

    /// Waits for a statement. None when no answer came.
    pub(crate) async fn statement<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.wait(self.limit, work).await
    }

    /// Waits for a statement and, before it, for a session: a pool that is busy is no silent server.
    pub(crate) async fn pooled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.wait(self.limit.map(|limit| limit + self.acquire), work).await
    }

    async fn wait<T>(&self, limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
        let Some(limit) = limit else { return Some(work.await) };
        let mut work = pin!(work);
        let answer = tokio::time::timeout(limit, work.as_mut()).await.ok();
        if answer.is_none() {
            // Before `work` gives its session back.
            *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            tracing::warn!(limit_ms = limit.as_millis(), "the database gave no answer");
        }
        answer
    }

    /// Whether a session that comes back to its pool may stay there. The pool asks for a sign of life, too, but waits for it without
    /// a limit, and the session would keep its place for as long. Soon after an answer did not come none stays: it is as likely to be
    /// silent as the one that was, or still owes the answer.
    ///
    /// # Errors
    /// When it may not.
    pub(crate) async fn still_there(&self, session: &mut PgConnection) -> Result<bool, Driver> {
        let lost = *self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_some_and(|lost| lost.elapsed() < DOUBT) {
            return Err(silence());
        }
        match tokio::time::timeout(SIGN_OF_LIFE, session.ping()).await {
            Ok(answer) => answer.map(|()| true),
            Err(_) => Err(silence()),
        }
    }
}

/// The driver's error of an answer that did not come.
fn silence() -> Driver {
    Driver::Io(std::io::Error::new(ErrorKind::TimedOut, "the database gave no answer"))
}

/// The error of an answer that did not come.
pub(crate) fn no_answer() -> DbErr {
    DbErr::Query(of_driver(silence()))
}

/// Whether an error comes of nobody's having answered.
pub(crate) fn is_silence(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) => true,
        DbErr::Query(RuntimeErr::SqlxError(inner)) | DbErr::Conn(RuntimeErr::SqlxError(inner)) => match &**inner {
            Driver::PoolTimedOut => true,
            Driver::Io(error) => error.kind() == ErrorKind::TimedOut,
            _ => false,
        },
        _ => false,
    }
}

/// Told the text of every statement.
pub(crate) type Told = Arc<dyn Fn(&str) + Send + Sync>;

/// A connection whose every statement is waited for with patience.
#[derive(Clone)]
pub struct Limited {
    pub(crate) connection: DatabaseConnection,
    pub(crate) patience: Patience,
    pub(crate) kept: Arc<Kept>,
    /// Told what a session's own transactions ask; what goes through the connection it tells by itself.
    pub(crate) told: Option<Told>,
}

impl fmt::Debug for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Limited {
    pub(crate) fn new(connection: DatabaseConnection, patience: Patience) -> Self {
        Self { connection, patience, kept: Arc::default(), told: None }
    }

    async fn wait<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        let answer = self.patience.pooled(statement).await.unwrap_or_else(|| Err(no_answer()));
        self.look(answer.as_ref().err());
        answer
    }

    /// Closes the sessions that nobody uses, when one gave no answer, or none was to be had: they may be as silent, and each would be
    /// waited for by itself.
    pub(crate) fn look(&self, error: Option<&DbErr>) {
        if self.get_database_backend() != DbBackend::Postgres || !error.is_some_and(is_silence) {
            return;
        }
        self.kept.clear();
        let pool = self.connection.get_postgres_connection_pool();
        for mut session in std::iter::from_fn(|| pool.try_acquire()).take(pool.num_idle()) {
            session.close_on_drop();
        }
    }
}

#[async_trait]
impl ConnectionTrait for Limited {
    fn get_database_backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.wait(self.connection.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, text: &str) -> Result<ExecResult, DbErr> {
        self.wait(self.connection.execute_unprepared(text)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.wait(self.connection.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.wait(self.connection.query_all_raw(statement)).await
    }
}
