//! A participant behind its queue: acknowledged only when its replies are safe, whatever gets lost between.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use participant_kit::conformance::command;
use participant_kit::handler::{Received, Run};
use participant_kit::{Error, Handler, InMemory, Options, serve};
use runtime::Tasks;
use saga_defs::{Command, Outcome, Reply, Verb, message};
use sea_orm::DbErr;
use serde_json::json;
use transport::in_process::{Faults, InProcess, Options as Queues};
use transport::{Consumer, Handed, Message, Publisher, Queue, Settled, Transport as _};
use uuid::Uuid;

/// Longest any test waits, in paused time.
const LIMIT: Duration = Duration::from_secs(600);

/// The engine's side of the queues.
struct Engine {
    tasks: Tasks,
    publisher: Arc<dyn Publisher>,
    replies: Box<dyn Consumer>,
    transport: InProcess,
    sent: u128,
}

impl Engine {
    fn with(handler: impl Handler, faults: Option<Faults>) -> Self {
        let queue = Queue::Participant(handler.participant().to_owned());
        let transport = InProcess::new(&Queues { queues: vec![queue, Queue::Replies], capacity: 1_000, faults });
        let tasks = Tasks::new();
        serve(Arc::new(handler), &transport, &tasks, Options::default());
        let (publisher, replies) = (transport.publisher(), transport.consumer(&Queue::Replies, 1_000));
        Self { tasks, publisher, replies, transport, sent: 0 }
    }

    fn send(&mut self, body: String) -> Message {
        self.sent += 1;
        let queue = Queue::Participant("memory".to_owned());
        let message = Message::new(Uuid::from_u128(self.sent), queue, body);
        assert_eq!(self.publisher.publish(std::slice::from_ref(&message)), [Handed::Over]);
        message
    }

    /// The replies of at least one delivery, and the tags to acknowledge.
    async fn receive(&mut self) -> (Vec<Reply>, Vec<u64>) {
        let received = tokio::time::timeout(LIMIT, self.replies.receive(100)).await.expect("replies in time");
        let deliveries = received.expect("the transport is open");
        let replies = deliveries.iter().flat_map(|one| message::decode::<Reply>(&one.body).unwrap());
        (replies.map(Result::unwrap).collect(), deliveries.iter().map(|one| one.tag).collect())
    }

    async fn settled(&self) -> Vec<Settled> {
        tokio::time::timeout(LIMIT, self.publisher.settled()).await.expect("fates in time")
    }
}

fn memory() -> InMemory {
    InMemory::new("memory", true, |command| Outcome::succeeded(json!({ "n": command.payload["n"] })))
}

