//! One transaction, from its beginning to its end.
//!
//! On SQLite it is the driver's. On PostgreSQL it is a session's, which is kept for the next one: the driver would give it back to
//! its pool. Must hold: what ends without the server's word ends with its session, so that no later transaction is part of it.

use async_trait::async_trait;
use sea_orm::sqlx::postgres::PgQueryResult;
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{AssertSqlSafe, Error as Driver, Executor as _, Postgres, query_with};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait, Values,
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

use crate::patience::{Limited, no_answer};
use crate::session::Session;
use crate::{Error, Work, of_driver};

/// A transaction under way: a connection for its statements.
#[derive(Debug)]
pub struct Transaction(Inner);

#[derive(Debug)]
enum Inner {
    Sqlite(DatabaseTransaction),
    Postgres(Open),
}

/// A transaction that a session is inside of.
#[derive(Debug)]
struct Open {
    /// None once an answer did not come.
    session: Mutex<Option<Session>>,
    limited: Limited,
}

/// Runs `work` in a transaction.
pub(crate) async fn run<T, F>(limited: &Limited, work: &F) -> Result<T, Error>
where
    F: for<'c> Fn(&'c Transaction) -> Work<'c, T>,
{
    let tx = Transaction::begin(limited).await?;
    match work(&tx).await {
        Ok(value) => tx.commit().await.map(|()| value),
        Err(error) => {
            tx.rollback().await;
            Err(error.into())
        }
    }
}

impl Transaction {
    pub(crate) async fn begin(limited: &Limited) -> Result<Self, Error> {
        if limited.get_database_backend() == DbBackend::Postgres {
            return Ok(Self(Inner::Postgres(Open::begin(limited).await?)));
        }
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode, ..Default::default() };
        Ok(Self(Inner::Sqlite(limited.connection.begin_with_options(options).await?)))
    }

    /// Makes it last.
    ///
    /// # Errors
    /// As [`Db::transaction`](crate::Db::transaction).
    pub async fn commit(self) -> Result<(), Error> {
        match self.0 {
            Inner::Sqlite(tx) => tx.commit().await.map_err(Error::of_commit),
            Inner::Postgres(open) => open.commit().await,
        }
    }

    /// A rollback that fails has lost its session, and the transaction with it.
    async fn rollback(self) {
        match self.0 {
            Inner::Sqlite(tx) => drop(tx.rollback().await),
            Inner::Postgres(open) => open.rollback().await,
        }
    }
}

impl Open {
    async fn begin(limited: &Limited) -> Result<Self, Error> {
        let mut session = Session::take(limited).await?;
        let begun = limited.patience.statement(session.connection().execute("BEGIN")).await;
        match begun {
            Some(Ok(_)) => Ok(Self { session: Mutex::new(Some(session)), limited: limited.clone() }),
            Some(Err(error)) => Err(DbErr::Exec(of_driver(error)).into()),
            None => Err(Error::Transient(no_answer())),
        }
    }

    async fn commit(self) -> Result<(), Error> {
        let Some(mut session) = self.session.into_inner() else { return Err(Error::Transient(no_answer())) };
        match self.limited.patience.statement(session.connection().execute("COMMIT")).await {
            Some(Ok(_)) => {
                session.keep(&self.limited);
                Ok(())
            }
            Some(Err(error)) => Err(Error::of_commit(DbErr::Exec(of_driver(error)))),
            None => Err(Error::UnknownCommit(no_answer())),
        }
    }

    async fn rollback(self) {
        let Some(mut session) = self.session.into_inner() else { return };
        if let Some(Ok(_)) = self.limited.patience.statement(session.connection().execute("ROLLBACK")).await {
            session.give_back();
        }
    }

    /// Runs a query, and waits for its rows.
    async fn rows(&self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.tell(statement);
        let held = &mut *self.session.lock().await;
        let session = held.as_mut().ok_or_else(no_answer)?;
        let answer = self.limited.patience.statement(query(statement).fetch_all(session.connection())).await;
        let rows = heard(held, answer)?.map_err(|error| DbErr::Query(of_driver(error)))?;
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }

    /// Runs a statement that is not asked for rows.
    async fn execute(&self, statement: &Statement) -> Result<ExecResult, DbErr> {
        self.tell(statement);
        let held = &mut *self.session.lock().await;
        let session = held.as_mut().ok_or_else(no_answer)?;
        let answer = self.limited.patience.statement(query(statement).execute(session.connection())).await;
        done(heard(held, answer)?)
    }

    /// The same of a text that may be several statements.
    async fn execute_unprepared(&self, text: &str) -> Result<ExecResult, DbErr> {
        let held = &mut *self.session.lock().await;
        let session = held.as_mut().ok_or_else(no_answer)?;
        let text = AssertSqlSafe(text.to_owned());
        let answer = self.limited.patience.statement(session.connection().execute(text)).await;
        done(heard(held, answer)?)
    }

    fn tell(&self, statement: &Statement) {
        if let Some(told) = &self.limited.told {
            told(&statement.sql);
        }
    }
}

/// The answer to a statement; a session that gave none is given up.
fn heard<T>(held: &mut Option<Session>, answer: Option<Result<T, Driver>>) -> Result<Result<T, Driver>, DbErr> {
    answer.ok_or_else(|| {
        *held = None;
        no_answer()
    })
}

fn done(answer: Result<PgQueryResult, Driver>) -> Result<ExecResult, DbErr> {
    answer.map(ExecResult::from).map_err(|error| DbErr::Exec(of_driver(error)))
}

fn query(statement: &Statement) -> Query<'_, Postgres, SqlxValues> {
    let values = statement.values.clone().unwrap_or_else(|| Values(Vec::new()));
    // The text is sea-query's, or that of somebody who writes to his own tables.
    query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            Inner::Sqlite(tx) => tx.get_database_backend(),
            Inner::Postgres(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Inner::Sqlite(tx) => tx.execute_raw(statement).await,
            Inner::Postgres(open) => open.execute(&statement).await,
        }
    }

    async fn execute_unprepared(&self, text: &str) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Inner::Sqlite(tx) => tx.execute_unprepared(text).await,
            Inner::Postgres(open) => open.execute_unprepared(text).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &self.0 {
            Inner::Sqlite(tx) => tx.query_one_raw(statement).await,
            Inner::Postgres(open) => Ok(open.rows(&statement).await?.into_iter().next()),
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.0 {
            Inner::Sqlite(tx) => tx.query_all_raw(statement).await,
            Inner::Postgres(open) => open.rows(&statement).await,
        }
    }
}
