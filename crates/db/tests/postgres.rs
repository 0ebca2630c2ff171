//! A server that says nothing: no answer comes, and no connection breaks.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::time::Duration;

use db::{Db, Error, PostgresOptions};
use sea_orm::ConnectionTrait as _;
use sea_orm::sqlx::Arguments as _;
use sea_orm::sqlx::postgres::PgArguments;
use testkit::Services;
use testkit::proxy::Proxy;
use tokio::time::Instant;

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the server may work at a statement.
const STATEMENT: Duration = Duration::from_millis(200);

async fn statement(db: &Db) -> Result<(), Error> {
    let mut arguments = PgArguments::default();
    arguments.add(1_i32).unwrap();
    db.postgres_statement("select $1", Ok(arguments)).await.map(drop)
}

async fn transaction(db: &Db) -> Result<(), Error> {
    db.transaction(|tx| Box::pin(async move { tx.execute_unprepared("select 1").await.map(drop) })).await
}

async fn reading(db: &Db) -> Result<(), Error> {
    db.reader().execute_unprepared("select 1").await.map(drop).map_err(Error::from)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn an_answer_that_does_not_come_is_waited_for_in_vain_only_so_long_and_costs_no_session() {
    let services = Services::shared();
    let schemas = services.schemas();
    let proxy = Proxy::before(schemas.url()).await.unwrap();
    let options = PostgresOptions {
        connections: 2,
        statement_timeout: STATEMENT,
        acquire_timeout: Duration::from_secs(2),
        ..PostgresOptions::new(proxy.url(schemas.url()), schemas.name("owner"))
    };
    let db = Db::open_postgres(&options).await.unwrap();
    // Each round loses more sessions than the pool has.
    for round in 0..3 {
        let ready = async || {
            let (one, two) = tokio::join!(transaction(&db), reading(&db));
            one.and(two)
        };
        testkit::eventually(LIMIT, "all sessions are there", ready).await;
        // None is just coming back: there it would be given up before it is used.
        let pool = db.unlimited().get_postgres_connection_pool();
        let idle = async || if pool.num_idle() == pool.size() as usize { Ok(()) } else { Err(pool.size()) };
        testkit::eventually(LIMIT, "all sessions are back", idle).await;
        proxy.freeze();
        let began = Instant::now();
        let (committed, read) = tokio::join!(statement(&db), reading(&db));
        // Soon after a loss no session stays, so that later rounds have none to send anything on.
        let unknown = matches!(committed, Err(Error::UnknownCommit(_)));
        assert!(unknown || (round > 0 && committed.as_ref().is_err_and(Error::is_transient)), "{round}: {committed:?}");
        assert!(matches!(read, Err(Error::Transient(_))), "round {round}: {read:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "round {round}: {:?}", began.elapsed());
        let begun = transaction(&db).await.unwrap_err();
        assert!(begun.is_transient(), "round {round}: {begun:?}");
        proxy.unfreeze();
    }
    testkit::eventually(LIMIT, "it goes on", async || statement(&db).await).await;
    proxy.freeze();
    assert!(tokio::time::timeout(Duration::from_secs(15), db.close()).await.is_ok(), "nor is the end waited for");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn sessions_that_fell_silent_while_nobody_used_them_are_not_waited_for_one_by_one() {
    const SESSIONS: u32 = 6;
    let acquire_timeout = Duration::from_secs(1);
    let services = Services::shared();
    let schemas = services.schemas();
    let proxy = Proxy::before(schemas.url()).await.unwrap();
    let options = PostgresOptions {
        connections: SESSIONS,
        acquire_timeout,
        ..PostgresOptions::new(proxy.url(schemas.url()), schemas.name("owner"))
    };
    let db = Db::open_postgres(&options).await.unwrap();
    let pool = db.unlimited().get_postgres_connection_pool();
    let all = std::iter::repeat_with(|| pool.acquire()).take(SESSIONS as usize);
    drop(futures_util::future::try_join_all(all).await.unwrap());
    let idle = async || if pool.num_idle() == SESSIONS as usize { Ok(()) } else { Err(pool.num_idle()) };
    testkit::eventually(LIMIT, "all sessions are back", idle).await;
    // A session is tested before it is used when it was idle for so long.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    proxy.swallow();
    let began = Instant::now();
    testkit::eventually(LIMIT, "it goes on", async || transaction(&db).await).await;
    assert!(began.elapsed() < acquire_timeout * SESSIONS / 2, "{:?}", began.elapsed());
}
