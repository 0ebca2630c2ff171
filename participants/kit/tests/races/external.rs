//! Effects at a provider.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::{LIMIT, Owned, Stack};
use participant_kit::conformance::command;
use participant_kit::{Effect, ExternalHandler, ExternalOptions};
use saga_defs::{Command, Outcome, Verb};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::row;
use crate::support::{Counts, Desk, Provider, database};

/// Sooner than anything a test waits for.
const OFTEN: Duration = Duration::from_millis(20);
/// Later than any test's end.
const NEVER: Duration = Duration::from_secs(3_600);

/// What all instances share.
struct World {
    owned: Owned,
    counts: Arc<Counts>,
    recorded: Arc<Mutex<Vec<(Uuid, Verb)>>>,
    key: Uuid,
}

/// An instance: its calls wait at its gate.
struct Run {
    desk: Desk,
    begun: mpsc::Receiver<Effect>,
    gate: Arc<Semaphore>,
}

impl World {
    async fn new() -> Self {
        let owned = database(Stack::Postgres).await;
        Self { owned, counts: Arc::default(), recorded: Arc::default(), key: Uuid::new_v4() }
    }

    async fn run(&self, name: &str, lease: Duration, sweep_every: Duration) -> Run {
        let (began, begun) = mpsc::channel(100);
        let gate = Arc::new(Semaphore::new(0));
        let provider = Provider {
            counts: Arc::clone(&self.counts),
            undoable: true,
            gate: Arc::clone(&gate),
            began,
            recorded: Arc::clone(&self.recorded),
        };
        let options = ExternalOptions { lease, sweep_every, ..ExternalOptions::default() };
        let handler = ExternalHandler::new(self.owned.instance(name).await, provider, options);
        Run { desk: Desk::open(Arc::new(handler)).await, begun, gate }
    }

    /// An instance that is frozen in its call: it renews no lease, and the one it has is over.
    async fn frozen(&self, execute: &Command) -> Run {
        let mut run = self.alone("frozen").await;
        // Its first sweep finds nothing: later it would renew the lease, and hold the row that a test is about.
        self.owned.quiet("frozen").await;
        run.desk.hand_over(std::slice::from_ref(execute)).await;
        run.begins().await;
        self.lapse(&[execute.key]).await;
        run
    }

    /// Ends leases, as time would.
    async fn lapse(&self, keys: &[Uuid]) {
        let mut lapse = Query::update();
        lapse.table("inbox").value("lease_until", 0).and_where(Expr::col("key").is_in(keys.iter().copied()));
        self.owned.db.writer().execute(&lapse).await.unwrap();
    }

    /// An instance that leaves other instances' calls alone.
    async fn alone(&self, name: &str) -> Run {
        self.run(name, NEVER, NEVER).await
    }

    fn execute(&self) -> Command {
        command("provider", self.key, Verb::Execute, 1, json!({"n": 5}))
    }

    fn compensate(&self) -> Command {
        command("provider", self.key, Verb::Compensate, 1, Value::Null)
    }

    fn counted(&self) -> [u64; 3] {
        ["called", "made", "undone"].map(|what| self.counts.get(self.key, what))
    }

    fn recorded(&self) -> Vec<Verb> {
        self.recorded.lock().unwrap().iter().map(|(_, verb)| *verb).collect()
    }
}

impl Run {
    async fn begins(&mut self) -> Effect {
        tokio::time::timeout(LIMIT, self.begun.recv()).await.expect("a call in time").expect("the run lives")
    }
}

