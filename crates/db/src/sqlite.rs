//! Opens SQLite files: WAL, synchronous FULL, one writer, a few readers.

use std::path::Path;
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteArguments, SqliteRow};
use sea_orm::sqlx::{Arguments as _, Column as _, Error as Driver, Row as _, SqlitePool, query_with, raw_sql};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr};

use crate::{Error, of_driver};

/// How long a connection waits for the writer's lock.
const BUSY_TIMEOUT_MS: u64 = 5_000;
/// Pages of the log after which it is written back, 16 MB: a saga's pages change five times within a moment, and are written
/// back once.
const CHECKPOINT_PAGES: &str = "4000";
/// Rows that SQLite's thread answers with before it waits for them to be taken: those of a whole batch.
const ROWS_AHEAD: usize = 512;

/// The column of the row that a script answers with behind its commit.
const COMMITTED: &str = "committed";

pub(crate) async fn connect(path: &Path, connections: u32) -> Result<DatabaseConnection, Error> {
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(10))
        // There is no server that could have gone away.
        .test_before_acquire(false)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_opts(|options| {
            options
                .pragma("journal_mode", "WAL")
                .pragma("synchronous", "FULL")
                // What a script notes for itself is nothing for a file.
                .pragma("temp_store", "MEMORY")
                .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
                .pragma("foreign_keys", "ON")
                .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
                .row_buffer_size(ROWS_AHEAD)
        });
    let connection = Database::connect(options).await?;
    connection.execute_unprepared("select 1").await?;
    Ok(connection)
}

/// The arguments of a script, which it takes without copying them.
pub(crate) fn bound(parameters: Vec<String>) -> Result<SqliteArguments, Error> {
    let mut arguments = SqliteArguments::default();
    for parameter in parameters {
        arguments.add(parameter).map_err(|error| Error::from_driver(Driver::Encode(error)))?;
    }
    Ok(arguments)
}

/// Runs a script that begins a transaction and commits it, and then answers with a row: when SQLite's thread ends without a
/// word, the rows seem to be over, too.
pub(crate) async fn run(pool: &SqlitePool, text: &'static str, arguments: SqliteArguments) -> Result<SqliteRow, Error> {
    let mut session = pool.acquire().await.map_err(|error| Error::Transient(DbErr::Conn(of_driver(error))))?;
    let error = match query_with(text, arguments).fetch_all(&mut *session).await {
        Ok(mut rows) => match rows.pop() {
            Some(last) if last.column(0).name() == COMMITTED => return Ok(last),
            Some(_) | None => return Err(Error::UnknownCommit(DbErr::Query(of_driver(Driver::WorkerCrashed)))),
        },
        Err(error) => DbErr::Query(of_driver(error)),
    };
    // Where there is a transaction to roll back, it was not committed.
    match raw_sql("rollback").execute(&mut *session).await {
        Ok(_) => Err(error.into()),
        Err(_) => Err(Error::of_commit(error)),
    }
}
