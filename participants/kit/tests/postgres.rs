//! A served participant on PostgreSQL: a command that the server refuses, and a server that crashes.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use db::Db;
use fixture::{LIMIT, Owned, Stack};
use participant_kit::conformance::command;
use participant_kit::{ExternalHandler, ExternalOptions, Options, Transactional as _, TransactionalHandler, serve};
use runtime::Tasks;
use saga_defs::dead_letter::{DeadLetter, Reason};
use saga_defs::{Command, Outcome, Reply, Timestamp, Verb, message};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Asterisk, Expr, ExprTrait as _, Query};
use serde_json::json;
use support::{Counts, Desk, Provider, Shelf, keep};
use testkit::Services;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use transport::in_process::{InProcess, Options as Queues};
use transport::{Consumer, Handed, Message, Publisher, Queue, Settled, Transport as _};
use uuid::Uuid;

/// The shelf behind its queue, and the engine's side of it.
struct Served {
    owned: Owned,
    tasks: Tasks,
    publisher: Arc<dyn Publisher>,
    replies: Box<dyn Consumer>,
    dead: Box<dyn Consumer>,
    sent: u128,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Served {
    fn over(owned: Owned) -> Self {
        let db = owned.db.clone();
        Self::of(owned, db)
    }

    /// The participant's database is `db`.
    fn of(owned: Owned, db: Db) -> Self {
        let queues = vec![Queue::Participant("shelf".to_owned()), Queue::Replies, Queue::DeadLetters];
        let transport = InProcess::new(&Queues { queues, capacity: 1_000, faults: None });
        let tasks = Tasks::new();
        let handler = Arc::new(TransactionalHandler::new(db, Shelf));
        serve(handler, &transport, &tasks, Options::default());
        let (publisher, replies) = (transport.publisher(), transport.consumer(&Queue::Replies, 1_000));
        let dead = transport.consumer(&Queue::DeadLetters, 1_000);
        Self { owned, tasks, publisher, replies, dead, sent: 0 }
    }

    /// Sends commands as one message.
    fn send(&mut self, commands: &[Command]) {
        self.sent += 1;
        let body = message::encode(commands).remove(0);
        let message = Message::new(Uuid::from_u128(self.sent), Queue::Participant("shelf".to_owned()), body);
        assert_eq!(self.publisher.publish(&[message]), [Handed::Over]);
    }

    /// The outcomes of so many effects.
    async fn answers(&mut self, effects: usize) -> BTreeMap<Uuid, Outcome> {
        let mut answers = BTreeMap::new();
        while answers.len() < effects {
            let received =
                tokio::time::timeout(LIMIT, self.replies.receive(100)).await.expect("replies in time").unwrap();
            for delivery in &received {
                let replies = message::decode::<Reply>(&delivery.body).unwrap();
                answers.extend(replies.into_iter().map(|reply| reply.unwrap()).map(|reply| (reply.key, reply.outcome)));
            }
            self.replies.acknowledge(&received.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await;
        }
        answers
    }

    async fn rows(&self) -> i64 {
        let count = Query::select().expr(Expr::col(Asterisk).count()).from("slots").to_owned();
        self.owned.db.reader().query_one(&count).await.unwrap().unwrap().try_get_by_index(0).unwrap()
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_command_that_the_server_refuses_is_set_aside_and_its_neighbours_are_answered() {
    let mut served = Served::over(Owned::open::<migrations::Clinic>(Stack::Postgres).await);
    // The place of one of them is taken by what no command has put there.
    let foreign = served.owned.db.transaction(|tx| {
        Box::pin(async move { Shelf.execute(tx, Timestamp(0), &[&keep(13, "foreign")]).await.map(drop) })
    });
    foreign.await.unwrap();
    served.send(&(1..=20).map(|key| keep(key, "good")).collect::<Vec<_>>());
    let answers = served.answers(19).await;
    assert!(answers.values().all(|outcome| *outcome == Outcome::succeeded(json!({}))), "{answers:?}");
    assert!(!answers.contains_key(&Uuid::from_u128(13)));
    let dead = tokio::time::timeout(LIMIT, served.dead.receive(10)).await.expect("a dead letter in time").unwrap();
    let letter = DeadLetter::decode(&dead[0].body).unwrap();
    assert_eq!(letter.reason, Reason::Failed);
    served.dead.acknowledge(&[dead[0].tag]).await;
    let settled = tokio::time::timeout(LIMIT, served.publisher.settled()).await.expect("acknowledged in time");
    assert_eq!(settled, [Settled { id: Uuid::from_u128(1), confirmed: true }]);
    assert_eq!(served.rows().await, 20, "its neighbours' and the foreign one");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_command_that_others_block_is_put_off_and_its_neighbours_are_answered() {
    let owned = Owned::open::<migrations::Clinic>(Stack::Postgres).await;
    let impatient = owned.impatient("impatient").await;
    let mut served = Served::of(owned, impatient);
    served.send(&[keep(13, "good")]);
    served.answers(1).await;
    let mut row = Query::select();
    row.column("key").from("inbox").and_where(Expr::col("key").eq(Uuid::from_u128(13))).lock_exclusive();
    let held = served.owned.hold(&row).await;
    // A second attempt looks for its row.
    let again = |key| Command { attempt: 2, ..keep(key, "good") };
    served.send(&(1..=20).map(again).collect::<Vec<_>>());
    let answers = served.answers(20).await;
    for (key, outcome) in &answers {
        let expected = if *key == Uuid::from_u128(13) { None } else { Some(Outcome::succeeded(json!({}))) };
        match expected {
            Some(expected) => assert_eq!(*outcome, expected, "{key}"),
            None => assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}"),
        }
    }
    held.commit().await.unwrap();
    served.send(&[again(13)]);
    assert_eq!(served.answers(1).await.into_values().collect::<Vec<_>>(), [Outcome::succeeded(json!({}))]);
    assert_eq!(served.rows().await, 20);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_batch_that_others_block_as_a_whole_is_put_off_as_a_whole() {
    let owned = Owned::open::<migrations::Clinic>(Stack::Postgres).await;
    let impatient = owned.impatient("impatient").await;
    let mut served = Served::of(owned, impatient);
    let held = served.owned.hold_table("inbox").await;
    let began = Instant::now();
    served.send(&(1..=64).map(|key| keep(key, "good")).collect::<Vec<_>>());
    let answers = served.answers(64).await;
    assert!(answers.values().all(|outcome| matches!(outcome, Outcome::Retry { .. })), "{answers:?}");
    // Each would have waited by itself for a fifth of a second.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    held.commit().await.unwrap();
    assert_eq!(served.rows().await, 0);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_server_that_crashes_under_a_batch_loses_and_repeats_nothing() {
    let services = Services::private_postgres().await;
    let mut served = Served::over(Owned::on_server::<migrations::Clinic>(&services).await);
    let batch = |from: u128| (from..from + 20).map(|key| keep(key, "good")).collect::<Vec<_>>();
    served.send(&batch(100));
    served.answers(20).await;

    // The crash cuts off a transaction half-way, and finds more to do when it is over.
    let table = served.owned.hold_table("slots").await;
    served.send(&batch(200));
    served.owned.blocked("first", "watch").await;
    services.database().stop_immediate().await.unwrap();
    served.send(&batch(300));
    let down = served.owned.db.reader().execute_unprepared("select 1").await.map_err(db::Error::from);
    assert!(down.is_err_and(|error| error.is_transient()));
    drop(table);
    services.database().start().await.unwrap();

    let answers = served.answers(40).await;
    assert!(answers.values().all(|outcome| *outcome == Outcome::succeeded(json!({}))), "{answers:?}");
    assert_eq!(served.rows().await, 60);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_verdict_outlives_a_crash_of_the_server() {
    let services = Services::private_postgres().await;
    let owned = Owned::on_server::<migrations::Clinic>(&services).await;
    let (began, mut begun) = mpsc::channel(10);
    let (counts, gate) = (Arc::new(Counts::default()), Arc::new(Semaphore::new(0)));
    let provider = Provider {
        counts: Arc::clone(&counts),
        undoable: true,
        gate: Arc::clone(&gate),
        began,
        recorded: Arc::default(),
    };
    let handler = ExternalHandler::new(owned.db.clone(), provider, ExternalOptions::default());
    let desk = Desk::open(Arc::new(handler)).await;
    let execute = command("provider", Uuid::from_u128(1), Verb::Execute, 1, json!({"n": 5}));
    desk.hand_over(std::slice::from_ref(&execute)).await;
    tokio::time::timeout(LIMIT, begun.recv()).await.expect("a call in time").unwrap();
    services.database().stop_immediate().await.unwrap();
    // The provider answers while nothing can be recorded.
    gate.add_permits(1);
    let down = owned.db.reader().execute_unprepared("select 1").await.map_err(db::Error::from);
    assert!(down.is_err_and(|error| error.is_transient()));
    testkit::eventually(LIMIT, "the provider has answered", async || match counts.get(execute.key, "made") {
        1 => Ok(()),
        made => Err(format!("made {made} times")),
    })
    .await;
    services.database().start().await.unwrap();
    assert_eq!(desk.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
    assert_eq!(desk.send(std::slice::from_ref(&execute)).await, [Outcome::succeeded(json!({"n": 5}))]);
    assert_eq!(counts.get(execute.key, "called"), 1);
}
