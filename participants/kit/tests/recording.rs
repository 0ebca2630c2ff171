//! Verdicts that come while another one is recorded: they share the next transaction, and nothing else.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::{LIMIT, Owned, Stack};
use participant_kit::conformance::command;
use participant_kit::handler::Ticket;
use participant_kit::{ExternalHandler, ExternalOptions};
use saga_defs::message::NOTHING_TO_UNDO;
use saga_defs::{Command, Outcome, Verb};
use serde_json::{Value, json};
use support::{Counts, Desk, Provider, database};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

/// Later than any test's end: what a test sees is not a sweep's doing.
const NEVER: Duration = Duration::from_secs(3_600);

/// A run whose calls wait at a gate, and whose transactions can be kept open.
struct World {
    _owned: Owned,
    desk: Desk,
    counts: Arc<Counts>,
    gate: Arc<Semaphore>,
    recorded: Arc<Mutex<Vec<(Uuid, Verb)>>>,
    statements: Arc<Mutex<Vec<String>>>,
}

impl World {
    async fn new(stack: Stack) -> Self {
        let owned = database(stack).await;
        let (counts, gate) = (Arc::new(Counts::default()), Arc::new(Semaphore::new(0)));
        let (recorded, statements) = (Arc::default(), Arc::<Mutex<Vec<String>>>::default());
        let (began, _) = mpsc::channel(1);
        let provider = Provider {
            counts: Arc::clone(&counts),
            undoable: true,
            gate: Arc::clone(&gate),
            began,
            recorded: Arc::clone(&recorded),
        };
        let told = Arc::clone(&statements);
        let db = owned.db.clone().telling(move |text| told.lock().unwrap().push(text.to_owned()));
        let options = ExternalOptions { concurrency: 80, sweep_every: NEVER, ..ExternalOptions::default() };
        let desk = Desk::open(Arc::new(ExternalHandler::new(db, provider, options))).await;
        Self { _owned: owned, desk, counts, gate, recorded, statements }
    }

    /// Hands effects over as one batch, has the first keep the transaction open that records it until the verdicts of
    /// all others wait, in their order.
    async fn in_line(&self, commands: &[Command]) -> Vec<Ticket> {
        let recording = self.counts.hold_records();
        self.counts.slices();
        let tickets = self.desk.hand_over(commands).await;
        // The gate lets calls through in the order in which they began.
        self.gate.add_permits(1);
        self.counts.tries(1).await;
        self.gate.add_permits(commands.len() - 1);
        self.counts.called(&commands.iter().map(|command| command.key).collect::<Vec<_>>(), 1).await;
        recording.add_permits(1_000);
        tickets
    }

    fn recorded(&self) -> Vec<u128> {
        self.recorded.lock().unwrap().iter().map(|(key, _)| key.as_u128()).collect()
    }

    /// The statements over sets since this was asked last. A sweep's are made by builders, which quote names.
    fn told(&self) -> Vec<String> {
        let mut told = std::mem::take(&mut *self.statements.lock().unwrap());
        told.retain(|text| !text.contains('"'));
        told
    }
}

fn execute(key: u128, payload: Value) -> Command {
    command("provider", Uuid::from_u128(key), Verb::Execute, 1, payload)
}

fn compensate(key: u128) -> Command {
    command("provider", Uuid::from_u128(key), Verb::Compensate, 1, Value::Null)
}

fn made() -> Outcome {
    Outcome::succeeded(json!({"n": 5}))
}

fn numbers(slices: &[Vec<Uuid>]) -> Vec<Vec<u128>> {
    slices.iter().map(|slice| slice.iter().map(Uuid::as_u128).collect()).collect()
}

