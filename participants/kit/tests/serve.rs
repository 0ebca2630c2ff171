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
use saga_defs::dead_letter::{DeadLetter, Reason};
use saga_defs::{Command, Ended, Outcome, Reply, Verb, message};
use sea_orm::DbErr;
use serde_json::json;
use tokio::sync::mpsc;
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
    dead: Box<dyn Consumer>,
    transport: InProcess,
    sent: u128,
}

impl Engine {
    fn with(handler: impl Handler, faults: Option<Faults>) -> Self {
        let queue = Queue::Participant(handler.participant().to_owned());
        let transport = InProcess::new(&Queues {
            queues: vec![queue, Queue::Replies, Queue::DeadLetters],
            capacity: 1_000,
            faults,
        });
        let tasks = Tasks::new();
        serve(Arc::new(handler), &transport, &tasks, Options::default());
        let (publisher, replies) = (transport.publisher(), transport.consumer(&Queue::Replies, 1_000));
        let dead = transport.consumer(&Queue::DeadLetters, 2_000);
        Self { tasks, publisher, replies, dead, transport, sent: 0 }
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

    /// So many dead letters in order, and the tags to acknowledge.
    async fn letters(&mut self, count: usize) -> (Vec<DeadLetter>, Vec<u64>) {
        let (mut letters, mut tags) = (Vec::new(), Vec::new());
        while letters.len() < count {
            let received = tokio::time::timeout(LIMIT, self.dead.receive(100)).await.expect("dead letters in time");
            for delivery in received.expect("the transport is open") {
                letters.push(DeadLetter::decode(&delivery.body).unwrap());
                tags.push(delivery.tag);
            }
        }
        (letters, tags)
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
async fn what_cannot_be_read_is_set_aside_and_its_neighbours_go_through() {
    let mut engine = Engine::with(memory(), None);
    let foreign = serde_json::to_string(&Command { participant: "other".to_owned(), ..execute(3) }).unwrap();
    let good = serde_json::to_string(&execute(1)).unwrap();
    let future = r#"{"v": 2, "verb": "forget"}"#;
    let mixed = engine.send(format!(r#"[{{"v":  1}}, {good}, {foreign}, {future}]"#));
    let (replies, tags) = engine.receive().await;
    assert_eq!(replies.iter().map(|reply| reply.key.as_u128()).collect::<Vec<_>>(), [1]);
    engine.replies.acknowledge(&tags).await;
    let (letters, tags) = engine.letters(3).await;
    let expected =
        [(Reason::BadJson, r#"{"v":  1}"#), (Reason::WrongParticipant, &foreign), (Reason::UnknownVersion, future)];
    let found: Vec<_> = letters.iter().map(|letter| (letter.reason, letter.body.as_str())).collect();
    assert_eq!(found, expected, "each as the exact text that it was");
    assert!(letters.iter().all(|letter| letter.queue == "bookend.memory"));
    let early = tokio::time::timeout(Duration::from_secs(60), engine.publisher.settled()).await;
    assert!(early.is_err(), "acknowledged before the dead letters were safe: {early:?}");
    engine.dead.acknowledge(&tags).await;
    assert_eq!(engine.settled().await, [Settled { id: mixed.id, confirmed: true }]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_message_is_set_aside_whole() {
    let mut engine = Engine::with(memory(), None);
    let oversized = format!("[{}]", " ".repeat(message::BODY_BYTES_MAX));
    for (body, reason) in [("not JSON".to_owned(), Reason::BadJson), (oversized, Reason::Oversized)] {
        let sent = engine.send(body.clone());
        let (letters, tags) = engine.letters(1).await;
        assert_eq!((letters[0].reason, &letters[0].body), (reason, &body));
        engine.dead.acknowledge(&tags).await;
        assert_eq!(engine.settled().await, [Settled { id: sent.id, confirmed: true }]);
    }
    let empty = engine.send("[]".to_owned());
    assert_eq!(engine.settled().await, [Settled { id: empty.id, confirmed: true }], "there is nothing to set aside");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_of_dead_letters_holds_up_no_reply() {
    let mut engine = Engine::with(memory(), None);
    let strangers = engine.transport.publisher();
    let mut n = 1_000_000;
    while strangers.publish(&[Message::new(Uuid::from_u128(n), Queue::DeadLetters, "{}")]) == [Handed::Over] {
        n += 1;
    }
    let held = engine.send("not JSON".to_owned());
    for key in 1..=20 {
        let sent = engine.send(message::encode(&[execute(key)]).remove(0));
        let (replies, tags) = engine.receive().await;
        assert_eq!(replies[0].key.as_u128(), key);
        engine.replies.acknowledge(&tags).await;
        assert_eq!(engine.settled().await, [Settled { id: sent.id, confirmed: true }]);
    }
    let mut tags: Vec<u64> = Vec::new();
    while tags.len() < 1_001 {
        let deliveries = engine.dead.receive(1_000).await.expect("the transport is open");
        let taken: Vec<u64> = deliveries.iter().map(|one| one.tag).collect();
        engine.dead.acknowledge(&taken).await;
        tags.extend(taken);
    }
    assert_eq!(engine.settled().await, [Settled { id: held.id, confirmed: true }], "once there was room");
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

    async fn forget(&self, sagas: &[Uuid]) -> Result<u64, Error> {
        self.0.forget(sagas).await
    }
}

/// Fails for as long as the database is busy, and for ever on one command.
struct Troubled {
    inner: InMemory,
    busy: AtomicU32,
    guilty: Option<Uuid>,
    how: fn() -> db::Error,
}

/// The database refuses a statement.
fn refused() -> db::Error {
    db::Error::Bug(DbErr::RecordNotUpdated)
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
            return Err(Error::Db(db::Error::Transient(DbErr::RecordNotUpdated)));
        }
        if batch.iter().any(|received| Some(received.command.key) == self.guilty) {
            return Err(Error::Db((self.how)()));
        }
        self.inner.handle(run, batch).await
    }

    async fn forget(&self, sagas: &[Uuid]) -> Result<u64, Error> {
        if self.busy.load(Ordering::SeqCst) > 0 {
            self.busy.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::Db(db::Error::Transient(DbErr::RecordNotUpdated)));
        }
        if sagas.iter().any(|saga_id| Some(*saga_id) == self.guilty) {
            return Err(Error::Db((self.how)()));
        }
        self.inner.forget(sagas).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_database_is_waited_for() {
    let mut engine =
        Engine::with(Troubled { inner: memory(), busy: AtomicU32::new(20), guilty: None, how: refused }, None);
    engine.send(message::encode(&[execute(1)]).remove(0));
    let (replies, _) = engine.receive().await;
    assert_eq!(replies[0].outcome, Outcome::succeeded(json!({"n": "1"})));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_always_fails_is_set_aside_and_the_others_go_through() {
    always_fails(refused).await;
}

/// As when an effect panics: the transaction's task ends without an answer.
#[tokio::test(start_paused = true)]
async fn a_command_that_always_breaks_its_transaction_is_set_aside_as_well() {
    always_fails(|| db::Error::Unknown).await;
}

async fn always_fails(how: fn() -> db::Error) {
    let guilty = Some(Uuid::from_u128(3));
    let mut engine = Engine::with(Troubled { inner: memory(), busy: AtomicU32::new(0), guilty, how }, None);
    let commands: Vec<Command> = (1..=5).map(execute).collect();
    let message = engine.send(message::encode(&commands).remove(0));
    let mut answered = BTreeSet::new();
    while answered.len() < 4 {
        let (replies, tags) = engine.receive().await;
        answered.extend(replies.iter().map(|reply| reply.key.as_u128()));
        engine.replies.acknowledge(&tags).await;
    }
    assert_eq!(answered, BTreeSet::from([1, 2, 4, 5]));
    let (letters, tags) = engine.letters(1).await;
    assert_eq!((letters[0].reason, letters[0].attempts), (Reason::Failed, Options::default().poison_attempts_max));
    assert_eq!(message::read::<Command>(&letters[0].body).unwrap(), execute(3));
    engine.dead.acknowledge(&tags).await;
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

#[tokio::test(start_paused = true)]
async fn ended_sagas_are_forgotten_before_their_announcement_is_acknowledged() {
    let handler = Arc::new(memory());
    let mut engine = Engine::with(Shared(Arc::clone(&handler)), None);
    let commands: Vec<Command> = (1..=3).map(execute).collect();
    engine.send(message::encode(&commands).remove(0));
    let (_, tags) = engine.receive().await;
    engine.replies.acknowledge(&tags).await;
    engine.settled().await;
    assert_eq!(handler.standing().len(), 3);
    // Alone, and beside a command; their sagas are called like their effects.
    let told = Ended::new("memory", &[Uuid::from_u128(1), Uuid::from_u128(9)]);
    let beside = Ended::new("memory", &[Uuid::from_u128(2)]);
    let alone = engine.send(message::encode(&[told]).remove(0));
    assert_eq!(engine.settled().await, [Settled { id: alone.id, confirmed: true }]);
    let items = [message::encode(&[execute(4)]).remove(0), message::encode(&[beside]).remove(0)];
    engine.send(format!("[{}]", items.join(",")));
    let (replies, tags) = engine.receive().await;
    assert_eq!(replies.len(), 1);
    engine.replies.acknowledge(&tags).await;
    engine.settled().await;
    assert_eq!(handler.standing(), [3, 4].map(Uuid::from_u128));
}

#[tokio::test(start_paused = true)]
async fn an_announcement_waits_for_a_busy_database_and_is_set_aside_when_it_always_fails() {
    let guilty = Some(Uuid::from_u128(3));
    let mut engine = Engine::with(Troubled { inner: memory(), busy: AtomicU32::new(20), guilty, how: refused }, None);
    let (good, bad) = (Ended::new("memory", &[Uuid::from_u128(1)]), Ended::new("memory", &[Uuid::from_u128(3)]));
    let strange = Ended::new("elsewhere", &[Uuid::from_u128(1)]);
    let message = engine.send(message::encode(&[good, bad.clone(), strange]).remove(0));
    let (letters, tags) = engine.letters(2).await;
    let reasons: Vec<Reason> = letters.iter().map(|letter| letter.reason).collect();
    assert!(reasons.contains(&Reason::Failed) && reasons.contains(&Reason::WrongParticipant), "{reasons:?}");
    let failed = letters.iter().find(|letter| letter.reason == Reason::Failed).unwrap();
    assert_eq!(message::read::<Ended>(&failed.body).unwrap(), bad);
    engine.dead.acknowledge(&tags).await;
    assert_eq!(engine.settled().await, [Settled { id: message.id, confirmed: true }]);
}

/// Announces instead of answering, and passes on what came of it.
struct Herald {
    came_of_it: mpsc::Sender<bool>,
}

#[async_trait]
impl Handler for Herald {
    fn participant(&self) -> &'static str {
        "memory"
    }

    async fn start(&self, _run: &Run) -> Result<(), Error> {
        Ok(())
    }

    async fn handle(&self, run: &Run, batch: &[Received]) -> Result<(), Error> {
        for Received { command, ticket } in batch {
            let safe = run.replies.announce(command.reply(Outcome::succeeded(json!({})))).await;
            let came_of_it = self.came_of_it.clone();
            run.tasks.spawn(async move {
                came_of_it.send(safe.await.is_ok()).await.ok();
            });
            run.replies.give_back(*ticket).await;
        }
        Ok(())
    }

    async fn forget(&self, _sagas: &[Uuid]) -> Result<u64, Error> {
        Ok(0)
    }
}

#[tokio::test(start_paused = true)]
async fn an_announcement_is_safe_when_its_message_is() {
    let (came_of_it, mut safe) = mpsc::channel(8);
    let mut engine = Engine::with(Herald { came_of_it }, None);
    engine.send(message::encode(&[execute(1)]).remove(0));
    let (replies, tags) = engine.receive().await;
    assert_eq!(replies.iter().map(|reply| reply.key.as_u128()).collect::<Vec<_>>(), [1]);
    let early = tokio::time::timeout(Duration::from_secs(60), safe.recv()).await;
    assert!(early.is_err(), "told before the reply was safe: {early:?}");
    engine.replies.acknowledge(&tags).await;
    assert_eq!(safe.recv().await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_that_an_announcement_is_safe_when_serving_ends_before() {
    let (came_of_it, mut safe) = mpsc::channel(8);
    let mut engine = Engine::with(Herald { came_of_it }, None);
    engine.send(message::encode(&[execute(1)]).remove(0));
    engine.receive().await;
    engine.tasks.stop();
    assert_eq!(safe.recv().await, Some(false));
}
