//! The life of a call: whose it is while it waits, how often it is made, and what those who come later know of it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::{LIMIT, Owned, Stack};
use participant_kit::conformance::command;
use participant_kit::{Effect, ExternalHandler, ExternalOptions};
use runtime::{Clock, SystemClock};
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{ExprTrait as _, Query};
use serde_json::{Value, json};
use support::{Counts, Desk, Provider, database};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

/// Sooner than anything a test waits for.
const OFTEN: Duration = Duration::from_millis(20);
/// Later than any test's end.
const NEVER: Duration = Duration::from_secs(3_600);

/// What all runs share.
struct World {
    owned: Owned,
    counts: Arc<Counts>,
    recorded: Arc<Mutex<Vec<(Uuid, Verb)>>>,
    clock: Arc<Ahead>,
}

/// A run: its calls wait at its gate.
struct Run {
    desk: Desk,
    begun: mpsc::Receiver<Effect>,
    gate: Arc<Semaphore>,
}

/// The time, and some more of it.
#[derive(Debug, Default)]
struct Ahead(Mutex<u64>);

impl Ahead {
    fn jump(&self, by: Duration) {
        *self.0.lock().unwrap() += u64::try_from(by.as_millis()).unwrap();
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_ms(*self.0.lock().unwrap())
    }
}

impl World {
    async fn new(stack: Stack) -> Self {
        Self { owned: database(stack).await, counts: Arc::default(), recorded: Arc::default(), clock: Arc::default() }
    }

    async fn run(&self, lease: Duration, sweep_every: Duration, concurrency: usize) -> Run {
        let (began, begun) = mpsc::channel(100);
        let gate = Arc::new(Semaphore::new(0));
        let provider = Provider {
            counts: Arc::clone(&self.counts),
            undoable: true,
            gate: Arc::clone(&gate),
            began,
            recorded: Arc::clone(&self.recorded),
        };
        let options = ExternalOptions { lease, sweep_every, concurrency, ..ExternalOptions::default() };
        let db = self.owned.db.clone().with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>);
        let desk = Desk::open(Arc::new(ExternalHandler::new(db, provider, options))).await;
        Run { desk, begun, gate }
    }

    fn called(&self, command: &Command) -> u64 {
        self.counts.get(command.key, "called")
    }

    async fn lease_until(&self, command: &Command) -> i64 {
        let mut select = Query::select();
        select.column("lease_until").from("inbox").and_where(sea_orm::sea_query::Expr::col("key").eq(command.key));
        let row = self.owned.db.reader().query_one(&select).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }
}

impl Run {
    async fn begins(&mut self) -> Effect {
        tokio::time::timeout(LIMIT, self.begun.recv()).await.expect("a call in time").expect("the run lives")
    }

    /// Hands over a command whose call is begun at once.
    async fn calls(&mut self, command: &Command) -> Effect {
        self.desk.hand_over(std::slice::from_ref(command)).await;
        self.begins().await
    }
}

fn execute(key: u128, payload: Value) -> Command {
    command("provider", Uuid::from_u128(key), Verb::Execute, 1, payload)
}

fn makes(key: u128) -> Command {
    execute(key, json!({"n": 5}))
}

fn made() -> Outcome {
    Outcome::succeeded(json!({"n": 5}))
}

fn is_retry(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { .. })
}

fixture::on_every_stack! {
    a_call_whose_verdict_is_refused_is_not_made_again,
    verdicts_that_are_refused_leave_their_places_to_others,
    what_is_due_is_called_for_however_many_commands_wait,
    a_call_that_lost_its_lease_in_line_is_not_begun,
    a_call_that_kept_its_lease_in_line_is_begun,
    a_call_that_is_called_off_in_line_knows_that_it_is_not_wanted,
    a_call_that_is_called_off_in_its_own_batch_knows_that_it_is_not_wanted,
    what_is_due_waits_for_room_and_not_for_the_next_sweep,
    leases_are_renewed_until_the_last_call_is_over,
    a_call_that_broke_is_known_as_interrupted,
    a_call_whose_undo_is_asked_for_knows_that_it_is_not_wanted,
}

