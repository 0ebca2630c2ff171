//! What the SQL store does beyond the port: rows of other builds, ids as bytes, columns for queries, and COMMITs that
//! fail.
#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::Arc;

use db::Db;
use saga_core::{Action, Answer, Context, Input, Operation};
use saga_defs::{Definition, Outcome as Verdict, Timestamp, catalog};
use saga_store::conformance::ManualClock;
use saga_store::{
    Batch, Error, Guard, Header, HistoryRow, Mismatch, Outcome, SqlStore, StartKey, State, Store, Transition,
    Unreadable, check_replay,
};
use sea_orm::{ConnectionTrait, QueryResult};
use sea_orm_migration::MigratorTrait;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

struct World {
    _dir: TempDir,
    db: Db,
    clock: Arc<ManualClock>,
    store: SqlStore,
    definition: Definition,
}

const NOW: Timestamp = Timestamp(1_795_253_400_000_000);

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let db = Db::open_sqlite(&dir.path().join("engine.db")).await.unwrap().with_clock(clock.clone());
        migrations::Engine::up(db.unlimited(), None).await.unwrap();
        Self { _dir: dir, store: SqlStore::new(db.clone()), db, clock, definition: catalog::booking() }
    }

    fn context<'a>(&'a self, header: &'a Header, input: &'a Value) -> Context<'a> {
        Context { saga_id: header.id, tenant: &header.tenant, definition: &self.definition, input }
    }

    fn start(&self, id: u128) -> Transition {
        let header = Arc::new(Header {
            id: Uuid::from_u128(id),
            tenant: "default".to_owned(),
            principal: "clerk".to_owned(),
            key: None,
            definition: self.definition.name.clone(),
            definition_version: self.definition.version,
            digest: self.definition.digest(),
            created_at: NOW,
        });
        let input = Arc::new(json!({"slot_id": Uuid::nil(), "patient": {}, "payment_method": "card"}));
        let applied = saga_core::start(&self.context(&header, &input), &header.digest, 1, NOW);
        let start_key =
            StartKey { tenant: header.tenant.clone(), principal: header.principal.clone(), key: header.id.to_string() };
        let guard = Guard::Start { start_key, fingerprint: "asked".to_owned(), input };
        let history = vec![row(applied.saga.version, &json!(applied.events))];
        Transition { header, guard, saga: applied.saga.into(), history, commands: applied.commands }
    }

    fn next(&self, last: &Transition, input: &Input, now: Timestamp) -> Transition {
        let document = json!({"slot_id": Uuid::nil(), "patient": {}, "payment_method": "card"});
        let answer = saga_core::apply(&self.context(&last.header, &document), &last.saga, input, now).unwrap();
        let Answer::Applied(applied) = answer else { panic!("nothing happened: {answer:?}") };
        let history = vec![row(applied.saga.version, &json!(applied.events))];
        let (header, guard) = (Arc::clone(&last.header), Guard::Version(last.saga.version));
        Transition { header, guard, saga: applied.saga.into(), history, commands: applied.commands }
    }

    async fn commit(&self, transition: &Transition) -> Result<Vec<Outcome>, Error> {
        let batch =
            Batch { commit_id: Uuid::now_v7(), now: NOW, transitions: vec![transition.clone()], confirmed: Vec::new() };
        self.store.commit(batch).await.map(|committed| committed.outcomes)
    }

    async fn execute(&self, sql: &str) {
        self.db.writer().execute_unprepared(sql).await.unwrap();
    }

    async fn row(&self, sql: &str) -> QueryResult {
        let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, sql.to_owned());
        self.db.writer().query_one_raw(statement).await.unwrap().unwrap()
    }
}

fn row(seq: u64, events: &Value) -> HistoryRow {
    HistoryRow {
        seq,
        at: NOW,
        actor: "engine".to_owned(),
        reason: None,
        operation_id: None,
        format: saga_core::FORMAT,
        events: events.to_string(),
    }
}

