//! What only external effects have: calls that are open while other commands come, and runs that die with them.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::{LIMIT, Owned, Stack};
use participant_kit::conformance::command;
use participant_kit::{Effect, ExternalHandler, ExternalOptions};
use saga_defs::message::{ALREADY_EXECUTED, FENCED, NOTHING_TO_UNDO};
use saga_defs::{Command, Outcome, Verb};
use sea_orm::sea_query::Query;
use sea_orm::{ConnectionTrait as _, QueryResult};
use serde_json::{Value, json};
use support::{Counts, Desk, Provider, database};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

/// The world that outlives a run: database, provider, gate.
struct World {
    owned: Owned,
    counts: Arc<Counts>,
    gate: Arc<Semaphore>,
    recorded: Arc<Mutex<Vec<(Uuid, Verb)>>>,
    undoable: bool,
    key: Uuid,
}

impl World {
    async fn new(stack: Stack, undoable: bool) -> Self {
        Self {
            owned: database(stack).await,
            counts: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            recorded: Arc::default(),
            undoable,
            key: Uuid::new_v4(),
        }
    }

    /// A run of the participant, and the calls that it begins.
    async fn run(&self, take_over_at_start: bool) -> (Desk, mpsc::Receiver<Effect>) {
        self.run_through(take_over_at_start, Arc::clone(&self.gate)).await
    }

    async fn run_through(&self, take_over_at_start: bool, gate: Arc<Semaphore>) -> (Desk, mpsc::Receiver<Effect>) {
        let (began, begun) = mpsc::channel(100);
        let provider = Provider {
            counts: Arc::clone(&self.counts),
            undoable: self.undoable,
            gate,
            began,
            recorded: Arc::clone(&self.recorded),
        };
        let options = ExternalOptions {
            sweep_every: Duration::from_millis(20),
            take_over_at_start,
            ..ExternalOptions::default()
        };
        let handler = ExternalHandler::new(self.owned.db.clone(), provider, options);
        (Desk::open(Arc::new(handler)).await, begun)
    }

    fn execute(&self, attempt: u32, payload: Value) -> Command {
        command("provider", self.key, Verb::Execute, attempt, payload)
    }

    fn compensate(&self, attempt: u32) -> Command {
        command("provider", self.key, Verb::Compensate, attempt, Value::Null)
    }

    fn counted(&self) -> [u64; 3] {
        ["called", "made", "undone"].map(|what| self.counts.get(self.key, what))
    }