async fn a_call_whose_verdict_is_refused_is_not_made_again(stack: Stack) {
    let world = World::new(stack).await;
    // A lease that would be over several times.
    let mut run = world.run(Duration::from_millis(200), OFTEN, 4).await;
    run.gate.add_permits(10);
    let command = execute(1, json!({"n": 5, "poison": "refused"}));
    run.calls(&command).await;
    run.desk.given_up().await;
    let again = run.desk.send(&[Command { attempt: 2, ..command.clone() }]).await;
    assert!(is_retry(&again[0]), "{again:?}");
    world.counts.tries(7).await;
    assert_eq!(world.called(&command), 1);
    world.counts.mend();
    assert_eq!(run.desk.definite(command.command_id).await, made(), "who asked first is told as well");
    assert_eq!((world.called(&command), world.recorded.lock().unwrap().len()), (1, 1));
}

async fn verdicts_that_are_refused_leave_their_places_to_others(stack: Stack) {
    let world = World::new(stack).await;
    let run = world.run(NEVER, NEVER, 2).await;
    run.gate.add_permits(10);
    // There is one place for calls of commands.
    let refused: Vec<Command> = (1..=2).map(|key| execute(key, json!({"n": 5, "poison": "refused"}))).collect();
    run.desk.hand_over(&refused).await;
    run.desk.given_up().await;
    run.desk.given_up().await;
    assert_eq!(run.desk.send(&[makes(3)]).await, [made()]);
}

async fn what_is_due_is_called_for_however_many_commands_wait(stack: Stack) {
    let world = World::new(stack).await;
    let mut run = world.run(NEVER, OFTEN, 4).await;
    run.gate.add_permits(1);
    let postponed = execute(1, json!({"n": 5, "retries": 1}));
    run.calls(&postponed).await;
    // Their calls are begun and not answered, or wait for their turn.
    run.desk.hand_over(&(10..20).map(makes).collect::<Vec<_>>()).await;
    let mut begun = Vec::new();
    while !begun.contains(&postponed.key) {
        begun.push(run.begins().await.command.key);
    }
    assert!(begun.len() <= 4, "three of the others at most: {begun:?}");
}

async fn a_call_that_lost_its_lease_in_line_is_not_begun(stack: Stack) {
    let world = World::new(stack).await;
    // It renews nothing, as if it stood still.
    let mut frozen = world.run(Duration::from_millis(1), NEVER, 2).await;
    let (first, second) = (makes(1), makes(2));
    let tickets = frozen.desk.hand_over(&[first.clone(), second.clone()]).await;
    let began = frozen.begins().await.command.key;
    let waiting = if began == first.key { &second } else { &first };

    world.clock.jump(Duration::from_secs(1));
    let mut other = world.run(NEVER, OFTEN, 8).await;
    let taken = [other.begins().await, other.begins().await];
    assert!(taken.iter().all(|effect| effect.interrupted));
    frozen.gate.add_permits(10);
    let given_up = frozen.desk.given_up().await;
    assert_eq!(given_up, tickets[usize::from(waiting.key == second.key)], "the other one tells who asked");
    other.gate.add_permits(10);
    assert_eq!(other.desk.definite(waiting.command_id).await, made());
    assert_eq!(world.called(waiting), 1);
}

async fn a_call_that_kept_its_lease_in_line_is_begun(stack: Stack) {
    let world = World::new(stack).await;
    let mut slow = world.run(Duration::from_millis(1), NEVER, 2).await;
    let both = [makes(1), makes(2)];
    slow.desk.hand_over(&both).await;
    slow.begins().await;
    slow.gate.add_permits(2);
    for command in &both {
        assert_eq!(slow.desk.definite(command.command_id).await, made());
    }
}

