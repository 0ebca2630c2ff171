//! Opens databases and runs transactions that nothing can cancel.
//!
//! Not for tables: each owner has its own. Must hold: a transaction runs in a task that nobody aborts, because a
//! future dropped around BEGIN can leave a pooled session inside a transaction; on SQLite every writing
//! transaction is IMMEDIATE and there is one writer; statements are never logged, they may hold personal data.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use runtime::{Clock, SystemClock};
use saga_defs::Timestamp;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Busy, unreachable or out of connections: the same call may work later.
    #[error("the database is busy or out of reach")]
    Transient(#[source] DbErr),
    /// The statement or the data is wrong: the same call will fail again.
    #[error("the database refused a statement")]
    Bug(#[source] DbErr),
    /// COMMIT was sent and failed: the transaction may have happened all the same.
    #[error("a commit failed, and its fate is unknown")]
    UnknownCommit(#[source] DbErr),
    /// The task of a transaction ended without an answer: its fate is unknown.
    #[error("a transaction ended without an answer")]
    Unknown,
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if is_transient(&error) { Self::Transient(error) } else { Self::Bug(error) }
    }
}

impl Error {
    /// Whether the same call may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transient(_) | Self::UnknownCommit(_) | Self::Unknown => true,
            Self::Bug(_) => false,
        }
    }
}

fn is_transient(error: &DbErr) -> bool {
    let text = match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => return true,
        DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner)) => inner.to_string(),
        _ => return false,
    };
    // SQLITE_BUSY and SQLITE_LOCKED have no code in the portable error type.
    text.contains("database is locked") || text.contains("database table is locked") || text.contains("disk is full")
}

/// How often a transaction that met a busy database is tried.
const ATTEMPTS_MAX: u32 = 5;
/// How long a connection waits for the writer's lock.
const BUSY_TIMEOUT_MS: u64 = 5_000;
/// Connections that only read.
const READERS: u32 = 4;

/// One owner's database: a writer, readers, and the database's clock.
#[derive(Clone)]
pub struct Db {
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Db")
    }
}

/// What a transaction does: a future that borrows the transaction.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, DbErr>> + Send + 'a>>;

impl Db {
    /// Opens or creates a SQLite file: WAL, synchronous FULL, one writer, a few readers.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub async fn open_sqlite(path: &Path) -> Result<Self, Error> {
        let writer = connect_sqlite(path, 1).await?;
        let reader = connect_sqlite(path, READERS).await?;
        Ok(Self { writer, reader, clock: Arc::new(SystemClock) })
    }

    /// The same database with another clock, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The connection for reading. Statements that write must go through [`Db::transaction`] or [`Db::writer`].
    #[must_use]
    pub fn reader(&self) -> &DatabaseConnection {
        &self.reader
    }

    /// The connection for single writing statements.
    #[must_use]
    pub fn writer(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// The database's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs `work` in one transaction, in a task that nothing cancels; a busy database is tried again, whole.
    ///
    /// # Errors
    /// What `work` failed with; the transaction is rolled back then. [`Error::UnknownCommit`] and
    /// [`Error::Unknown`] leave open whether it happened, and are never tried again here.
    #[allow(clippy::disallowed_methods, reason = "shutdown must not abort a transaction either")]
    pub async fn transaction<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c DatabaseTransaction) -> Work<'c, T> + Send + Sync + 'static,
    {
        let writer = self.writer.clone();
        let task = tokio::spawn(async move {
            let mut attempt = 1;
            loop {
                match run(&writer, &work).await {
                    Err(Error::Transient(_)) if attempt < ATTEMPTS_MAX => attempt += 1,
                    result => return result,
                }
            }
        });
        task.await.map_err(|_| Error::Unknown)?
    }

    /// Closes all connections.
    pub async fn close(&self) {
        // An error on closing leaves nothing to do: WAL recovery runs at the next opening.
        let _ = self.reader.clone().close().await;
        let _ = self.writer.clone().close().await;
    }
}

async fn run<T, F>(writer: &DatabaseConnection, work: &F) -> Result<T, Error>
where
    F: for<'c> Fn(&'c DatabaseTransaction) -> Work<'c, T>,
{
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    let tx = writer.begin_with_options(options).await?;
    match work(&tx).await {
        Ok(value) => tx.commit().await.map(|()| value).map_err(Error::UnknownCommit),
        Err(error) => {
            tx.rollback().await?;
            Err(error.into())
        }
    }
}

async fn connect_sqlite(path: &Path, connections: u32) -> Result<DatabaseConnection, Error> {
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(10))
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_opts(|options| {
            options
                .pragma("journal_mode", "WAL")
                .pragma("synchronous", "FULL")
                .pragma("foreign_keys", "ON")
                .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
        });
    let connection = Database::connect(options).await?;
    connection.execute_unprepared("select 1").await?;
    Ok(connection)
}
