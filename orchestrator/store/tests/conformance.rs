//! Both stores do what the port says.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are as tests are")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use db::Db;
use saga_store::conformance::{Fixture, ManualClock, run_all};
use saga_store::{MemoryStore, SqlStore};
use sea_orm_migration::MigratorTrait;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_does_what_the_port_says() {
    put_to_every_case("SQLite", SqlStore::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_does_so_without_shortcuts() {
    put_to_every_case("SQLite, longhand", |db| SqlStore::new(db).without_shortcuts()).await;
}

async fn put_to_every_case(name: &str, store: impl Fn(Db) -> SqlStore) {
    let dir = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    let races = run_all(async || {
        let path = dir.path().join(format!("{}.db", count.fetch_add(1, Ordering::SeqCst)));
        let clock = Arc::new(ManualClock::default());
        let db = Db::open_sqlite(&path).await.unwrap().with_clock(clock.clone());
        migrations::Engine::up(db.unlimited(), None).await.unwrap();
        let store = Arc::new(store(db));
        Fixture { rows: store.clone(), store, clock }
    })
    .await;
    println!("{name}: {races:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_does_what_the_port_says() {
    let races = run_all(async || {
        let clock = Arc::new(ManualClock::default());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        Fixture { rows: store.clone(), store, clock }
    })
    .await;
    println!("memory: {races:?}");
}
