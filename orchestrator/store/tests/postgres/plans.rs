//! What is asked again and again reads what is open or waits, however many sagas have ended.
//!
//! Not for how long it takes. Must hold: the statements are those that the store runs, each in the plan that the server
//! keeps for whatever arguments come, before and after it has counted the tables.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use saga_core::Status;
use saga_defs::Timestamp;
use saga_store::{Retention, SqlStore, Store};
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{AssertSqlSafe, Connection, Row, query};
use uuid::Uuid;

use crate::world::World;

/// Sagas that have ended. So many that reading the table would be the dearer plan by far.
const ENDED: u32 = 20_000;

/// Tables that grow with ended sagas.
const GROWING: [&str; 4] = ["sagas", "history", "start_keys", "saga_inputs"];

/// Copies of a saga, its history, key and input, all ended.
async fn pile_up(session: &mut PgConnection, id: Uuid) {
    let ids = format!("(select md5(n::text)::uuid as id, n from generate_series(1, {ENDED}) as n) as n");
    let of = format!("where t.id = '{id}'");
    let rows = format!("where t.saga_id = '{id}'");
    for text in [
        format!(
            "insert into sagas (id, tenant, principal, definition, definition_version, digest, format, status,
                version, created_at, updated_at, decided_at, ended_at, state)
            select n.id, tenant, principal, definition, definition_version, digest, format, 'completed',
                version, created_at + n, updated_at + n, updated_at + n, updated_at + n, state
            from sagas as t cross join {ids} {of}"
        ),
        format!(
            "insert into history (saga_id, seq, at, actor, commit_id, format, events)
            select n.id, seq, at, actor, commit_id, format, events from history as t cross join {ids} {rows}"
        ),
        format!(
            "insert into start_keys (tenant, principal, key, saga_id, fingerprint, created_at)
            select tenant, principal, n.id::text, n.id, fingerprint, created_at + n
            from start_keys as t cross join {ids} {rows}"
        ),
        format!("insert into saga_inputs select n.id, body from saga_inputs as t cross join {ids} {rows}"),
    ] {
        query(AssertSqlSafe(text)).execute(&mut *session).await.unwrap();
    }
}

/// Runs everything that an engine runs without being asked, and returns the texts of its statements.
async fn asked_again_and_again(world: &World) -> BTreeSet<String> {
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    let tell = Arc::clone(&told);
    let db = world.open(world.schemas.url(), "told").await.telling(move |text| {
        tell.lock().unwrap().insert(text.to_owned());
    });
    let store = SqlStore::new(db);
    store.count_open().await.unwrap();
    store.outbox_load().await.unwrap();
    store.dead_letters_waiting().await.unwrap();
    store.claim_timers(10, 0).await.unwrap();
    store.claim_outbox(10, 0).await.unwrap();
    store.extend_outbox(&[Uuid::nil()], 0).await.unwrap();
    store.confirm_outbox(&[Uuid::nil()]).await.unwrap();
    store.answered(&[Uuid::nil()]).await.unwrap();
    store.load(&[Uuid::nil()]).await.unwrap();
    store.ended(("errand", 1), Timestamp(0), &[], 10).await.unwrap();
    store.claim_departures(10, 0).await.unwrap();
    store.delete_start_keys(Timestamp(0), 10).await.unwrap();
    told.lock().unwrap().clone()
}

/// The plan of a statement for arguments that nobody knows yet.
async fn plan(session: &mut PgConnection, text: &str) -> String {
    let arguments = (1..).take_while(|number| text.contains(&format!("${number}"))).count();
    let each = |word: &str| match arguments {
        0 => String::new(),
        _ => format!("({})", vec![word; arguments].join(", ")),
    };
    // What the driver says, and the server can't tell from a `case` of parameters alone: all of them are numbers then.
    let (types, nulls) = (if text.contains("CASE") { each("bigint") } else { String::new() }, each("null"));
    let mut lines = Vec::new();
    for text in [
        "set plan_cache_mode = force_generic_plan".to_owned(),
        format!("prepare asked{types} as {text}"),
        format!("explain execute asked{nulls}"),
        "deallocate asked".to_owned(),
    ] {
        // Without being prepared: a prepared statement can't prepare another.
        let rows = sea_orm::sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(&mut *session).await.unwrap();
        lines.extend(rows.iter().map(|row| row.get::<String, _>(0)));
    }
    lines.join("\n")
}

async fn expect_no_table_is_read(session: &mut PgConnection, texts: &BTreeSet<String>) {
    for text in texts {
        let plan = plan(session, text).await;
        for table in GROWING {
            assert!(!plan.contains(&format!("Seq Scan on {table}")), "{text}\n{plan}");
        }
        if text.contains("GROUP BY") || text.contains("\"wake_at\" <=") {
            assert!(plan.contains("using sagas_open") || plan.contains("on sagas_open"), "{text}\n{plan}");
        }
    }
}

/// Only once the server has counted: before, it thinks that looking at the rows is as cheap.
async fn expect_no_row_is_counted(session: &mut PgConnection, texts: &BTreeSet<String>) {
    for text in texts.iter().filter(|text| text.contains("GROUP BY")) {
        let plan = plan(session, text).await;
        assert!(plan.contains("Index Only Scan using sagas_open"), "rows are read:\n{plan}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn what_is_asked_again_and_again_reads_no_ended_saga() {
    let world = World::new().await;
    let store = world.instance("one").await;
    let started = world.started(&store, 3).await;
    let mut session = PgConnection::connect(world.schemas.url()).await.unwrap();
    query(AssertSqlSafe(format!("set search_path to {}", world.schema()))).execute(&mut session).await.unwrap();
    pile_up(&mut session, started[0].header.id).await;

    let texts = asked_again_and_again(&world).await;
    assert_eq!(texts.iter().filter(|text| text.contains("GROUP BY")).count(), 1, "the count is among them");
    expect_no_table_is_read(&mut session, &texts).await;
    query("vacuum analyze sagas, history, start_keys, saga_inputs").execute(&mut session).await.unwrap();
    expect_no_table_is_read(&mut session, &texts).await;
    expect_no_row_is_counted(&mut session, &texts).await;
    assert_eq!(store.count_open().await.unwrap(), [(Status::Running, 3)]);
}