    /// Two columns of the only effect.
    async fn stored(&self, columns: [&'static str; 2]) -> QueryResult {
        let select = Query::select().columns(columns).from("inbox").to_owned();
        self.owned.db.reader().query_one(&select).await.unwrap().unwrap()
    }

    /// The stored commands of the effect.
    async fn stored_commands(&self) -> [Option<String>; 2] {
        let row = self.stored(["command", "undo_command"]).await;
        [row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap()]
    }

    /// Whether an announcement is owed. Then it is leased or due.
    async fn owes(&self) -> bool {
        let row = self.stored(["announcing", "lease_until"]).await;
        let (announcing, lease): (Option<String>, Option<i64>) =
            (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap());
        assert_eq!(announcing.is_some(), lease.is_some(), "what is owed is due, and nothing else");
        announcing.is_some()
    }

    async fn owes_nothing(&self) {
        testkit::eventually(LIMIT, "the announcement is noted", async || {
            if self.owes().await { Err("it is owed") } else { Ok(()) }
        })
        .await;
    }

    /// Who makes the call, and for how long.
    async fn lease(&self) -> (Uuid, i64) {
        let row = self.stored(["owner", "lease_until"]).await;
        (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap())
    }
}

async fn begins(begun: &mut mpsc::Receiver<Effect>) -> Effect {
    tokio::time::timeout(LIMIT, begun.recv()).await.expect("a call in time").expect("the run lives")
}

fn refused(outcome: &Outcome, expected: &str) {
    assert!(matches!(outcome, Outcome::Refused { code, .. } if code == expected), "{outcome:?}");
}

fixture::on_every_stack! {
    an_open_call_is_not_made_twice_and_answers_the_first_attempt,
    compensate_on_an_open_call_is_carried_out_after_the_verdict,
    compensate_on_an_open_call_that_is_refused_finds_nothing,
    what_cannot_be_undone_waits_for_the_verdict_and_stands,
    an_unknown_verdict_is_asked_for_again_by_the_kit_itself,
    a_run_that_died_in_a_call_is_continued_by_the_next,
    a_run_that_died_in_an_undo_is_continued_by_the_next,
    the_late_verdict_of_a_run_that_was_taken_over_changes_nothing,
    a_late_verdict_that_says_nothing_leaves_the_lease_alone,
    a_lease_of_a_live_run_is_not_taken,
    what_a_run_announced_in_vain_is_announced_again,
    what_a_dead_run_did_not_announce_is_announced_by_the_next,
    an_announcement_that_is_owed_survives_the_undo,
    an_answer_whose_delivery_came_again_is_owed,
    a_verdict_waits_for_its_database_and_is_answered,
    shutdown_finishes_the_call_in_hand,
    what_is_open_or_owed_is_not_forgotten,
}

async fn what_is_open_or_owed_is_not_forgotten(stack: Stack) {
    let world = World::new(stack, true).await;
    let (desk, mut begun) = world.run(false).await;
    desk.turn_deaf().await;
    let (saga, execute) = ([world.key], world.execute(1, json!({"n": 5, "retries": 1})));
    desk.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    assert_eq!(desk.forget(&saga).await, 0, "its call is open");
    world.gate.add_permits(10);
    desk.definite(execute.command_id).await;
    assert!(world.owes().await);
    assert_eq!(desk.forget(&saga).await, 0, "an announcement is owed");
    desk.hear().await;
    assert_eq!(desk.lose_announcements().await, 1);
    desk.definite(execute.command_id).await;
    world.owes_nothing().await;
    assert_eq!(desk.forget(&saga).await, 1);
}

async fn an_open_call_is_not_made_twice_and_answers_the_first_attempt(stack: Stack) {
    let world = World::new(stack, true).await;
    let (desk, mut begun) = world.run(false).await;
    let first = world.execute(1, json!({"n": 5}));
    desk.hand_over(std::slice::from_ref(&first)).await;
    assert_eq!(begins(&mut begun).await.provider_key, format!("{}:execute", world.key));
    let second = desk.send(&[world.execute(2, json!({"n": 5}))]).await;
    assert!(matches!(second[0], Outcome::Retry { .. }), "{second:?}");
    world.gate.add_permits(1);
    assert_eq!(desk.definite(first.command_id).await, Outcome::succeeded(json!({"n": 5})));
    assert_eq!(world.counted(), [1, 1, 0]);
}

async fn compensate_on_an_open_call_is_carried_out_after_the_verdict(stack: Stack) {
    let world = World::new(stack, true).await;
    let (desk, mut begun) = world.run(false).await;
    let (execute, compensate) = (world.execute(1, json!({"n": 5})), world.compensate(1));
    desk.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    let outcomes = desk.send(std::slice::from_ref(&compensate)).await;
    assert!(matches!(outcomes[0], Outcome::Retry { .. }), "{outcomes:?}");
    world.gate.add_permits(1);
    assert!(matches!(desk.definite(execute.command_id).await, Outcome::Succeeded { .. }));
    let undo = begins(&mut begun).await;
    assert_eq!((undo.provider_key, undo.output), (format!("{}:compensate", world.key), Some(json!({"n": 5}))));
    assert_eq!(undo.command.payload, Value::Null, "an executed effect keeps no payload");
    let fenced = desk.send(&[world.execute(2, json!({"n": 5}))]).await;
    refused(&fenced[0], FENCED);
    world.gate.add_permits(1);
    assert!(matches!(desk.definite(compensate.command_id).await, Outcome::Succeeded { .. }));
    assert_eq!(world.counted(), [1, 1, 1]);
    assert_eq!(*world.recorded.lock().unwrap(), [(world.key, Verb::Execute), (world.key, Verb::Compensate)]);
    assert_eq!(world.stored_commands().await, [None, None]);
}

async fn compensate_on_an_open_call_that_is_refused_finds_nothing(stack: Stack) {
    let world = World::new(stack, true).await;
    let (desk, mut begun) = world.run(false).await;
    let (execute, compensate) = (world.execute(1, json!({"refuse": "declined"})), world.compensate(1));
    desk.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    desk.send(std::slice::from_ref(&compensate)).await;
    world.gate.add_permits(1);
    refused(&desk.definite(execute.command_id).await, "declined");
    let undone = desk.definite(compensate.command_id).await;
    assert_eq!(undone, Outcome::succeeded(json!({ NOTHING_TO_UNDO: true })));
    assert_eq!(world.counted(), [1, 0, 0]);
    assert_eq!(world.stored_commands().await, [None, None]);
}

async fn what_cannot_be_undone_waits_for_the_verdict_and_stands(stack: Stack) {
    let world = World::new(stack, false).await;
    let (desk, mut begun) = world.run(false).await;
    let execute = world.execute(1, json!({"n": 5}));
    desk.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    let open = desk.send(&[world.compensate(1)]).await;
    assert!(matches!(open[0], Outcome::Retry { .. }), "{open:?}");
    world.gate.add_permits(1);
    desk.definite(execute.command_id).await;
    refused(&desk.send(&[world.compensate(2)]).await[0], ALREADY_EXECUTED);
    assert_eq!(world.counted(), [1, 1, 0]);
    assert_eq!(world.stored_commands().await[0], None, "nothing will ever need the command again");
}

async fn an_unknown_verdict_is_asked_for_again_by_the_kit_itself(stack: Stack) {
    let world = World::new(stack, true).await;
    world.gate.add_permits(10);
    let (desk, mut begun) = world.run(false).await;
    let execute = world.execute(1, json!({"n": 5, "retries": 1}));
    let first = desk.send(std::slice::from_ref(&execute)).await;
    assert!(matches!(first[0], Outcome::Retry { .. }), "{first:?}");
    assert_eq!(desk.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
    assert_eq!(begins(&mut begun).await.provider_ref, None);
    let again = begins(&mut begun).await;
    assert_eq!((again.provider_ref.as_deref(), again.interrupted), (Some("object"), false));
    assert_eq!(world.counted(), [2, 1, 0]);
}

async fn a_run_that_died_in_a_call_is_continued_by_the_next(stack: Stack) {
    let world = World::new(stack, true).await;
    let closed = Arc::new(Semaphore::new(0));
    let (dead, mut begun) = world.run_through(false, closed).await;
    let (execute, compensate) = (world.execute(1, json!({"n": 5})), world.compensate(1));
    dead.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    dead.send(std::slice::from_ref(&compensate)).await;

    world.gate.add_permits(2);
    let (desk, mut begun) = world.run(true).await;
    let resumed = begins(&mut begun).await;
    assert_eq!(resumed.command, execute, "the stored command is whole");
    assert!(resumed.interrupted, "it may have been made");
    assert_eq!(desk.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
    assert!(matches!(desk.definite(compensate.command_id).await, Outcome::Succeeded { .. }));
    assert_eq!(world.counted(), [1, 1, 1]);
}

async fn a_run_that_died_in_an_undo_is_continued_by_the_next(stack: Stack) {
    let world = World::new(stack, true).await;
    let only_one = Arc::new(Semaphore::new(1));
    let (dead, mut begun) = world.run_through(false, only_one).await;
    let (execute, compensate) = (world.execute(1, json!({"n": 5})), world.compensate(1));
    dead.send(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    dead.hand_over(std::slice::from_ref(&compensate)).await;
    assert_eq!(begins(&mut begun).await.provider_key, format!("{}:compensate", world.key));

    world.gate.add_permits(1);
    let (desk, mut begun) = world.run(true).await;
    assert_eq!(begins(&mut begun).await.output, Some(json!({"n": 5})));
    assert!(matches!(desk.definite(compensate.command_id).await, Outcome::Succeeded { .. }));
    assert_eq!(world.counted(), [1, 1, 1]);
}

async fn the_late_verdict_of_a_run_that_was_taken_over_changes_nothing(stack: Stack) {
    let world = World::new(stack, true).await;
    let late = Arc::new(Semaphore::new(0));
    let (zombie, mut begun) = world.run_through(false, Arc::clone(&late)).await;
    let execute = world.execute(1, json!({"n": 5}));
    zombie.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;

    world.gate.add_permits(1);
    let (desk, _begun) = world.run(true).await;
    desk.definite(execute.command_id).await;
    late.add_permits(1);
    assert_eq!(zombie.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
    assert_eq!(*world.recorded.lock().unwrap(), [(world.key, Verb::Execute)], "recorded once");
}

async fn a_late_verdict_that_says_nothing_leaves_the_lease_alone(stack: Stack) {
    let world = World::new(stack, true).await;
    let late = Arc::new(Semaphore::new(0));
    let (zombie, mut begun) = world.run_through(false, Arc::clone(&late)).await;
    zombie.hand_over(&[world.execute(1, json!({"n": 5, "retries": 1}))]).await;
    begins(&mut begun).await;
    let (_desk, mut begun) = world.run(true).await;
    begins(&mut begun).await;
    let lease = world.lease().await;
    late.add_permits(1);
    assert_eq!(zombie.shutdown().await, 0);
    assert_eq!(world.counted(), [1, 0, 0], "the zombie has its verdict");
    assert_eq!(world.lease().await, lease);
}

async fn a_lease_of_a_live_run_is_not_taken(stack: Stack) {
    let world = World::new(stack, true).await;
    let (desk, mut begun) = world.run(false).await;
    let execute = world.execute(1, json!({"n": 5}));
    desk.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    let (other, mut others) = world.run(false).await;
    // A call that becomes due later, and belongs to whichever run sweeps first: until then both swept many times.
    let due = command("provider", Uuid::new_v4(), Verb::Execute, 1, json!({"n": 1, "retries": 1}));
    world.gate.add_permits(3);
    other.send(std::slice::from_ref(&due)).await;
    tokio::select! {
        biased;
        _ = desk.definite(due.command_id) => {}
        _ = other.definite(due.command_id) => {}
    }
    while let Ok(effect) = others.try_recv() {
        assert_eq!(effect.command.key, due.key);
    }
    desk.definite(execute.command_id).await;
    assert_eq!(world.counted(), [1, 1, 0]);
}

async fn what_a_run_announced_in_vain_is_announced_again(stack: Stack) {
    let world = World::new(stack, true).await;
    world.gate.add_permits(10);
    let (desk, _begun) = world.run(false).await;
    desk.turn_deaf().await;
    let execute = world.execute(1, json!({"n": 5, "retries": 1}));
    desk.send(std::slice::from_ref(&execute)).await;
    for _ in 0..3 {
        assert_eq!(desk.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
        assert!(world.owes().await, "nobody knows that it arrived");
        assert_eq!(desk.lose_announcements().await, 1);
    }
    desk.hear().await;
    desk.definite(execute.command_id).await;
    world.owes_nothing().await;
    assert_eq!(world.counted(), [2, 1, 0], "announcing calls nobody");
}

async fn what_a_dead_run_did_not_announce_is_announced_by_the_next(stack: Stack) {
    let world = World::new(stack, true).await;
    world.gate.add_permits(10);
    let (dead, _begun) = world.run(false).await;
    dead.turn_deaf().await;
    let execute = world.execute(1, json!({"refuse": "declined", "retries": 1}));
    dead.send(std::slice::from_ref(&execute)).await;
    refused(&dead.definite(execute.command_id).await, "declined");

    let (desk, _begun) = world.run(true).await;
    refused(&desk.definite(execute.command_id).await, "declined");
    world.owes_nothing().await;
    assert_eq!(world.counted(), [2, 0, 0]);
}

async fn an_announcement_that_is_owed_survives_the_undo(stack: Stack) {
    let world = World::new(stack, true).await;
    world.gate.add_permits(10);
    let (dead, _begun) = world.run(false).await;
    dead.turn_deaf().await;
    let execute = world.execute(1, json!({"n": 5, "retries": 1}));
    dead.send(std::slice::from_ref(&execute)).await;
    dead.definite(execute.command_id).await;
    let undone = dead.send(&[world.compensate(1)]).await;
    assert!(matches!(undone[0], Outcome::Succeeded { .. }), "{undone:?}");
    assert!(world.owes().await, "the undo was answered to who asked, and the effect is still to be announced");

    let (desk, _begun) = world.run(true).await;
    assert_eq!(desk.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
    world.owes_nothing().await;
}

async fn an_answer_whose_delivery_came_again_is_owed(stack: Stack) {
    let world = World::new(stack, true).await;
    let (dead, mut begun) = world.run(false).await;
    dead.turn_deaf().await;
    let execute = world.execute(1, json!({"n": 5}));
    dead.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    // Its connection was lost, so the broker gave it to somebody else; it is acknowledged there.
    let again = dead.send(std::slice::from_ref(&execute)).await;
    assert!(matches!(again[0], Outcome::Retry { .. }), "{again:?}");
    world.gate.add_permits(1);
    dead.definite(execute.command_id).await;
    assert!(world.owes().await, "the ticket in hand is worth nothing");

    let (desk, _begun) = world.run(true).await;
    assert_eq!(desk.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
    world.owes_nothing().await;
    assert_eq!(world.counted(), [1, 1, 0]);
}

async fn a_verdict_waits_for_its_database_and_is_answered(stack: Stack) {
    let world = World::new(stack, true).await;
    let (desk, mut begun) = world.run(false).await;
    world.counts.fail_records(8);
    let execute = world.execute(1, json!({"n": 5}));
    desk.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    world.gate.add_permits(1);
    assert_eq!(desk.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
    assert_eq!((world.counts.records_to_fail(), world.counted()), (0, [1, 1, 0]));
    assert!(!world.owes().await, "it was answered to the delivery in hand");
}

async fn shutdown_finishes_the_call_in_hand(stack: Stack) {
    let world = World::new(stack, true).await;
    let (desk, mut begun) = world.run(false).await;
    let execute = world.execute(1, json!({"n": 5}));
    desk.hand_over(std::slice::from_ref(&execute)).await;
    begins(&mut begun).await;
    desk.run.tasks.stop();
    world.gate.add_permits(1);
    assert_eq!(desk.definite(execute.command_id).await, Outcome::succeeded(json!({"n": 5})));
    assert_eq!(desk.shutdown().await, 0);
}
