//! A server that says nothing: no answer comes, and no connection breaks.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::time::Duration;

use db::{Db, Error, PostgresOptions};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Order, Query};
use sea_orm::sqlx::Arguments as _;
use sea_orm::sqlx::postgres::PgArguments;
use testkit::Services;
use testkit::proxy::{Cut, Plan, Proxy};
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

/// Whether all sessions but those that are kept are in their pool.
fn all_back(db: &Db, kept: usize) -> Result<(), u32> {
    let pool = db.unlimited().get_postgres_connection_pool();
    if pool.num_idle() + kept == pool.size() as usize { Ok(()) } else { Err(pool.size()) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn an_answer_that_does_not_come_is_waited_for_in_vain_only_so_long_and_costs_no_session() {
    let services = Services::shared();
    let schemas = services.schemas();
    let proxy = Proxy::before(schemas.url()).await.unwrap();
    let options = PostgresOptions {
        connections: 3,
        statement_timeout: STATEMENT,
        acquire_timeout: Duration::from_secs(2),
        ..PostgresOptions::new(proxy.url(schemas.url()), schemas.name("owner"))
    };
    let db = Db::open_postgres(&options).await.unwrap();
    // The rounds lose more sessions than the pool has.
    for round in 0..3 {
        let ready = async || {
            let (one, two) = tokio::join!(transaction(&db), reading(&db));
            one.and(two)
        };
        testkit::eventually(LIMIT, "all sessions are there", ready).await;
        // None is just coming back: there it would be given up before it is used. One is kept.
        testkit::eventually(LIMIT, "all sessions are back", async || all_back(&db, 1)).await;
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
async fn a_session_is_kept_from_nobody_who_waits_for_one() {
    let services = Services::shared();
    let schemas = services.schemas();
    let options = PostgresOptions {
        connections: 2,
        acquire_timeout: Duration::from_secs(1),
        ..PostgresOptions::new(schemas.url(), schemas.name("owner"))
    };
    let db = Db::open_postgres(&options).await.unwrap();
    let _other = db.begin().await.unwrap();
    for _ in 0..2 {
        statement(&db).await.unwrap();
        reading(&db).await.unwrap();
        transaction(&db).await.unwrap();
        reading(&db).await.unwrap();
    }
}

/// Writes a row in a transaction.
async fn note(db: &Db, row: i64) -> Result<(), Error> {
    let insert = Query::insert().into_table("notes").columns(["row"]).values_panic([row.into()]).to_owned();
    db.transaction(move |tx| {
        let insert = insert.clone();
        Box::pin(async move { tx.execute(&insert).await.map(drop) })
    })
    .await
}

/// Writes a row in a statement that commits itself.
async fn note_alone(db: &Db, row: i64) -> Result<(), Error> {
    let mut arguments = PgArguments::default();
    arguments.add(row).unwrap();
    db.postgres_statement("insert into notes values ($1)", Ok(arguments)).await.map(drop)
}

/// The rows that somebody else sees.
async fn notes(other: &Db) -> Vec<i64> {
    let select = Query::select().column("row").from("notes").order_by("row", Order::Asc).to_owned();
    let rows = other.reader().query_all(&select).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn no_later_transaction_is_part_of_one_whose_answer_came_too_late() {
    let services = Services::shared();
    let schemas = services.schemas();
    let proxy = Proxy::before(schemas.url()).await.unwrap();
    let straight = PostgresOptions::new(schemas.url(), schemas.name("owner"));
    let other = Db::open_postgres(&straight).await.unwrap();
    let schema = schemas.name("owner");
    let create = format!("create schema if not exists {schema}; create table {schema}.notes (row bigint primary key)");
    other.unlimited().execute_unprepared(&create).await.unwrap();
    let held = PostgresOptions { url: proxy.url(schemas.url()), statement_timeout: STATEMENT, ..straight };
    let db = Db::open_postgres(&held).await.unwrap();
    let mut there = Vec::new();
    for (row, late) in (1..).zip(["BEGIN", "INSERT", "COMMIT"]) {
        // The one that is kept is the one that will be late.
        testkit::eventually(LIMIT, "there is a session", async || transaction(&db).await).await;
        proxy.plan(Plan::next(late, Cut::Held));
        let said = note(&db, row).await;
        assert_eq!(proxy.bites(), 1, "{late}: {said:?}");
        if late == "COMMIT" {
            assert!(matches!(said, Err(Error::UnknownCommit(_))), "{late}: {said:?}");
            there.push(row);
        } else {
            assert!(matches!(said, Err(Error::Transient(_))), "{late}: {said:?}");
        }
        proxy.unfreeze();
        // A statement by itself is lost where there is a transaction around it.
        testkit::eventually(LIMIT, "all sessions are back", async || all_back(&db, 0)).await;
        testkit::eventually(LIMIT, "it goes on", async || note_alone(&db, row + 100).await).await;
        there.push(row + 100);
        there.sort_unstable();
        assert_eq!(notes(&other).await, there, "{late}");
    }
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