#[tokio::test]
async fn ids_are_sixteen_bytes_in_every_table() {
    let world = World::new().await;
    let mut start = world.start(1);
    start.history[0].operation_id = Some(Uuid::from_u128(2));
    world.commit(&start).await.unwrap();
    let columns = [
        ("sagas", "id"),
        ("start_keys", "saga_id"),
        ("saga_inputs", "saga_id"),
        ("history", "saga_id"),
        ("history", "commit_id"),
        ("history", "operation_id"),
        ("outbox", "id"),
    ];
    for (table, column) in columns {
        let row = world.row(&format!("select typeof({column}) || length({column}) from {table}")).await;
        assert_eq!(row.try_get_by_index::<String>(0).unwrap(), "blob16", "{table}.{column}");
    }
}

#[tokio::test]
async fn a_row_of_another_format_is_left_to_others() {
    let world = World::new().await;
    let start = world.start(1);
    let id = start.header.id;
    world.commit(&start).await.unwrap();
    world.execute("update sagas set format = 99, state = 'who knows'").await;
    world.clock.pass(600_000);
    let loaded = world.store.load(&[id]).await.unwrap();
    assert_eq!(loaded.sagas[&id].state, State::Foreign(99));
    assert!(world.store.claim_timers(10, 1).await.unwrap().is_empty());
    let mismatch = check_replay(&world.store, id).await.unwrap_err();
    assert!(matches!(mismatch, Mismatch::Foreign { format: 99, .. }), "{mismatch:?}");
}

#[tokio::test]
async fn what_can_not_be_read_is_said_so() {
    let world = World::new().await;
    let start = world.start(1);
    let id = start.header.id;
    world.commit(&start).await.unwrap();
    // What is wrong is said, and not a word of what is stored.
    for (spoil, said) in [
        ("update sagas set state = 'torn by Ada'", "its state is not what was written (not JSON: line 1, column 2)"),
        ("update sagas set state = '{}'", "its state is not what was written (the member `version` is missing)"),
        (
            "update sagas set state = '{\"version\": \"Ada\"}'",
            "its state is not what was written (JSON of another shape: line 1, column 17)",
        ),
        ("update sagas set state = cast(x'ff' as text)", "its state is not what was written (no text)"),
    ] {
        world.execute(spoil).await;
        let loaded = world.store.load(&[id]).await.unwrap();
        let what = Unreadable { version: 1, why: said.to_owned() };
        assert_eq!(loaded.sagas[&id].state, State::Unreadable(what), "{spoil}");
    }
    let mismatch = check_replay(&world.store, id).await.unwrap_err();
    assert!(matches!(mismatch, Mismatch::Unreadable { .. }), "{mismatch:?}");

    let next = world.next(&start, &Input::Tick, NOW.plus_ms(600_000));
    world.commit(&next).await.unwrap();
    world.execute("update history set events = 'torn' where seq = 2").await;
    let mismatch = check_replay(&world.store, id).await.unwrap_err();
    assert!(matches!(mismatch, Mismatch::Events { seq: 2, .. }), "{mismatch:?}");
    world.execute("delete from history where seq = 1").await;
    let mismatch = check_replay(&world.store, id).await.unwrap_err();
    assert!(matches!(mismatch, Mismatch::Gap { seq: 2, .. }), "{mismatch:?}");
}

#[tokio::test]
async fn an_erased_input_is_null() {
    let world = World::new().await;
    let start = world.start(1);
    world.commit(&start).await.unwrap();
    world.execute("delete from saga_inputs").await;
    let loaded = world.store.load(&[start.header.id]).await.unwrap();
    assert_eq!(*loaded.sagas[&start.header.id].input, Value::Null);
}

