//! Sagas to commit, and short ways to commit them. The states are real: the core makes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use runtime::Clock;
use saga_core::{Answer, Context, Input, Saga};
use saga_defs::{Command, Definition, Outcome as Verdict, Timestamp, message};
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use super::{Fixture, ManualClock, Spoil};
use crate::{
    Batch, Committed, Guard, Header, HistoryRow, OutboxMessage, Outcome, StartKey, State, Store, Stored, Transition,
};

const DEFINITION: &str = r#"
name = "errand"
version = 3
description = "Goes to one place, then to another."
[input]
type = "object"
[[steps]]
name = "here"
participant = "alpha"
execute = "alpha.go"
compensate = "alpha.return"
refusals = ["closed"]
payload = { what = "${input.what}" }
[[steps]]
name = "there"
participant = "beta"
execute = "beta.go"
compensate = "beta.return"
refusals = ["closed"]
payload = {}
"#;

/// After this long without a reply, a started saga is due.
pub(super) const TIMEOUT_MS: u64 = 30_000;
pub(super) const TENANT: &str = "default";
pub(super) const PRINCIPAL: &str = "clerk";

/// A store under test, and a source of sagas.
pub(super) struct World {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) rows: Arc<dyn Spoil>,
    definition: Definition,
    ids: AtomicU32,
}

impl World {
    pub(super) fn new(fixture: Fixture) -> Self {
        let Fixture { store, clock, rows } = fixture;
        let definition = Definition::from_toml(DEFINITION).expect("the definition is valid");
        Self { store, clock, rows, definition, ids: AtomicU32::new(0) }
    }

    /// A new id that sorts after all before it.
    pub(super) fn id(&self) -> Uuid {
        let count = self.ids.fetch_add(1, Ordering::SeqCst);
        let mut random = [0; 10];
        random[1..5].copy_from_slice(&count.to_be_bytes());
        Builder::from_unix_timestamp_millis(Timestamp(0).ms_until(self.clock.now()), &random).into_uuid()
    }

    /// A start with a start key of its own and without a business key.
    pub(super) fn start(&self) -> Transition {
        let id = self.id();
        let header = Arc::new(Header {
            id,
            tenant: TENANT.to_owned(),
            principal: PRINCIPAL.to_owned(),
            key: None,
            definition: self.definition.name.clone(),
            definition_version: self.definition.version,
            digest: self.definition.digest(),
            created_at: self.clock.now(),
        });
        let input = Arc::new(json!({"what": "bread"}));
        let applied = saga_core::start(&self.context(&header, &input), &header.digest, 7, self.clock.now());
        let start_key =
            StartKey { tenant: header.tenant.clone(), principal: header.principal.clone(), key: id.to_string() };
        let guard = Guard::Start { start_key, fingerprint: "asked".to_owned(), input };
        let history = vec![self.row(&applied.saga, &json!(applied.events))];
        Transition { header, guard, saga: applied.saga.into(), history, commands: applied.commands }
    }

    /// A start with this business key.
    pub(super) fn start_with(&self, key: &str) -> Transition {
        let mut start = self.start();
        Arc::make_mut(&mut start.header).key = Some(key.to_owned());
        start
    }

    /// The transition after `last`, whose command succeeded.
    pub(super) fn succeed(&self, last: &Transition) -> Transition {
        self.reply(last, Verdict::succeeded(json!({"ok": true})))
    }

    /// The transition after a start whose command was refused: it ends the saga.
    pub(super) fn refuse(&self, last: &Transition) -> Transition {
        self.reply(last, Verdict::refused("closed", "It is closed."))
    }

    /// The transition after a start whose command was not understood: it holds the saga for a person.
    pub(super) fn stick(&self, last: &Transition) -> Transition {
        self.reply(last, Verdict::refused(message::CONTRACT_VIOLATION, "what is that?"))
    }

    fn reply(&self, last: &Transition, verdict: Verdict) -> Transition {
        let reply = last.commands.last().expect("the saga waits for a reply").reply(verdict);
        let context = self.context(&last.header, &Value::Null);
        let answer = saga_core::apply(&context, &last.saga, &Input::Reply(reply), self.clock.now());
        match answer.expect("replies are never turned down") {
            Answer::Applied(applied) => {
                let history = vec![self.row(&applied.saga, &json!(applied.events))];
                let (header, guard) = (Arc::clone(&last.header), Guard::Version(last.saga.version));
                Transition { header, guard, saga: applied.saga.into(), history, commands: applied.commands }
            }
            Answer::Ignored(ignored) => unreachable!("the reply was waited for, and ignored: {ignored:?}"),
        }
    }

