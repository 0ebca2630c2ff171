//! Instances of one engine on a schema of its own, and sagas to commit. The states are real: the core makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use db::{Db, PostgresOptions};
use runtime::Clock;
use saga_core::{Answer, Context, Input};
use saga_defs::{Definition, Outcome as Verdict, Timestamp};
use saga_store::conformance::ManualClock;
use saga_store::{
    Batch, Committed, Error, Guard, Header, HistoryRow, Outcome, SqlStore, StartKey, State, Store, Transition,
};
use serde_json::{Value, json};
use testkit::Services;
use testkit::services::Schemas;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::holder::Holder;

/// For anything that a test waits for.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// After this long without a reply, a started saga is due, and its command may be published by anyone.
pub(crate) const LATER_MS: u64 = 600_000;

const DEFINITION: &str = r#"
name = "errand"
version = 1
description = "Goes to one place, then to another."
[input]
type = "object"
[[steps]]
name = "here"
participant = "alpha"
execute = "alpha.go"
compensate = "alpha.return"
refusals = []
payload = {}
[[steps]]
name = "there"
participant = "beta"
execute = "beta.go"
compensate = "beta.return"
refusals = []
payload = {}
"#;

/// A schema of the engine, and what its instances share.
pub(crate) struct World {
    pub(crate) schemas: Schemas,
    pub(crate) clock: Arc<ManualClock>,
    definition: Definition,
    ids: AtomicU64,
    /// Whether its instances commit everything by the text that fits all.
    longhand: bool,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(&Services::shared()).await
    }

    /// For the text that fits all, or for those that are tried before it.
    pub(crate) async fn with(longhand: bool) -> Self {
        Self { longhand, ..Self::new().await }
    }

    pub(crate) async fn on(services: &Services) -> Self {
        let clock = Arc::new(ManualClock::default());
        let world = Self {
            schemas: services.schemas(),
            clock,
            definition: Definition::from_toml(DEFINITION).unwrap(),
            ids: AtomicU64::new(1),
            longhand: false,
        };
        let db = world.open(world.schemas.url(), "migrations").await;
        migrations::up::<migrations::Engine>(db.unlimited()).await.unwrap();
        world
    }

    pub(crate) fn schema(&self) -> String {
        self.schemas.name("engine")
    }

    pub(crate) async fn open(&self, url: &str, name: &str) -> Db {
        let application = self.application(name);
        // Longer than a busy machine takes to see that somebody waits, and still an end.
        let lock_timeout = LIMIT;
        let statement_timeout = LIMIT;
        let options = PostgresOptions::new(url, self.schema());
        let options = PostgresOptions { application, lock_timeout, statement_timeout, ..options };
        Db::open_postgres(&options).await.unwrap().with_clock(self.clock.clone())
    }

    /// What an instance is called in the server's list of sessions.
    pub(crate) fn application(&self, name: &str) -> String {
        format!("{} {name}", self.schema())
    }

    /// An instance of the engine's store.
    pub(crate) async fn instance(&self, name: &str) -> SqlStore {
        self.instance_at(self.schemas.url(), name).await
    }

    /// An instance whose connections take another way.
    pub(crate) async fn instance_at(&self, url: &str, name: &str) -> SqlStore {
        let store = SqlStore::new(self.open(url, name).await);
        if self.longhand { store.without_shortcuts() } else { store }
    }

    pub(crate) async fn holder(&self) -> Holder {
        Holder::begin(self).await
    }

    pub(crate) fn start(&self) -> Transition {
        let now = self.clock.now();
        let header = Arc::new(Header {
            id: Uuid::from_u128(self.ids.fetch_add(1, Ordering::SeqCst).into()),
            tenant: "default".to_owned(),
            principal: "clerk".to_owned(),
            key: None,
            definition: self.definition.name.clone(),
            definition_version: self.definition.version,
            digest: self.definition.digest(),
            created_at: now,
        });
        let input = Arc::new(json!({"what": "bread"}));
        let applied = saga_core::start(&self.context(&header, &input), &header.digest, 1, now);
        let start_key =
            StartKey { tenant: header.tenant.clone(), principal: header.principal.clone(), key: header.id.to_string() };
        let guard = Guard::Start { start_key, fingerprint: "asked".to_owned(), input };
        let history = vec![row(applied.saga.version, &json!(applied.events), now)];
        Transition { header, guard, saga: applied.saga.into(), history, commands: applied.commands }
    }

    /// A start with this business key.
    pub(crate) fn start_about(&self, key: &str) -> Transition {
        let mut start = self.start();
        Arc::make_mut(&mut start.header).key = Some(key.to_owned());
        start
    }

    /// Another start with the start key of `first`.
    pub(crate) fn start_like(&self, first: &Transition) -> Transition {
        Transition { guard: first.guard.clone(), ..self.start() }
    }

    /// The transition after a start whose command succeeded.
    pub(crate) fn next(&self, last: &Transition) -> Transition {
        let now = self.clock.now();
        let reply = last.commands[0].reply(Verdict::succeeded(json!({})));
        let context = self.context(&last.header, &Value::Null);
        let answer = saga_core::apply(&context, &last.saga, &Input::Reply(reply), now).unwrap();
        let Answer::Applied(applied) = answer else { panic!("nothing happened: {answer:?}") };
        let history = vec![row(applied.saga.version, &json!(applied.events), now)];
        let (header, guard) = (Arc::clone(&last.header), Guard::Version(last.saga.version));
        Transition { header, guard, saga: applied.saga.into(), history, commands: applied.commands }
    }

    fn context<'a>(&'a self, header: &'a Header, input: &'a Value) -> Context<'a> {
        Context { saga_id: header.id, tenant: &header.tenant, definition: &self.definition, input }
    }

    pub(crate) fn batch(&self, transitions: &[Transition]) -> Batch {
        Batch {
            commit_id: Uuid::now_v7(),
            now: self.clock.now(),
            transitions: transitions.to_vec(),
            confirmed: Vec::new(),
        }
    }

    pub(crate) async fn commit(&self, store: &SqlStore, transitions: &[Transition]) -> Vec<Outcome> {
        store.commit(self.batch(transitions)).await.unwrap().outcomes
    }

    /// Commits beside the test.
    pub(crate) fn begin(&self, store: &SqlStore, transitions: &[Transition]) -> Committing {
        begin(store, self.batch(transitions))
    }

    /// Starts that are committed already.
    pub(crate) async fn started(&self, store: &SqlStore, count: usize) -> Vec<Transition> {
        let starts: Vec<Transition> = (0..count).map(|_| self.start()).collect();
        assert_eq!(self.commit(store, &starts).await, vec![Outcome::Committed; count]);
        starts
    }
}

