//! Opens SQLite files: WAL, synchronous FULL, one writer, a few readers.

use std::path::Path;
use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};

use crate::Error;

/// How long a connection waits for the writer's lock.
const BUSY_TIMEOUT_MS: u64 = 5_000;
/// Rows that SQLite's thread answers with before it waits for them to be taken: those of a whole batch.
const ROWS_AHEAD: usize = 512;

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
                .pragma("foreign_keys", "ON")
                .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
                .row_buffer_size(ROWS_AHEAD)
        });
    let connection = Database::connect(options).await?;
    connection.execute_unprepared("select 1").await?;
    Ok(connection)
}