#[tokio::test]
async fn columns_say_what_the_state_says() {
    let world = World::new().await;
    let columns = "select status, coalesce(decision, '-') || ' ' || coalesce(failure_code, '-') || ' ' ||
        coalesce(stuck_cause, '-') || ' ' || coalesce(waiting_on, '-') as words, wake_at, ended_at from sagas";
    let expect = async |status: &str, words: &str, wake_at: Option<Timestamp>, ended: bool| {
        let row = world.row(columns).await;
        assert_eq!(row.try_get::<String>("", "status").unwrap(), status);
        assert_eq!(row.try_get::<String>("", "words").unwrap(), words);
        assert_eq!(row.try_get::<Option<i64>>("", "wake_at").unwrap(), wake_at.map(|at| at.0));
        assert_eq!(row.try_get::<Option<i64>>("", "ended_at").unwrap(), ended.then_some(NOW.0));
    };
    let start = world.start(1);
    world.commit(&start).await.unwrap();
    expect("running", "- - - booking", start.saga.wake_at(), false).await;

    // The output lacks what the next payload refers to.
    let reply = start.commands[0].reply(Verdict::succeeded(json!({})));
    let stuck = world.next(&start, &Input::Reply(reply), NOW);
    world.commit(&stuck).await.unwrap();
    expect("stuck", "- - payload_mapping payment", None, false).await;

    let close = Operation { id: Uuid::nil(), digest: String::new(), expected_version: None, action: Action::Close };
    let closed = world.next(&stuck, &Input::Operation(close), NOW);
    world.commit(&closed).await.unwrap();
    expect("closed", "abandoned - - -", None, true).await;
    check_replay(&world.store, start.header.id).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_is_refused_at_the_end_leaves_no_trace() {
    let world = World::new().await;
    // A deferred constraint is checked by COMMIT, after every statement has succeeded.
    world.execute("create table parents (id integer primary key)").await;
    world.execute("create table children (parent integer references parents (id) deferrable initially deferred)").await;
    world.execute("create trigger orphan after insert on history begin insert into children values (1); end").await;
    let start = world.start(1);
    let commit_id = Uuid::from_u128(9);
    let batch = Batch { commit_id, now: NOW, transitions: vec![start.clone()], confirmed: Vec::new() };
    let error = world.store.commit(batch).await.unwrap_err();
    assert!(matches!(error, Error::Bug(_)), "{error:?}");
    assert!(world.store.committed(commit_id, &[start.header.id]).await.unwrap().is_empty());

    world.execute("drop trigger orphan").await;
    assert_eq!(world.commit(&start).await.unwrap(), [Outcome::Committed], "the connection is usable again");
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_a_commit() {
    let world = World::new().await;
    let start = world.start(1);
    let (store, batch) = (
        world.store.clone(),
        Batch { commit_id: Uuid::from_u128(9), now: NOW, transitions: vec![start.clone()], confirmed: Vec::new() },
    );
    let mut commit = Box::pin(async move { store.commit(batch).await });
    // Begun, and dropped at its first wait.
    assert!(poll_once(commit.as_mut()).await.is_none());
    drop(commit);
    let found = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while world.store.committed(Uuid::from_u128(9), &[start.header.id]).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    });
    found.await.expect("the commit happens all the same");
    assert_eq!(
        world.commit(&world.next(&start, &Input::Tick, NOW.plus_ms(600_000))).await.unwrap(),
        [Outcome::Committed]
    );
}

/// Polls once.
async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn counting_and_waking_read_the_index_of_open_sagas() {
    let world = World::new().await;
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let store = SqlStore::new(world.db.clone().telling(move |text| tell.lock().unwrap().push(text.to_owned())));
    store.count_open().await.unwrap();
    store.claim_timers(10, 0).await.unwrap();
    let texts: Vec<String> = told.lock().unwrap().clone();
    let found = ["SCAN sagas USING INDEX sagas_open", "SEARCH sagas USING INDEX sagas_open"];
    assert_eq!(texts.len(), found.len());
    for (text, found) in texts.iter().zip(found) {
        let plan = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, format!("explain query plan {text}"));
        let plan = world.db.writer().query_all_raw(plan).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.try_get("", "detail").unwrap()).collect();
        assert!(plan.iter().any(|line| line.starts_with(found)), "{text}\n{plan:?}");
        assert!(!plan.iter().any(|line| line == "SCAN sagas"), "{text}\n{plan:?}");
    }
}

#[tokio::test]
async fn who_wins_is_asked_only_once_somebody_loses() {
    let world = World::new().await;
    // Made by the longer script, for as long as the connection lives.
    let asked = async || {
        let tables = "select count(*) as n from temp.sqlite_master where name = 'won'";
        world.row(tables).await.try_get::<i64>("", "n").unwrap() > 0
    };
    let start = world.start(1);
    assert_eq!(world.commit(&start).await.unwrap(), [Outcome::Committed]);
    let reply = start.commands[0].reply(Verdict::succeeded(json!({"price": 1})));
    let next = world.next(&start, &Input::Reply(reply), NOW);
    assert_eq!(world.commit(&next).await.unwrap(), [Outcome::Committed]);
    assert!(!asked().await);
    assert_eq!(world.commit(&next).await.unwrap(), [Outcome::Lost]);
    assert!(asked().await);
}