    /// The transition after `last` in which nothing happened.
    pub(super) fn bump(&self, last: &Transition) -> Transition {
        let mut saga = Arc::clone(&last.saga);
        Arc::make_mut(&mut saga).version += 1;
        let history = vec![self.row(&saga, &json!([]))];
        let (header, guard) = (Arc::clone(&last.header), Guard::Version(last.saga.version));
        Transition { header, guard, saga, history, commands: Vec::new() }
    }

    fn context<'a>(&'a self, header: &'a Header, input: &'a Value) -> Context<'a> {
        Context { saga_id: header.id, tenant: &header.tenant, definition: &self.definition, input }
    }

    fn row(&self, saga: &Saga, events: &Value) -> HistoryRow {
        HistoryRow {
            seq: saga.version,
            at: self.clock.now(),
            actor: "engine".to_owned(),
            reason: None,
            operation_id: None,
            format: saga_core::FORMAT,
            events: events.to_string(),
        }
    }

    pub(super) fn batch(&self, transitions: &[Transition]) -> Batch {
        Batch { commit_id: self.id(), now: self.clock.now(), transitions: transitions.to_vec(), confirmed: Vec::new() }
    }

    pub(super) async fn commit(&self, transitions: &[Transition]) -> Committed {
        self.store.commit(self.batch(transitions)).await.expect("the store commits")
    }

    /// Commits one transition, and says what came of it.
    pub(super) async fn commit_one(&self, transition: &Transition) -> Outcome {
        self.commit(std::slice::from_ref(transition)).await.outcomes.remove(0)
    }

    /// Commits transitions that all win.
    pub(super) async fn win(&self, transitions: &[Transition]) -> Vec<OutboxMessage> {
        let committed = self.commit(transitions).await;
        assert_eq!(committed.outcomes, vec![Outcome::Committed; transitions.len()]);
        committed.messages
    }

    /// Starts that are committed already.
    pub(super) async fn started(&self, count: usize) -> Vec<Transition> {
        let starts: Vec<Transition> = (0..count).map(|_| self.start()).collect();
        self.win(&starts).await;
        starts
    }

    /// One start that is committed already.
    pub(super) async fn started_one(&self) -> Transition {
        self.started(1).await.remove(0)
    }

    pub(super) async fn load(&self, id: Uuid) -> Option<Stored> {
        self.store.load(&[id]).await.expect("the store loads").sagas.remove(&id)
    }

    /// The stored state of a saga.
    pub(super) async fn state(&self, id: Uuid) -> Arc<Saga> {
        match self.load(id).await.expect("the saga exists").state {
            State::Known(saga) => saga,
            State::Foreign(format) => unreachable!("this build wrote it, and not in format {format}"),
            State::Unreadable(unreadable) => unreachable!("nobody spoiled it: {unreadable:?}"),
        }
    }

    pub(super) async fn history(&self, id: Uuid) -> Vec<HistoryRow> {
        self.store.history(id, 0, 1_000).await.expect("the store reads history")
    }

    pub(super) async fn claim(&self, limit: u64, push_ms: u64) -> Vec<OutboxMessage> {
        self.store.claim_outbox(limit, push_ms).await.expect("the store claims")
    }

    pub(super) async fn claim_timers(&self, limit: u64, push_ms: u64) -> Vec<Uuid> {
        self.store.claim_timers(limit, push_ms).await.expect("the store claims")
    }
}

/// The commands in messages, by participant.
pub(super) fn commands(messages: &[OutboxMessage]) -> BTreeMap<String, Vec<Command>> {
    let mut commands: BTreeMap<String, Vec<Command>> = BTreeMap::new();
    for message in messages {
        let items = message::decode::<Command>(message.body.as_bytes()).expect("the body is JSON");
        let items = items.into_iter().map(|item| item.expect("the item is a command"));
        commands.entry(message.participant.clone()).or_default().extend(items);
    }
    commands
}