pub(crate) type Committing = JoinHandle<Result<Committed, Error>>;

/// Commits a batch beside the test.
#[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
pub(crate) fn begin(store: &SqlStore, batch: Batch) -> Committing {
    let store = store.clone();
    tokio::spawn(async move { store.commit(batch).await })
}

/// What came of a commit beside the test.
pub(crate) async fn outcome(committing: Committing) -> Result<Vec<Outcome>, Error> {
    let committed = tokio::time::timeout(LIMIT, committing).await.expect("the commit ends").unwrap();
    committed.map(|committed| committed.outcomes)
}

/// The version of a saga, if there is one.
pub(crate) async fn version(store: &SqlStore, id: Uuid) -> Option<u64> {
    let loaded = store.load(&[id]).await.unwrap();
    loaded.sagas.get(&id).map(|stored| match &stored.state {
        State::Known(saga) => saga.version,
        State::Foreign(format) => panic!("format {format}"),
        State::Unreadable(unreadable) => panic!("{unreadable:?}"),
    })
}

fn row(seq: u64, events: &Value, at: Timestamp) -> HistoryRow {
    HistoryRow {
        seq,
        at,
        actor: "engine".to_owned(),
        reason: None,
        operation_id: None,
        format: saga_core::FORMAT,
        events: events.to_string(),
    }
}
