//! Nothing is told to anyone before it is durable: each commit of a saga is held for a while, and meanwhile the ports
//! show nothing of it. Let go, all of it comes, so the silence was not for another reason.

mod support;

use std::sync::Arc;
use std::time::Duration;

use orchestrator::{Engine, Options, StartAnswer};
use saga_core::Decision;
use saga_defs::{Command, Outcome, message};
use saga_store::MemoryStore;
use serde_json::json;
use support::{LIMIT, World, request};
use tokio::task::JoinSet;
use tokio::time::timeout;
use transport::{Hints, InProcess, Message, Publisher, Queue, Transport};
use uuid::Uuid;

/// How long silence must last, in paused time. Shorter than any attempt or answer may take.
const SILENCE: Duration = Duration::from_secs(3);
const STEPS: [&str; 4] = ["booking", "payment", "confirmation", "notify"];

/// The ports, as participants and other instances see them.
struct Ports {
    store: Arc<MemoryStore>,
    transport: InProcess,
    publisher: Arc<dyn Publisher>,
    hints: Box<dyn Hints>,
}

impl Ports {
    /// Plays a step: its command comes only once the commit that sends it is let go.
    async fn take(&self, name: &str) -> Command {
        let mut consumer = self.transport.consumer(&Queue::Participant(name.to_owned()), 1);
        assert!(timeout(SILENCE, consumer.receive(1)).await.is_err(), "{name} was asked before the commit");
        self.store.hold_commits(false);
        let deliveries = timeout(LIMIT, consumer.receive(1)).await.expect("a command in time").expect("open");
        consumer.acknowledge(&[deliveries[0].tag]).await;
        let mut items = message::decode::<Command>(&deliveries[0].body).expect("commands are JSON");
        items.remove(0).expect("commands can be read")
    }

    /// Replies while commits are held: the reply stays unacknowledged.
    async fn reply(&self, command: &Command, outcome: Outcome) {
        self.store.hold_commits(true);
        let body = message::encode(&[command.reply(outcome)]).remove(0);
        self.publisher.publish(&[Message::new(Uuid::new_v4(), Queue::Replies, body)]);
        let fates = timeout(SILENCE, self.publisher.settled()).await;
        assert!(fates.is_err(), "a reply to {} was acknowledged before the commit", command.participant);
    }

    async fn acknowledged(&self) {
        let fates = timeout(LIMIT, self.publisher.settled()).await.expect("a fate in time");
        assert!(fates.iter().all(|fate| fate.confirmed) && fates.len() == 1);
    }
}

/// Begins what must not be answered before the commit.
fn ask<T: Send + 'static>(question: impl Future<Output = T> + Send + 'static) -> JoinSet<T> {
    let mut asked = JoinSet::new();
    asked.spawn(question);
    asked
}

async fn answered<T: 'static>(asked: JoinSet<T>) -> T {
    timeout(LIMIT, asked.join_all()).await.expect("an answer in time").remove(0)
}

fn output(name: &str) -> serde_json::Value {
    match name {
        "booking" => {
            json!({"appointment_id": Uuid::nil(), "starts_at": 7, "price": {"amount_minor": 4500, "currency": "EUR"}})
        }
        _ => json!({}),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_answered_hinted_or_acknowledged_before_its_commit() {
    let World { engine, store, transport, tasks: _tasks } = World::new(&STEPS, Options::default()).await;
    let (publisher, hints) = (transport.publisher(), transport.hints());
    let mut ports = Ports { store, transport, publisher, hints };

    ports.store.hold_commits(true);
    let begin = |engine: Engine| async move { engine.begin(request("one")).await };
    let mut starting = ask(begin(engine.clone()));
    assert!(timeout(SILENCE, starting.join_next()).await.is_err(), "a start was answered before its commit");
    let mut command = ports.take("booking").await;
    let StartAnswer::Started(started) = answered(starting).await.expect("an answer") else { panic!("not started") };
    let saga_id = started.snapshot.header.id;

    for next in ["payment", "confirmation"] {
        let name = command.participant.clone();
        ports.reply(&command, Outcome::succeeded(output(&name))).await;
        command = ports.take(next).await;
        ports.acknowledged().await;
    }

    // The pivot: its commit decides, so it is also what waits and other instances hear of.
    let mut waiting = ask(async move { engine.wait(saga_id, LIMIT).await });
    ports.reply(&command, Outcome::succeeded(json!({}))).await;
    assert!(waiting.try_join_next().is_none(), "a wait was answered before the commit");
    assert!(timeout(SILENCE, ports.hints.next()).await.is_err(), "others were told before the commit");
    ports.take("notify").await;
    ports.acknowledged().await;
    let decided = answered(waiting).await.expect("readable").expect("there");
    assert_eq!(decided.saga.decision, Some(Decision::Committed));
    let hint = timeout(LIMIT, ports.hints.next()).await.expect("a hint in time").expect("open");
    assert!(hint.contains(&saga_id.to_string()));
}
