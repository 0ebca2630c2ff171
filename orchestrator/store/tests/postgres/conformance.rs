//! The store does what the port says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use db::{Db, PostgresOptions};
use saga_store::SqlStore;
use saga_store::conformance::{Fixture, ManualClock, Races, run_all};
use testkit::Services;

async fn put_to_every_case(store: fn(Db) -> SqlStore) -> Races {
    let schemas = Services::shared().schemas();
    let count = AtomicU32::new(0);
    run_all(async || {
        let schema = schemas.name(&format!("engine{}", count.fetch_add(1, Ordering::SeqCst)));
        let clock = Arc::new(ManualClock::default());
        let db = Db::open_postgres(&PostgresOptions::new(schemas.url(), schema)).await.unwrap();
        let db = db.with_clock(clock.clone());
        migrations::up::<migrations::Engine>(db.unlimited()).await.unwrap();
        let store = Arc::new(store(db));
        Fixture { rows: store.clone(), store, clock }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn postgres_does_what_the_port_says() {
    let races = put_to_every_case(SqlStore::new).await;
    println!("PostgreSQL: {races:?}");
}

/// A transition that is alone has a text of its own. What that does is what the text over sets does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn postgres_does_the_same_without_shortcuts() {
    let races = put_to_every_case(|db| SqlStore::new(db).without_shortcuts()).await;
    println!("PostgreSQL, longhand: {races:?}");
}