fn execute(n: u128) -> Command {
    command("memory", Uuid::from_u128(n), Verb::Execute, 1, json!({ "n": n.to_string() }))
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_acknowledged_only_when_its_replies_are_safe() {
    let mut engine = Engine::with(memory(), None);
    let message = engine.send(message::encode(&[execute(1), execute(2)]).remove(0));
    let (replies, tags) = engine.receive().await;
    assert_eq!(replies.iter().map(|reply| reply.key.as_u128()).collect::<Vec<_>>(), [1, 2]);
    let early = tokio::time::timeout(Duration::from_secs(60), engine.publisher.settled()).await;
    assert!(early.is_err(), "acknowledged before the replies were safe: {early:?}");
    engine.replies.acknowledge(&tags).await;
    assert_eq!(engine.settled().await, [Settled { id: message.id, confirmed: true }]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_dropped_and_its_neighbours_go_through() {
    let mut engine = Engine::with(memory(), None);
    let foreign = Command { participant: "other".to_owned(), ..execute(3) };
    let unreadable = engine.send("not JSON".to_owned());
    assert_eq!(engine.settled().await, [Settled { id: unreadable.id, confirmed: true }]);
    let mixed = engine.send(json!([{"v": 1}, execute(1), foreign]).to_string());
    let (replies, tags) = engine.receive().await;
    assert_eq!(replies.iter().map(|reply| reply.key.as_u128()).collect::<Vec<_>>(), [1]);
    engine.replies.acknowledge(&tags).await;
    assert_eq!(engine.settled().await, [Settled { id: mixed.id, confirmed: true }]);
}

#[tokio::test(start_paused = true)]
async fn everything_is_answered_on_a_transport_that_loses_repeats_and_reorders() {
    const COMMANDS: u128 = 300;
    let handler = Arc::new(memory());
    let faults = Faults { seed: 7, redeliver_percent: 30, reorder_percent: 30, lose_percent: 20 };
    let mut engine = Engine::with(Shared(Arc::clone(&handler)), Some(faults));
    let mut open: BTreeMap<Uuid, Message> = BTreeMap::new();
    for n in 1..=COMMANDS {
        let message = engine.send(message::encode(&[execute(n)]).remove(0));
        open.insert(message.id, message);
    }
    let mut unanswered: BTreeSet<u128> = (1..=COMMANDS).collect();
    while !open.is_empty() || !unanswered.is_empty() {
        let publisher = Arc::clone(&engine.publisher);
        tokio::select! {
            biased;
            fates = publisher.settled(), if !open.is_empty() => {
                for fate in fates {
                    let message = open.remove(&fate.id).expect("each fate comes once");
                    if !fate.confirmed {
                        assert_eq!(engine.publisher.publish(std::slice::from_ref(&message)), [Handed::Over]);
                        open.insert(fate.id, message);
                    }
                }
            }
            (replies, tags) = engine.receive() => {
                unanswered.retain(|n| replies.iter().all(|reply| reply.key.as_u128() != *n));
                engine.replies.acknowledge(&tags).await;
            }
        }
    }
    let bites = engine.transport.bites();
    println!("{bites:?}");
    assert!(engine.transport.lost() > 0 && engine.transport.redeliveries() > 0 && engine.transport.reordered() > 0);
    assert_eq!(u128::try_from(handler.standing().len()).unwrap(), COMMANDS);
}

/// A handler that the test looks into.
struct Shared(Arc<InMemory>);

#[async_trait]
impl Handler for Shared {
    fn participant(&self) -> &'static str {
        self.0.participant()
    }

    async fn start(&self, run: &Run) -> Result<(), Error> {
        self.0.start(run).await
    }

    async fn handle(&self, run: &Run, batch: &[Received]) -> Result<(), Error> {
        self.0.handle(run, batch).await
    }
}

/// Fails for as long as the database is busy, and for ever on one command.
struct Troubled {
    inner: InMemory,
    busy: AtomicU32,
    guilty: Option<Uuid>,
}

#[async_trait]
impl Handler for Troubled {
    fn participant(&self) -> &'static str {
        self.inner.participant()
    }

    async fn start(&self, run: &Run) -> Result<(), Error> {
        self.inner.start(run).await
    }

    async fn handle(&self, run: &Run, batch: &[Received]) -> Result<(), Error> {
        if self.busy.load(Ordering::SeqCst) > 0 {
            self.busy.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::Db(db::Error::Unknown));
        }
        if batch.iter().any(|received| Some(received.command.key) == self.guilty) {
            return Err(Error::Db(db::Error::Bug(DbErr::RecordNotUpdated)));
        }
        self.inner.handle(run, batch).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_database_is_waited_for() {
    let mut engine = Engine::with(Troubled { inner: memory(), busy: AtomicU32::new(20), guilty: None }, None);
    engine.send(message::encode(&[execute(1)]).remove(0));
    let (replies, _) = engine.receive().await;
    assert_eq!(replies[0].outcome, Outcome::succeeded(json!({"n": "1"})));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_always_fails_is_left_unanswered_and_the_others_go_through() {
    let guilty = Some(Uuid::from_u128(3));
    let mut engine = Engine::with(Troubled { inner: memory(), busy: AtomicU32::new(0), guilty }, None);
    let commands: Vec<Command> = (1..=5).map(execute).collect();
    let message = engine.send(message::encode(&commands).remove(0));
    let mut answered = BTreeSet::new();
    while answered.len() < 4 {
        let (replies, tags) = engine.receive().await;
        answered.extend(replies.iter().map(|reply| reply.key.as_u128()));
        engine.replies.acknowledge(&tags).await;
    }
    assert_eq!(answered, BTreeSet::from([1, 2, 4, 5]));
    assert_eq!(engine.settled().await, [Settled { id: message.id, confirmed: true }]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_every_task_and_gives_back_what_was_not_safe() {
    let mut engine = Engine::with(memory(), None);
    engine.send(message::encode(&[execute(1)]).remove(0));
    let (replies, _never_acknowledged) = engine.receive().await;
    assert_eq!(replies.len(), 1);
    assert_eq!(engine.tasks.shutdown(LIMIT).await, 0);
    let mut next = engine.transport.consumer(&Queue::Participant("memory".to_owned()), 10);
    let again = tokio::time::timeout(LIMIT, next.receive(10)).await.expect("redelivered in time").unwrap();
    assert_eq!(message::decode::<Command>(&again[0].body).unwrap()[0].as_ref().unwrap().key, Uuid::from_u128(1));
}
