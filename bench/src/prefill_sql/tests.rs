//! Copies are like their originals, on both databases.

use db::PostgresOptions;
use runtime::Tasks;
use saga_core::Status;
use saga_store::{Filter, SqlStore, Store};
use testkit::Services;

use super::*;
use crate::entry::entry;
use crate::job::{STEPS, doubled};
use crate::world::{Setup, in_process};

const COPIES: u64 = 30;

async fn number(db: &Db, text: &str) -> i64 {
    let rows = asked(db, &format!("select (select {text}) as found")).await.unwrap();
    rows[0].try_get("", "found").unwrap()
}

async fn expect_copies_like_originals(owners: Owners) {
    let tasks = Tasks::new();
    let setup = Setup { http: false, batch: true, workers: None };
    let engine = in_process(&owners, &tasks, setup).await.unwrap();
    let entry = entry(engine, setup, &tasks).await.unwrap();
    fill(&owners, &*entry, COPIES).await.unwrap();

    let all = i64::try_from(COPIES + ORIGINALS).unwrap();
    for (table, rows) in [("sagas", 1), ("history", 5), ("start_keys", 1), ("saga_inputs", 1)] {
        assert_eq!(number(&owners.engine, &format!("count(*) from {table}")).await, all * rows, "{table}");
    }
    let kinds = "count(distinct length(state)) from sagas";
    let of_originals = "count(distinct length(state)) from (select state from sagas order by id desc limit 8) as o";
    assert_eq!(number(&owners.engine, kinds).await, number(&owners.engine, of_originals).await);
    for participant in &owners.participants {
        for table in ["inbox", "effects"] {
            assert_eq!(number(participant, &format!("count(distinct saga_id) from {table}")).await, all, "{table}");
        }
        assert_eq!(doubled(participant.reader()).await.unwrap(), 0);
    }

    let store = SqlStore::new(owners.engine.clone());
    let filter = Filter { tenant: "bench".to_owned(), status: Some(Status::Completed), ..Filter::default() };
    let listed = store.list(&filter, 100).await.unwrap();
    assert_eq!(listed.len() as u64, COPIES + ORIGINALS, "all have ended");
    assert!(listed.iter().all(|saga| saga.header.id.get_version_num() == 7));
    assert!(listed.windows(2).all(|two| two[0].header.created_at >= two[1].header.created_at), "as their ids say");
    assert!(number(&owners.engine, "max(ended_at) - min(ended_at) from sagas").await >= 29 * GAP_US);

    entry.run(1, false).await.unwrap();
    for table in ["filled", "filled_sagas", "filled_history"] {
        assert!(asked(&owners.engine, &format!("select 1 from {table}")).await.is_err(), "{table} is left");
    }
    tasks.shutdown(END_MAX).await;
}

#[tokio::test]
async fn copies_are_like_their_originals_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let open = async |name: &str| Db::open_sqlite(&dir.path().join(name)).await.unwrap();
    let mut participants = Vec::new();
    for step in STEPS {
        participants.push(open(step).await);
    }
    expect_copies_like_originals(Owners { engine: open("engine").await, participants }).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn copies_are_like_their_originals_on_postgres() {
    let schemas = Services::shared().schemas();
    let open =
        async |name: &str| Db::open_postgres(&PostgresOptions::new(schemas.url(), schemas.name(name))).await.unwrap();
    let mut participants = Vec::new();
    for step in STEPS {
        participants.push(open(step).await);
    }
    expect_copies_like_originals(Owners { engine: open("engine").await, participants }).await;
}