fixture::on_every_stack! {
    verdicts_that_wait_are_recorded_together_in_the_order_they_came_in,
    a_lone_verdict_waits_for_nobody,
    outcomes_of_one_slice_are_told_apart,
    many_verdicts_take_as_many_statements_as_one,
    a_verdict_that_is_refused_for_ever_keeps_no_neighbour_back,
    a_verdict_that_breaks_its_transaction_keeps_no_neighbour_back,
    a_slice_waits_for_its_database_and_all_of_it_is_answered,
    shutdown_records_all_that_waits,
}

async fn verdicts_that_wait_are_recorded_together_in_the_order_they_came_in(stack: Stack) {
    let world = World::new(stack).await;
    let commands = [5, 9, 3, 7].map(|key| execute(key, json!({"n": 5})));
    world.in_line(&commands).await;
    for command in &commands {
        assert_eq!(world.desk.definite(command.command_id).await, made());
    }
    assert_eq!(numbers(&world.counts.slices()), [vec![5], vec![9, 3, 7]]);
}

async fn a_lone_verdict_waits_for_nobody(stack: Stack) {
    let world = World::new(stack).await;
    world.gate.add_permits(3);
    for key in 1..=3 {
        assert_eq!(world.desk.send(&[execute(key, json!({"n": 5}))]).await, [made()]);
    }
    assert_eq!(numbers(&world.counts.slices()), [[1], [2], [3]]);
}

async fn outcomes_of_one_slice_are_told_apart(stack: Stack) {
    let world = World::new(stack).await;
    let commands = [
        execute(1, json!({"n": 5})),
        execute(10, json!({"n": 5})),
        execute(11, json!({"refuse": "declined"})),
        execute(12, json!({"n": 5, "retries": 1})),
        execute(13, json!({"n": 5})),
        execute(14, json!({"refuse": "declined"})),
    ];
    world.desk.hand_over(&commands).await;
    let undos = [compensate(13), compensate(14)];
    let asked = world.desk.send(&undos).await;
    assert!(asked.iter().all(|outcome| matches!(outcome, Outcome::Retry { .. })), "{asked:?}");
    // The first keeps the transaction open until all have their verdicts.
    let recording = world.counts.hold_records();
    world.gate.add_permits(commands.len());
    world.counts.called(&commands.each_ref().map(|command| command.key), 1).await;
    world.counts.tries(1).await;
    recording.add_permits(10);
    assert_eq!(world.desk.definite(commands[1].command_id).await, made());
    assert!(matches!(world.desk.definite(commands[2].command_id).await, Outcome::Refused { .. }));
    assert_eq!(world.desk.definite(commands[4].command_id).await, made());
    assert!(matches!(world.desk.definite(commands[5].command_id).await, Outcome::Refused { .. }));
    assert_eq!(numbers(&world.counts.slices()), [[1, 10, 11, 13, 14]], "what is open has nothing to record");
    let nothing = Outcome::succeeded(json!({ NOTHING_TO_UNDO: true }));
    assert_eq!(world.desk.definite(undos[1].command_id).await, nothing);
    world.gate.add_permits(1);
    assert_eq!(world.desk.definite(undos[0].command_id).await, Outcome::succeeded(json!({})));
    let key = |key: u128| Uuid::from_u128(key);
    assert_eq!(world.counts.get(key(13), "undone"), 1, "whoever recorded that it stands undid it");
    let again = world.desk.send(&[Command { attempt: 2, ..commands[3].clone() }]).await;
    assert!(matches!(again[0], Outcome::Retry { .. }), "nothing was learnt of it: {again:?}");
    assert_eq!(world.recorded().iter().filter(|key| **key == 12).count(), 0);
}

