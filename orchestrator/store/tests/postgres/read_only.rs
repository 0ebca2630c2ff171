//! A server that forbids writing: its sessions are not kept, and nobody is told that all is well.

use db::{Db, PostgresOptions};
use saga_store::{SqlStore, Store};
use sea_orm::ConnectionTrait;

use crate::world::World;

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_session_that_is_read_only_by_default_is_refused() {
    let world = World::new().await;
    let url = format!("{}?options=-c%20default_transaction_read_only%3Don", world.schemas.url());
    let refused = Db::open_postgres(&PostgresOptions::new(url, world.schema())).await.unwrap_err();
    assert!(refused.is_transient(), "it may be allowed again: {refused:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_store_that_can_not_be_written_says_so() {
    let world = World::new().await;
    let options = PostgresOptions { connections: 2, ..PostgresOptions::new(world.schemas.url(), world.schema()) };
    let db = Db::open_postgres(&options).await.unwrap();
    let store = SqlStore::new(db.clone());
    store.check_writable().await.unwrap();
    on_both_sessions(&db, "set default_transaction_read_only = on").await;
    let error = store.check_writable().await.unwrap_err();
    assert!(format!("{error:?}").contains("takes no writes"), "{error:?}");
    on_both_sessions(&db, "set default_transaction_read_only = off").await;
    store.check_writable().await.unwrap();
}

async fn on_both_sessions(db: &Db, statement: &str) {
    let (one, other) = (db.begin().await.unwrap(), db.begin().await.unwrap());
    for session in [one, other] {
        session.execute_unprepared(statement).await.unwrap();
        session.commit().await.unwrap();
    }
}
