//! How long this process waits for a server's answer: a server that is gone says nothing, and neither does a network that
//! swallows everything.
//!
//! Not for how long a server works: it has limits of its own, and all of them are shorter. Must hold: every statement is waited
//! for through here but those of migrations; a session that owed an answer is never used again, and keeps no place in its pool.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sqlx::Connection as _;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{self, Error as Driver};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};

/// A statement is waited for this many times as long as the server may work at it.
const TIMES: u32 = 2;
/// A transaction is waited for as long as this many statements.
const STATEMENTS: u32 = 3;
/// How long a session has for a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How long to wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// For one statement; none where an answer always comes, or may take its time.
    limit: Option<Duration>,
}

impl Patience {
    /// With a server that works at a statement for `statement_timeout` at most; zero: for ever.
    pub(crate) fn with(statement_timeout: Duration) -> Self {
        Self { limit: (!statement_timeout.is_zero()).then(|| statement_timeout * TIMES) }
    }

    /// Waits for a statement. None when no answer came.
    pub(crate) async fn statement<T>(self, work: impl Future<Output = T>) -> Option<T> {
        wait(self.limit, work).await
    }

    /// Waits for a transaction.
    pub(crate) async fn transaction<T>(self, work: impl Future<Output = T>) -> Option<T> {
        wait(self.limit.map(|limit| limit * STATEMENTS), work).await
    }
}

async fn wait<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    let Some(limit) = limit else { return Some(work.await) };
    let answer = tokio::time::timeout(limit, work).await.ok();
    if answer.is_none() {
        tracing::warn!(limit_ms = limit.as_millis(), "the database gave no answer");
    }
    answer
}

/// Whether a session that comes back to its pool may stay there. The pool asks for a sign of life, too, but waits for it without a
/// limit, and the session would keep its place for as long.
///
/// # Errors
/// When it gave none.
pub(crate) async fn still_there(session: &mut PgConnection) -> Result<bool, Driver> {
    match tokio::time::timeout(SIGN_OF_LIFE, session.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(silence()),
    }
}

/// The driver's error of an answer that did not come.
fn silence() -> Driver {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database gave no answer"))
}

/// The error of an answer that did not come.
pub(crate) fn no_answer() -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(silence())))
}

/// A connection whose every statement is waited for with patience.
#[derive(Clone, Debug)]
pub struct Limited {
    pub(crate) connection: DatabaseConnection,
    pub(crate) patience: Patience,
}

impl Limited {
    async fn wait<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        self.patience.statement(statement).await.unwrap_or_else(|| Err(no_answer()))
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
