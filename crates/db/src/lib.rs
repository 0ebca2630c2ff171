//! Opens databases and runs transactions that nothing can cancel.
//!
//! Not for tables: each owner has its own. Must hold: a transaction runs in a task that nobody aborts, because a
//! future dropped around BEGIN can leave a pooled session inside a transaction; on SQLite every writing
//! transaction is IMMEDIATE and there is one writer; statements are never logged, they may hold personal data.

mod error;

mod patience;

mod sqlite;

mod postgres;

mod session;

mod transaction;

pub mod sets;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use error::Error;
pub use patience::Limited;
use patience::Patience;
pub use postgres::PostgresOptions;
use runtime::{Clock, SystemClock};
use saga_defs::Timestamp;
use sea_orm::sqlx::Error as Driver;
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::{PgArguments, PgRow};
use sea_orm::sqlx::sqlite::SqliteRow;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, RuntimeErr, Statement};
pub use transaction::Transaction;

/// How often a transaction that met a busy database is tried.
const ATTEMPTS_MAX: u32 = 5;
/// Longest wait for connections to close.
const CLOSE: Duration = Duration::from_secs(5);
/// Connections that only read.
const READERS: u32 = 4;

/// One owner's database: a writer, readers, and the database's clock. On PostgreSQL all sessions are alike.
#[derive(Clone)]
pub struct Db {
    writer: Limited,
    reader: Limited,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Db")
    }
}

/// A statement's arguments, or why the driver could not bind one.
pub type Bound = Result<PgArguments, BoxDynError>;

/// What a transaction does: a future that borrows the transaction.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, DbErr>> + Send + 'a>>;