async fn many_verdicts_take_as_many_statements_as_one(stack: Stack) {
    let world = World::new(stack).await;
    world.gate.add_permits(1);
    let lone = execute(1, json!({"n": 5}));
    assert_eq!(world.desk.send(&[lone]).await, [made()]);
    let alone = world.told();

    let many: Vec<Command> = (100..150).map(|key| execute(key, json!({"n": 5}))).collect();
    world.in_line(&many).await;
    for command in &many {
        assert_eq!(world.desk.definite(command.command_id).await, made());
    }
    assert_eq!(world.counts.slices().iter().map(Vec::len).collect::<Vec<_>>(), [1, 49]);
    let told = world.told();
    // Two of them record: the first of the many, and all others together.
    let record = &alone[alone.len() - 2..];
    assert_eq!(told, [&alone[..], record].concat(), "the texts are the same");
}

async fn a_verdict_that_is_refused_for_ever_keeps_no_neighbour_back(stack: Stack) {
    poisonous(stack, "refused").await;
}

async fn a_verdict_that_breaks_its_transaction_keeps_no_neighbour_back(stack: Stack) {
    poisonous(stack, "breaks").await;
}

async fn poisonous(stack: Stack, how: &str) {
    let world = World::new(stack).await;
    let payload = |key| if key == 13 { json!({"n": 5, "poison": how}) } else { json!({"n": 5}) };
    // The first keeps the others waiting.
    let commands: Vec<Command> = (9..18).map(|key| execute(key, payload(key))).collect();
    let tickets = world.in_line(&commands).await;
    for command in commands.iter().filter(|command| command.key != Uuid::from_u128(13)) {
        assert_eq!(world.desk.definite(command.command_id).await, made());
    }
    // Others come while it is tried again.
    let late: Vec<Command> = (30..34).map(|key| execute(key, json!({"n": 5}))).collect();
    world.gate.add_permits(late.len());
    assert_eq!(world.desk.send(&late).await, vec![made(); 4]);
    assert_eq!(world.desk.given_up().await, tickets[4], "it is asked for again");
    let slices = numbers(&world.counts.slices());
    let guilty: Vec<usize> = slices.iter().filter(|slice| slice.contains(&13)).map(Vec::len).collect();
    assert!(guilty[3..].len() >= 5 && guilty[3..].iter().all(|size| *size == 1), "it is tried by itself: {slices:?}");
    assert!(guilty[..3].iter().all(|size| *size > 1), "halvings found it, and it spoilt nothing more: {slices:?}");
    let mut recorded = world.recorded();
    recorded.sort_unstable();
    let all: Vec<u128> = (9..18).filter(|key| *key != 13).chain(30..34).collect();
    assert_eq!(recorded, all, "each of the others once");
    let open = world.desk.send(&[Command { attempt: 2, ..commands[4].clone() }]).await;
    assert!(matches!(open[0], Outcome::Retry { .. }), "the call stays open: {open:?}");
}

async fn a_slice_waits_for_its_database_and_all_of_it_is_answered(stack: Stack) {
    let world = World::new(stack).await;
    let commands: Vec<Command> = (10..18).map(|key| execute(key, json!({"n": 5}))).collect();
    world.counts.fail_records(7);
    world.in_line(&commands).await;
    for command in &commands {
        assert_eq!(world.desk.definite(command.command_id).await, made());
    }
    let mut recorded = world.recorded();
    recorded.sort_unstable();
    assert_eq!(recorded, (10..18).collect::<Vec<_>>(), "each once");
}

async fn shutdown_records_all_that_waits(stack: Stack) {
    let world = World::new(stack).await;
    let commands: Vec<Command> = (10..18).map(|key| execute(key, json!({"n": 5}))).collect();
    world.desk.hand_over(&commands).await;
    let recording = world.counts.hold_records();
    world.gate.add_permits(commands.len());
    world.counts.called(&commands.iter().map(|command| command.key).collect::<Vec<_>>(), 1).await;
    world.desk.run.tasks.stop();
    recording.add_permits(100);
    for command in &commands {
        assert_eq!(world.desk.definite(command.command_id).await, made());
    }
    let left = tokio::time::timeout(LIMIT, world.desk.shutdown()).await.expect("it ends");
    assert_eq!((left, world.recorded().len()), (0, 8));
}