async fn a_call_that_is_called_off_in_line_knows_that_it_is_not_wanted(stack: Stack) {
    // On a lease that is fresh, and on one that is taken anew.
    for lease in [NEVER, Duration::from_millis(1)] {
        let world = World::new(stack).await;
        let mut run = world.run(lease, NEVER, 2).await;
        let both = [makes(1), makes(2)];
        run.desk.hand_over(&both).await;
        let waiting = &both[usize::from(run.begins().await.command.key == both[0].key)];
        let undo = command_of(waiting);
        assert!(is_retry(&run.desk.send(std::slice::from_ref(&undo)).await[0]));
        run.gate.add_permits(3);
        let effect = run.begins().await;
        assert_eq!((effect.command.key, effect.unwanted, effect.interrupted), (waiting.key, true, false));
        assert!(matches!(run.desk.definite(undo.command_id).await, Outcome::Succeeded { .. }));
    }
}

async fn a_call_that_is_called_off_in_its_own_batch_knows_that_it_is_not_wanted(stack: Stack) {
    let world = World::new(stack).await;
    let mut run = world.run(NEVER, NEVER, 4).await;
    let undo = command_of(&makes(1));
    run.desk.hand_over(&[makes(1), undo.clone()]).await;
    assert!(run.begins().await.unwanted);
    run.gate.add_permits(2);
    assert!(matches!(run.desk.definite(undo.command_id).await, Outcome::Succeeded { .. }));
}

async fn what_is_due_waits_for_room_and_not_for_the_next_sweep(stack: Stack) {
    let world = World::new(stack).await;
    let dead = world.run(Duration::from_millis(1), NEVER, 2).await;
    let left: Vec<Command> = (1..=20).map(makes).collect();
    dead.desk.hand_over(&left).await;
    world.clock.jump(Duration::from_secs(1));
    // It sweeps once, and has room for four.
    let run = world.run(NEVER, NEVER, 4).await;
    run.gate.add_permits(left.len());
    for command in &left {
        assert_eq!((run.desk.definite(command.command_id).await, world.called(command)), (made(), 1));
    }
}

async fn leases_are_renewed_until_the_last_call_is_over(stack: Stack) {
    let world = World::new(stack).await;
    let mut run = world.run(Duration::from_millis(300), OFTEN, 4).await;
    let command = makes(1);
    run.calls(&command).await;
    run.desk.run.tasks.stop();
    for _ in 0..3 {
        let lease = world.lease_until(&command).await;
        testkit::eventually(LIMIT, "the lease lasts longer", async || {
            if world.lease_until(&command).await > lease { Ok(()) } else { Err("not yet") }
        })
        .await;
    }
    run.gate.add_permits(1);
    assert_eq!(run.desk.definite(command.command_id).await, made());
    assert_eq!(run.desk.shutdown().await, 0);
}

async fn a_call_that_broke_is_known_as_interrupted(stack: Stack) {
    let world = World::new(stack).await;
    let mut run = world.run(NEVER, OFTEN, 4).await;
    run.gate.add_permits(10);
    let command = execute(1, json!({"n": 5, "breaks": 1}));
    assert!(!run.calls(&command).await.interrupted);
    // It is due when its wait is over, and no sooner.
    testkit::eventually(LIMIT, "the call is postponed", async || {
        let waits = world.lease_until(&command).await - world.clock.now().0;
        if waits < 10_000_000 { Ok(()) } else { Err(format!("{waits} us")) }
    })
    .await;
    world.clock.jump(Duration::from_secs(10));
    assert_eq!(run.desk.definite(command.command_id).await, made());
    assert!(run.begins().await.interrupted, "the provider may have made it");
}

async fn a_call_whose_undo_is_asked_for_knows_that_it_is_not_wanted(stack: Stack) {
    let world = World::new(stack).await;
    let mut run = world.run(NEVER, OFTEN, 4).await;
    let command = execute(1, json!({"n": 5, "retries": 1}));
    assert!(!run.calls(&command).await.unwanted);
    let undo = command_of(&command);
    assert!(is_retry(&run.desk.send(std::slice::from_ref(&undo)).await[0]));
    run.gate.add_permits(10);
    assert!(run.begins().await.unwanted);
    assert!(matches!(run.desk.definite(undo.command_id).await, Outcome::Succeeded { .. }));
}

fn command_of(execute: &Command) -> Command {
    command("provider", execute.key, Verb::Compensate, 1, Value::Null)
}