impl Db {
    /// Opens or creates a SQLite file: WAL, synchronous FULL, one writer, a few readers.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub async fn open_sqlite(path: &Path) -> Result<Self, Error> {
        let open = |connection| Limited::new(connection, Patience::default());
        let writer = open(sqlite::connect(path, 1).await?);
        let reader = open(sqlite::connect(path, READERS).await?);
        Ok(Self { writer, reader, clock: Arc::new(SystemClock) })
    }

    /// Opens a schema of a PostgreSQL database. The schema need not be there yet: migrations make it.
    ///
    /// # Errors
    /// When the server can't be reached or is a standby.
    pub async fn open_postgres(options: &PostgresOptions) -> Result<Self, Error> {
        let patience = Patience::with(options.statement_timeout, options.acquire_timeout);
        let pool = Limited::new(postgres::connect(options, patience.clone()).await?, patience);
        let clock = postgres::ServerClock::start(pool.clone()).await?;
        Ok(Self { writer: pool.clone(), reader: pool, clock })
    }

    /// Which dialect the database speaks: SQLite or PostgreSQL.
    #[must_use]
    pub fn backend(&self) -> DbBackend {
        self.writer.get_database_backend()
    }

    /// The same database with another clock, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The same database, telling `told` the text of every statement but begin and commit and what goes to the driver
    /// itself, for tests.
    #[must_use]
    pub fn telling(mut self, told: impl Fn(&str) + Clone + Send + Sync + 'static) -> Self {
        for limited in [&mut self.writer, &mut self.reader] {
            let told = told.clone();
            limited.told = Some(Arc::new(told.clone()));
            limited.connection.set_metric_callback(move |info| told(&info.statement.sql));
        }
        self
    }

    /// The connection for reading. Statements that write must go through [`Db::transaction`] or [`Db::writer`].
    #[must_use]
    pub fn reader(&self) -> &Limited {
        &self.reader
    }

    /// The connection for single writing statements.
    #[must_use]
    pub fn writer(&self) -> &Limited {
        &self.writer
    }

    /// The same without limits of this process: for migrations, which may take their time, and for tests.
    #[must_use]
    pub fn unlimited(&self) -> &DatabaseConnection {
        &self.writer.connection
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
        F: for<'c> Fn(&'c Transaction) -> Work<'c, T> + Send + Sync + 'static,
    {
        let writer = self.writer.clone();
        let task = tokio::spawn(async move {
            let mut attempt = 1;
            loop {
                let result = transaction::run(&writer, &work).await;
                writer.look(result.as_ref().err().and_then(Error::cause));
                if !is_worth_another(&result, attempt) {
                    return result;
                }
                attempt += 1;
            }
        });
        task.await.map_err(|_| Error::Unknown)?
    }

    /// Begins a transaction that its caller ends, for tests in which one is open while others run.
    ///
    /// # Errors
    /// When the database is busy or out of reach.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        Transaction::begin(&self.writer).await
    }

    /// Runs one statement of PostgreSQL that commits itself, in a task that nothing cancels, and returns its rows: the
    /// hot path's way around BEGIN. The driver's own arguments, because sea-query's arrays can't hold nulls.
    ///
    /// # Errors
    /// As [`Db::transaction`]. Never tried again here.
    ///
    /// # Panics
    /// On SQLite.
    #[allow(clippy::disallowed_methods, reason = "shutdown must not abort a commit either")]
    pub async fn postgres_statement(&self, text: &'static str, arguments: Bound) -> Result<Vec<PgRow>, Error> {
        let writer = self.writer.clone();
        let task = tokio::spawn(async move {
            let result = session::run(&writer, text, arguments).await;
            writer.look(result.as_ref().err().and_then(Error::cause));
            result
        });
        task.await.map_err(|_| Error::Unknown)?
    }

    /// Runs a script of SQLite that begins and commits a transaction of its own, in a task that nothing cancels: one message to
    /// SQLite's thread instead of one per statement. Behind its commit it answers with one row, whose first column is called
    /// `committed`, and which is returned; rows before that one are lost, and each would wake whoever waits. Its parameters are
    /// texts named `$1`, `$2` and so on; a busy database is tried again, whole.
    ///
    /// # Errors
    /// As [`Db::transaction`].
    ///
    /// # Panics
    /// On PostgreSQL.
    #[allow(clippy::disallowed_methods, reason = "shutdown must not abort a commit either")]
    pub async fn sqlite_script(&self, text: &'static str, parameters: Vec<String>) -> Result<SqliteRow, Error> {
        let pool = self.writer.connection.get_sqlite_connection_pool().clone();
        let arguments = sqlite::bound(parameters)?;
        let task = tokio::spawn(async move {
            let mut attempt = 1;
            loop {
                let result = sqlite::run(&pool, text, arguments.clone()).await;
                if !is_worth_another(&result, attempt) {
                    return result;
                }
                attempt += 1;
            }
        });
        task.await.map_err(|_| Error::Unknown)?
    }

    /// Whether the database takes writes: a transaction that changes no table, but could.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check_writable(&self) -> Result<(), Error> {
        let postgres = self.backend() == DbBackend::Postgres;
        self.transaction(move |tx| {
            Box::pin(async move {
                if postgres {
                    // A standby gives no numbers to transactions, and a server may forbid writing in other ways.
                    let asked = "select txid_current(), not current_setting('transaction_read_only')::boolean";
                    let row = tx.query_one_raw(Statement::from_string(DbBackend::Postgres, asked)).await?;
                    if !row.is_some_and(|row| row.try_get_by_index(1).unwrap_or(false)) {
                        return Err(DbErr::Conn(RuntimeErr::Internal("the server takes no writes".to_owned())));
                    }
                }
                Ok(())
            })
        })
        .await
    }

    /// Closes all connections. Waits no longer than some seconds for a server that says nothing.
    pub async fn close(&self) {
        for Limited { connection, kept, .. } in [self.reader.clone(), self.writer.clone()] {
            kept.clear();
            // An error on closing leaves nothing to do: WAL recovery runs at the next opening.
            let _ = tokio::time::timeout(CLOSE, connection.close()).await;
        }
    }
}

/// Whether what was tried so often met a busy database, and is to be tried again.
fn is_worth_another<T>(result: &Result<T, Error>, attempt: u32) -> bool {
    match result {
        // Whoever got no session, or no lock, has waited for it already.
        Err(Error::Transient(DbErr::ConnectionAcquire(_) | DbErr::Conn(_))) => false,
        Err(error @ Error::Transient(cause)) => {
            !error.is_blocked() && !patience::is_silence(cause) && attempt < ATTEMPTS_MAX
        }
        Ok(_) | Err(Error::Bug(_) | Error::UnknownCommit(_) | Error::Unknown | Error::SchemaName(_)) => false,
    }
}

/// What the driver says, as the layer above says it.
fn of_driver(error: Driver) -> RuntimeErr {
    RuntimeErr::SqlxError(Arc::new(error))
}