fn made() -> Outcome {
    Outcome::succeeded(json!({"n": 5}))
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn of_two_sweeps_that_see_one_open_call_one_makes_it() {
    let world = World::new().await;
    let frozen = world.frozen(&world.execute()).await;
    let table = world.owned.hold_table("inbox").await;
    let mut one = world.run("one", NEVER, OFTEN).await;
    let mut other = world.run("other", NEVER, OFTEN).await;
    // Both have seen that the call is due, and are about to claim it.
    world.owned.blocked("one", "watch").await;
    world.owned.blocked("other", "watch").await;
    table.commit().await.unwrap();
    let effect = tokio::select! {
        effect = one.begins() => effect,
        effect = other.begins() => effect,
    };
    assert_eq!(effect.command, world.execute(), "the stored command is whole");
    // Both claims are through: whoever else calls has begun by now, or does before it stops.
    world.owned.quiet("one").await;
    world.owned.quiet("other").await;
    for run in [&one, &other] {
        run.gate.add_permits(10);
    }
    let command_id = world.execute().command_id;
    let outcome = tokio::select! {
        outcome = one.desk.definite(command_id) => outcome,
        outcome = other.desk.definite(command_id) => outcome,
    };
    assert_eq!(outcome, made());
    for run in [&one, &other] {
        assert_eq!(run.desk.shutdown().await, 0);
    }
    assert_eq!(world.counted(), [1, 1, 0]);
    assert!(one.begun.try_recv().is_err() && other.begun.try_recv().is_err(), "called again");
    drop(frozen);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_sweep_that_is_overtaken_leaves_the_call_to_who_has_it() {
    let world = World::new().await;
    let owned = &world.owned;
    let _frozen = world.frozen(&world.execute()).await;
    let table = owned.hold_table("inbox").await;
    let mut one = world.run("one", NEVER, OFTEN).await;
    owned.blocked("one", "watch").await;
    // The table is locked again as soon as the first claim is through. The other has seen the call before it was.
    let again = owned.hold_table("inbox");
    let other = async {
        owned.blocked("watch", "one").await;
        let other = world.run("other", NEVER, OFTEN).await;
        owned.blocked("other", "watch").await;
        table.commit().await.unwrap();
        other
    };
    let (again, mut other) = tokio::join!(again, other);
    one.begins().await;
    again.commit().await.unwrap();
    owned.quiet("other").await;
    for run in [&one, &other] {
        run.gate.add_permits(10);
    }
    assert_eq!(one.desk.definite(world.execute().command_id).await, made());
    assert_eq!(other.desk.shutdown().await, 0);
    assert_eq!(world.counted(), [1, 1, 0]);
    assert!(other.begun.try_recv().is_err(), "called again");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_sweep_does_not_wait_for_rows_that_are_being_written() {
    let world = World::new().await;
    let [lapsed, own, due] = [1, 2, 3].map(|key| Command { key: Uuid::from_u128(key), ..world.execute() });
    let mut frozen = world.frozen(&lapsed).await;
    let claimable = world.owned.hold(&row(lapsed.key)).await;
    // Renews its leases in every sweep.
    let mut run = world.run("run", OFTEN, OFTEN).await;
    run.desk.hand_over(std::slice::from_ref(&own)).await;
    assert_eq!(run.begins().await.command.key, own.key);
    let renewable = world.owned.hold(&row(own.key)).await;
    frozen.desk.hand_over(std::slice::from_ref(&due)).await;
    frozen.begins().await;
    world.lapse(&[due.key]).await;
    assert_eq!(run.begins().await.command.key, due.key);
    renewable.commit().await.unwrap();
    claimable.commit().await.unwrap();
    assert_eq!(run.begins().await.command.key, lapsed.key);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn of_two_verdicts_on_one_call_the_first_is_recorded_and_both_answer_alike() {
    let world = World::new().await;
    let execute = world.execute();
    let frozen = world.frozen(&execute).await;
    let mut successor = world.run("successor", NEVER, OFTEN).await;
    assert_eq!(successor.begins().await.provider_key, format!("{}:execute", world.key));
    let row = world.owned.hold(&row(world.key)).await;
    successor.gate.add_permits(1);
    world.owned.blocked("successor", "watch").await;
    frozen.gate.add_permits(1);
    world.owned.blocked("frozen", "successor").await;
    row.commit().await.unwrap();
    assert_eq!(successor.desk.definite(execute.command_id).await, made());
    assert_eq!(frozen.desk.definite(execute.command_id).await, made());
    assert_eq!(world.recorded(), [Verb::Execute]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_late_verdict_does_not_bring_back_what_was_undone_meanwhile() {
    let world = World::new().await;
    let (execute, compensate) = (world.execute(), world.compensate());
    let frozen = world.frozen(&execute).await;
    let successor = world.run("successor", NEVER, OFTEN).await;
    successor.gate.add_permits(2);
    assert_eq!(successor.desk.definite(execute.command_id).await, made());
    assert!(matches!(successor.desk.send(std::slice::from_ref(&compensate)).await[0], Outcome::Succeeded { .. }));
    frozen.gate.add_permits(1);
    assert_eq!(frozen.desk.definite(execute.command_id).await, made());
    assert_eq!(world.recorded(), [Verb::Execute, Verb::Compensate]);
    let answers = frozen.desk.send(&[world.execute()]).await;
    assert!(matches!(&answers[0], Outcome::Refused { code, .. } if code == "fenced"), "{answers:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn one_execute_at_two_instances_is_one_call() {
    let world = World::new().await;
    let (mut first, mut second) = (world.alone("first").await, world.alone("second").await);
    let (execute, table) = (world.execute(), world.owned.hold_table("inbox").await);
    let seen = async {
        world.owned.blocked("first", "watch").await;
        world.owned.blocked("second", "watch").await;
        table.commit().await.unwrap();
    };
    let commands = std::slice::from_ref(&execute);
    tokio::join!(first.desk.hand_over(commands), second.desk.hand_over(commands), seen);
    tokio::select! {
        _ = first.begins() => {}
        _ = second.begins() => {}
    }
    for run in [&first, &second] {
        run.gate.add_permits(10);
    }
    let outcome = tokio::select! {
        outcome = first.desk.definite(execute.command_id) => outcome,
        outcome = second.desk.definite(execute.command_id) => outcome,
    };
    assert_eq!(outcome, made());
    for run in [&first, &second] {
        assert_eq!(run.desk.shutdown().await, 0);
    }
    assert_eq!(world.counted(), [1, 1, 0]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_compensate_that_waits_for_the_verdict_undoes_what_was_done() {
    let world = World::new().await;
    let (mut first, mut second) = (world.alone("first").await, world.alone("second").await);
    let (execute, compensate) = (world.execute(), world.compensate());
    first.desk.hand_over(std::slice::from_ref(&execute)).await;
    first.begins().await;
    let row = world.owned.hold(&row(world.key)).await;
    first.gate.add_permits(1);
    world.owned.blocked("first", "watch").await;
    let seen = async {
        world.owned.blocked("second", "first").await;
        row.commit().await.unwrap();
    };
    tokio::join!(second.desk.hand_over(std::slice::from_ref(&compensate)), seen);
    let undo = second.begins().await;
    assert_eq!((undo.provider_key, undo.output), (format!("{}:compensate", world.key), Some(json!({"n": 5}))));
    second.gate.add_permits(1);
    assert!(matches!(second.desk.definite(compensate.command_id).await, Outcome::Succeeded { .. }));
    assert_eq!(first.desk.definite(execute.command_id).await, made());
    assert_eq!(world.counted(), [1, 1, 1]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_verdict_that_waits_for_a_compensate_opens_the_undo() {
    let world = World::new().await;
    let (mut first, second) = (world.alone("first").await, world.alone("second").await);
    let (execute, compensate) = (world.execute(), world.compensate());
    first.desk.hand_over(std::slice::from_ref(&execute)).await;
    first.begins().await;
    let row = world.owned.hold(&row(world.key)).await;
    let seen = async {
        world.owned.blocked("second", "watch").await;
        first.gate.add_permits(1);
        world.owned.blocked("first", "second").await;
        row.commit().await.unwrap();
    };
    let (answers, ()) = tokio::join!(second.desk.send(std::slice::from_ref(&compensate)), seen);
    assert!(matches!(answers[0], Outcome::Retry { .. }), "{answers:?}");
    assert_eq!(first.begins().await.provider_key, format!("{}:compensate", world.key));
    first.gate.add_permits(1);
    assert!(matches!(first.desk.definite(compensate.command_id).await, Outcome::Succeeded { .. }));
    assert_eq!(world.counted(), [1, 1, 1]);
}

/// Whoever waits for a row has none with a greater key: otherwise two slices of verdicts could wait for each other.
#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn two_instances_record_their_slices_in_one_order_whatever_order_verdicts_come_in() {
    let world = World::new().await;
    let owned = &world.owned;
    let [first, second, low, middle, high] = [1, 2, 10, 20, 30].map(|key| Command {
        key: Uuid::from_u128(key),
        command_id: Uuid::from_u128(key),
        ..world.execute()
    });
    let others = [high.key, middle.key, low.key];
    // Each has one effect that keeps it busy while it learns the others. Calls are answered as they began.
    let mut successor = world.run("successor", NEVER, OFTEN).await;
    successor.desk.hand_over(std::slice::from_ref(&second)).await;
    successor.begins().await;
    let mut frozen = world.alone("frozen").await;
    frozen.desk.hand_over(&[first.clone(), high.clone(), middle.clone(), low.clone()]).await;
    for _ in 0..4 {
        frozen.begins().await;
    }
    world.lapse(&[first.key, high.key, middle.key, low.key]).await;
    for _ in 0..4 {
        successor.begins().await;
    }
    let row_of_first = owned.hold(&row(first.key)).await;
    let row_of_second = owned.hold(&row(second.key)).await;
    let row_of_middle = owned.hold(&row(middle.key)).await;
    frozen.gate.add_permits(1);
    owned.blocked("frozen", "watch").await;
    frozen.gate.add_permits(3);
    world.counts.called(&others, 1).await;
    successor.gate.add_permits(1);
    owned.blocked("successor", "watch").await;
    successor.gate.add_permits(4);
    world.counts.called(&others, 2).await;
    row_of_first.commit().await.unwrap();
    assert_eq!(frozen.desk.definite(first.command_id).await, made());
    // One waits in the middle: the other must not be ahead of it.
    owned.blocked("frozen", "watch").await;
    row_of_second.commit().await.unwrap();
    assert_eq!(successor.desk.definite(second.command_id).await, made());
    owned.blocked("successor", "frozen").await;
    owned.free(&row(high.key)).await;
    row_of_middle.commit().await.unwrap();
    for command in [&low, &middle, &high] {
        assert_eq!(frozen.desk.definite(command.command_id).await, made());
    }
    // The other has nobody to answer.
    assert_eq!(successor.desk.shutdown().await, 0);
    let mut recorded: Vec<Uuid> = world.recorded.lock().unwrap().iter().map(|(key, _)| *key).collect();
    recorded.sort_unstable();
    assert_eq!(recorded, [first.key, second.key, low.key, middle.key, high.key], "each once");
}
