//! Opens PostgreSQL: one owner's schema, with limits on every wait, and never where nothing can be written.
//!
//! Must hold: a session that can't write is refused when it is made, so that none stays in a pool when the reason is gone;
//! the time is the server's, read over and over, because orchestrators on several machines must agree on what is due.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use runtime::Clock;
use saga_defs::Timestamp;
use sea_orm::sqlx::{Executor, Row};
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr};
use tokio::time::Instant;

use crate::patience::{Limited, Patience, no_answer};
use crate::session::TEST_AFTER_IDLE;
use crate::{Error, of_driver};

/// Asked of every new session: one that was made while writing was forbidden would stay as it is.
const TAKES_WRITES: &str =
    "select not (pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean)";
/// How often the server's time is read.
const TIME_EVERY: Duration = Duration::from_secs(5);
/// An answer about the time that took longer is not gone by,
const TRAVEL_MAX: Duration = Duration::from_millis(250);
/// unless the last one is older than this.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Where an owner's tables are, and how long anything may take there. `Debug` shows no URL: it may hold a password.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// The owner's schema.
    pub schema: String,
    /// Sessions at most.
    pub connections: u32,
    /// What the sessions are called in `pg_stat_activity`.
    pub application: String,
    /// A statement that takes longer is cancelled by the server. Zero: never.
    pub statement_timeout: Duration,
    /// A statement that waits longer for a lock is cancelled by the server. Zero: never.
    pub lock_timeout: Duration,
    /// A session that is idle in a transaction for longer is ended by the server. Zero: never.
    pub idle_in_transaction: Duration,
    /// How long a caller waits for a session.
    pub acquire_timeout: Duration,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// The usual limits.
    #[must_use]
    pub fn new(url: impl Into<String>, schema: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: schema.into(),
            connections: 8,
            application: "bookend".to_owned(),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
            idle_in_transaction: Duration::from_secs(15),
            acquire_timeout: Duration::from_secs(3),
        }
    }

    /// Without limits on statements: building an index may take its time.
    #[must_use]
    pub fn for_migrations(self) -> Self {
        let never = Duration::ZERO;
        Self { statement_timeout: never, lock_timeout: never, idle_in_transaction: never, connections: 2, ..self }
    }
}

pub(crate) async fn connect(options: &PostgresOptions, patience: Patience) -> Result<DatabaseConnection, Error> {
    let name = &options.schema;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.len() > 48 || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) {
        return Err(Error::SchemaName(name.clone()));
    }
    let ms = |limit: Duration| limit.as_millis().to_string();
    let session = [
        ("search_path", name.clone()),
        ("statement_timeout", ms(options.statement_timeout)),
        ("lock_timeout", ms(options.lock_timeout)),
        ("idle_in_transaction_session_timeout", ms(options.idle_in_transaction)),
        // A plan is made once per session and kept: making it again for each set's size costs more than most statements
        // do. One that reads a whole table because it is still small would be wrong an hour later.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        ("enable_seqscan", "off".to_owned()),
        // Takes longer than the statements that are run here.
        ("jit", "off".to_owned()),
        // A server whose client died notices within this time instead of working on.
        ("client_connection_check_interval", "5000".to_owned()),
        ("tcp_user_timeout", "10000".to_owned()),
    ];
    let application = options.application.clone();
    let mut connect = ConnectOptions::new(&options.url);
    connect
        .max_connections(options.connections.max(2))
        .min_connections(0)
        .connect_timeout(options.acquire_timeout)
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire_if_idle_for(TEST_AFTER_IDLE)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_postgres_opts(move |options| options.application_name(&application).options(session.clone()))
        .map_sqlx_postgres_pool_opts(move |options| {
            let patience = patience.clone();
            let options = options.after_release(move |session, _| {
                let patience = patience.clone();
                Box::pin(async move { patience.still_there(session).await })
            });
            options.after_connect(|session, _| {
                Box::pin(async move {
                    let row = session.fetch_one(TAKES_WRITES).await?;
                    if row.try_get::<bool, _>(0)? {
                        return Ok(());
                    }
                    let why = "the server is a standby, or its sessions are read-only by default";
                    Err(sea_orm::sqlx::Error::Configuration(why.into()))
                })
            })
        });
    Ok(Database::connect(connect).await?)
}

/// The server's time: what it said last, and the time that has passed here since.
#[derive(Debug)]
pub(crate) struct ServerClock {
    read: Mutex<(Timestamp, Instant)>,
}

impl ServerClock {
    /// Reads the server's time now, and again every now and then for as long as somebody holds the clock.
    pub(crate) async fn start(connection: Limited) -> Result<Arc<Self>, Error> {
        let clock = Arc::new(Self { read: Mutex::new(read(&connection).await?.at()) });
        keep(Arc::downgrade(&clock), connection);
        Ok(clock)
    }

    /// Half of a long way is a poor guess; what was read before, and the time since, is a better one for a while.
    fn hear(&self, answer: &Answer) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.took <= TRAVEL_MAX || read.1.elapsed() > TIME_MAX {
            *read = answer.at();
        }
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let (said, at) = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        Timestamp(said.0.saturating_add(i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX)))
    }
}

#[allow(clippy::disallowed_methods, reason = "ends with the clock, which no task of a caller outlives")]
fn keep(clock: Weak<ServerClock>, connection: Limited) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TIME_EVERY).await;
            let Some(clock) = clock.upgrade() else { return };
            match read(&connection).await {
                Ok(answer) => clock.hear(&answer),
                Err(error) => tracing::debug!(error = %error, "the server's time could not be read"),
            }
        }
    });
}

/// What the server says of the time.
struct Answer {
    said: Timestamp,
    asked: Instant,
    took: Duration,
}

impl Answer {
    /// It was read about half-way between question and answer.
    fn at(&self) -> (Timestamp, Instant) {
        (self.said, self.asked + self.took / 2)
    }
}

async fn read(Limited { connection, patience, .. }: &Limited) -> Result<Answer, Error> {
    let driver = |error| Error::from(DbErr::Query(of_driver(error)));
    // The wait for a session is none of the way to the server.
    let mut session = connection.get_postgres_connection_pool().acquire().await.map_err(driver)?;
    let text = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
    let asked = Instant::now();
    let Some(row) = patience.statement(session.fetch_one(text)).await else {
        session.close_on_drop();
        return Err(Error::Transient(no_answer()));
    };
    let took = asked.elapsed();
    let said = row.and_then(|row| row.try_get(0)).map_err(driver)?;
    Ok(Answer { said: Timestamp(said), asked, took })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_is_not_guessed_from_a_slow_answer_unless_there_is_no_better() {
        let clock = ServerClock { read: Mutex::new((Timestamp(1_000_000), Instant::now())) };
        let answer = |said, took| Answer { said: Timestamp(said), asked: Instant::now() - took, took };
        clock.hear(&answer(2_000_000, TRAVEL_MAX));
        assert_eq!(clock.now(), Timestamp(2_125_000), "half of the way is over");
        clock.hear(&answer(9_000_000, TRAVEL_MAX * 2));
        assert_eq!(clock.now(), Timestamp(2_125_000));
        tokio::time::advance(TIME_MAX * 2).await;
        clock.hear(&answer(9_000_000, TRAVEL_MAX * 2));
        assert_eq!(clock.now(), Timestamp(9_250_000));
    }
}
