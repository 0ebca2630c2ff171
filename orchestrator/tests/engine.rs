//! The engine on an in-memory store and the in-process transport, in paused time, with participants that the test
//! plays by hand: every interleaving here is forced.

mod support;

#[path = "support/log.rs"]
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orchestrator::{
    Engine, OperateRequest, Operated, Options, SeededEntropy, Snapshot, StartAnswer, StartRequest, Started,
};
use runtime::Tasks;
use saga_core::state::{CancelOutcome, Cause};
use saga_core::{Action, Decision, Refusal, Status};
use saga_defs::catalog::{self, Catalog};
use saga_defs::{Command, Outcome, Verb, message};
use saga_store::{Fault, MemoryStore, Store};
use serde_json::{Value, json};
use support::{LIMIT, World, request};
use tokio::task::JoinSet;
use tokio::time::Instant;
use transport::in_process::InProcess;
use transport::{Consumer, Message, Publisher, Queue, Transport};
use uuid::Uuid;

/// A participant played by hand.
struct Puppet {
    consumer: Box<dyn Consumer>,
    publisher: Arc<dyn Publisher>,
    pending: Vec<Command>,
}

impl Puppet {
    /// The next command.
    async fn command(&mut self, verb: Verb) -> Command {
        while self.pending.is_empty() {
            let deliveries = tokio::time::timeout(LIMIT, self.consumer.receive(1)).await.expect("a command in time");
            for delivery in deliveries.expect("the transport is open") {
                let items = message::decode::<Command>(&delivery.body).expect("commands are JSON");
                self.pending.extend(items.into_iter().map(|item| item.expect("commands can be read")));
                self.consumer.acknowledge(&[delivery.tag]).await;
            }
        }
        let command = self.pending.remove(0);
        assert_eq!(command.verb, verb, "{command:?}");
        command
    }

    fn reply(&self, command: &Command, outcome: Outcome) {
        let body = message::encode(&[command.reply(outcome)]).remove(0);
        let message = Message::new(Uuid::new_v4(), Queue::Replies, body);
        self.publisher.publish(&[message]);
    }

    async fn succeed(&mut self, output: Value) -> Command {
        let command = self.command(Verb::Execute).await;
        self.reply(&command, Outcome::succeeded(output));
        command
    }
}

struct Desk {
    engine: Engine,
    store: Arc<MemoryStore>,
    tasks: Tasks,
    puppets: BTreeMap<&'static str, Puppet>,
}

impl Desk {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let names = ["booking", "payment", "confirmation", "notify"];
        let World { engine, store, transport, tasks } = World::new(&names, options).await;
        let puppet = |name: &str| Puppet {
            consumer: transport.consumer(&Queue::Participant(name.to_owned()), 8),
            publisher: transport.publisher(),
            pending: Vec::new(),
        };
        Self { engine, store, tasks, puppets: names.into_iter().map(|name| (name, puppet(name))).collect() }
    }

    fn puppet(&mut self, name: &str) -> &mut Puppet {
        self.puppets.get_mut(name).expect("one of the four")
    }

    async fn start(&self) -> Snapshot {
        match self.engine.begin(request("one")).await.expect("an answer") {
            StartAnswer::Started(started) => started.snapshot,
            other => panic!("{other:?}"),
        }
    }

    /// Plays a booking up to its pivot.
    async fn play_to_pivot(&mut self) -> (Uuid, Command) {
        let saga = self.start().await;
        self.puppet("booking").succeed(reserved()).await;
        self.puppet("payment").succeed(json!({})).await;
        let confirm = self.puppet("confirmation").command(Verb::Execute).await;
        (saga.header.id, confirm)
    }

    async fn operate(&self, saga_id: Uuid, action: Action, expected_version: Option<u64>, key: &str) -> Operated {
        let request = OperateRequest {
            saga_id,
            principal: "desk".to_owned(),
            actor: "admin:desk".to_owned(),
            idempotency_key: key.to_owned(),
            expected_version,
            reason: "a test".to_owned(),
            action,
        };
        self.engine.operate(request).await.expect("an answer")
    }

    /// Waits until the saga looks as wanted.
    async fn until(&self, saga_id: Uuid, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let snapshot = self.engine.get(saga_id).await.expect("readable").expect("there");
            if wanted(&snapshot) {
                saga_store::check_replay(&*self.store, saga_id).await.expect("history explains the state");
                return snapshot;
            }
            assert!(tokio::time::Instant::now() < deadline, "never {what}: {:#?}", snapshot.saga);
            tokio::time::advance(Duration::from_millis(10)).await;
        }
    }

    async fn until_status(&self, saga_id: Uuid, status: Status) -> Snapshot {
        self.until(saga_id, &format!("{status:?}"), |snapshot| snapshot.saga.status() == status).await
    }

    async fn outbox_empties(&self) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while self.store.outbox_load().await.expect("readable").rows > 0 {
            assert!(tokio::time::Instant::now() < deadline, "outbox rows are left");
            tokio::time::advance(Duration::from_millis(50)).await;
        }
    }
}

fn reserved() -> Value {
    json!({"appointment_id": Uuid::nil(), "starts_at": 7, "price": {"amount_minor": 4500, "currency": "EUR"}})
}

fn nothing_to_undo() -> Outcome {
    Outcome::succeeded(json!({"nothing_to_undo": true}))
}

#[tokio::test(start_paused = true)]
async fn a_booking_runs_to_its_end_and_leaves_no_outbox_row() {
    let mut desk = Desk::new().await;
    let (id, confirm) = desk.play_to_pivot().await;
    let engine = desk.engine.clone();
    let waiter = tokio::task::JoinSet::from_iter([async move { engine.wait(id, LIMIT).await }]);
    desk.puppet("confirmation").reply(&confirm, Outcome::succeeded(json!({})));
    let answers = waiter.join_all().await;
    let answer = answers.into_iter().next().expect("one waiter").expect("readable").expect("there");
    assert_eq!(answer.saga.decision, Some(Decision::Committed), "a wait ends with the decision, not with the notice");
    desk.puppet("notify").succeed(json!({})).await;
    desk.until_status(id, Status::Completed).await;
    desk.outbox_empties().await;
}

#[tokio::test(start_paused = true)]
async fn same_key_twice_in_one_batch() {
    let mut desk = Desk::new().await;
    let mut other = request("one");
    other.input["payment_method"] = json!("tok_other");
    // All are put to the worker before it runs: they meet in one batch.
    let (first, second, third) =
        tokio::join!(desk.engine.begin(request("one")), desk.engine.begin(request("one")), desk.engine.begin(other));
    let started = |answer: StartAnswer| match answer {
        StartAnswer::Started(started) => *started,
        other => panic!("{other:?}"),
    };
    let Started { snapshot, replayed, .. } = started(first.expect("an answer"));
    let again = started(second.expect("an answer"));
    assert!(!replayed && again.replayed);
    assert_eq!(snapshot.header.id, again.snapshot.header.id);
    assert!(matches!(third.expect("an answer"), StartAnswer::KeyReused));
    let commits = desk.store.history(snapshot.header.id, 0, 10).await.expect("readable").len();
    println!("equal starts that met in one batch: 2, with another payload: 1, history rows: {commits}");
    assert_eq!(commits, 1, "one saga, one row");
    desk.puppet("booking").command(Verb::Execute).await;
    assert!(desk.puppet("booking").pending.is_empty(), "one command");
}

#[tokio::test(start_paused = true)]
async fn cancel_meets_pivot() {
    let mut outcomes = Vec::new();
    for executed in [false, true] {
        let mut desk = Desk::new().await;
        let (id, confirm) = desk.play_to_pivot().await;
        let Operated::Applied { snapshot, .. } = desk.operate(id, Action::Cancel, None, "c").await else {
            panic!("a cancel is stored while the pivot is unknown")
        };
        assert_eq!(snapshot.saga.cancel.as_ref().expect("stored").outcome, CancelOutcome::Pending);
        let fence = desk.puppet("confirmation").command(Verb::Compensate).await;
        assert_eq!(fence.key, confirm.key);
        if executed {
            desk.puppet("confirmation").reply(&fence, Outcome::refused("already_executed", ""));
            desk.puppet("confirmation").succeed(json!({})).await;
            desk.puppet("notify").succeed(json!({})).await;
            let ended = desk.until_status(id, Status::Completed).await;
            assert_eq!(ended.saga.decision, Some(Decision::Committed));
            outcomes.push(ended.saga.cancel.as_ref().expect("stored").outcome);
        } else {
            desk.puppet("confirmation").reply(&fence, nothing_to_undo());
            for name in ["payment", "booking"] {
                let undo = desk.puppet(name).command(Verb::Compensate).await;
                desk.puppet(name).reply(&undo, Outcome::succeeded(json!({})));
            }
            let ended = desk.until_status(id, Status::Compensated).await;
            assert_eq!(ended.saga.decision, Some(Decision::Undone));
            outcomes.push(ended.saga.cancel.as_ref().expect("stored").outcome);
        }
    }
    println!("cancels that met the pivot: {outcomes:?}");
    assert_eq!(outcomes, [CancelOutcome::Granted, CancelOutcome::TooLate]);
}

#[tokio::test(start_paused = true)]
async fn late_success_after_compensation() {
    let mut desk = Desk::new().await;
    let id = desk.start().await.header.id;
    desk.puppet("booking").succeed(reserved()).await;
    let charge = desk.puppet("payment").command(Verb::Execute).await;
    for _ in 0..3 {
        desk.puppet("payment").command(Verb::Execute).await;
    }
    let refund = desk.puppet("payment").command(Verb::Compensate).await;
    desk.puppet("payment").reply(&charge, Outcome::succeeded(json!({})));
    let late = |snapshot: &Snapshot| snapshot.saga.step("payment").is_some_and(|step| step.output().is_some());
    let noted = desk.until(id, "noted as a fact", late).await;
    assert_eq!(noted.saga.status(), Status::Compensating, "the plan goes on");
    desk.puppet("payment").reply(&refund, Outcome::succeeded(json!({})));
    let release = desk.puppet("booking").command(Verb::Compensate).await;
    desk.puppet("booking").reply(&release, Outcome::succeeded(json!({})));
    desk.until_status(id, Status::Compensated).await;
    desk.puppet("payment").reply(&charge, Outcome::refused("surprise", ""));
    let deadline = tokio::time::Instant::now() + LIMIT;
    while desk.store.contradictions(id..=id, 1).await.expect("readable") != [(id, 1)] {
        assert!(tokio::time::Instant::now() < deadline, "a contradiction after the end is in plain sight");
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    println!("late successes noted: 1, contradictions after the end: 1");
}

#[tokio::test(start_paused = true)]
async fn a_person_is_called_once_for_what_holds_a_saga() {
    let warnings = log::Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let mut desk = Desk::new().await;
    let id = desk.start().await.header.id;
    let reserve = desk.puppet("booking").succeed(reserved()).await;
    let charge = desk.puppet("payment").command(Verb::Execute).await;
    desk.puppet("booking").reply(&reserve, Outcome::refused("surprise", ""));
    let stuck = desk.until_status(id, Status::Stuck).await;
    desk.puppet("payment").reply(&charge, Outcome::succeeded(json!({})));
    let later = |snapshot: &Snapshot| snapshot.saga.version > stuck.saga.version;
    let later = desk.until(id, "told of the charge", later).await;
    assert_eq!(later.saga.stuck, stuck.saga.stuck);
    let calls = warnings.with("saga needs a person");
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(calls[0].contains("cause=contract_violation step=booking "), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_is_not_knowledge() {
    let mut desk = Desk::new().await;
    let id = desk.start().await.header.id;
    desk.puppet("booking").succeed(reserved()).await;
    let mut retries = 0;
    for _ in 0..4 {
        let charge = desk.puppet("payment").command(Verb::Execute).await;
        desk.puppet("payment").reply(&charge, Outcome::Retry { after_ms: 50 });
        retries += 1;
    }
    let refund = desk.puppet("payment").command(Verb::Compensate).await;
    println!("retry answers: {retries}; the effect stayed unknown and is undone");
    assert!(retries > 0);
    desk.puppet("payment").reply(&refund, nothing_to_undo());
    let release = desk.puppet("booking").command(Verb::Compensate).await;
    desk.puppet("booking").reply(&release, Outcome::succeeded(json!({})));
    desk.until_status(id, Status::Compensated).await;
}

#[tokio::test(start_paused = true)]
async fn two_admins_one_wins() {
    let mut desk = Desk::new().await;
    let (id, confirm) = desk.play_to_pivot().await;
    desk.puppet("confirmation").reply(&confirm, Outcome::succeeded(json!({})));
    let stuck = desk.until_status(id, Status::Stuck).await;
    assert_eq!(stuck.saga.stuck.as_ref().expect("stuck").cause, Cause::AttemptsExhausted);
    while let Ok(command) = tokio::time::timeout(Duration::ZERO, desk.puppet("notify").command(Verb::Execute)).await {
        assert!(command.attempt <= 4);
    }
    let version = Some(stuck.saga.version);
    let (first, second) =
        tokio::join!(desk.operate(id, Action::Retry, version, "a"), desk.operate(id, Action::Close, version, "b"));
    assert!(matches!(first, Operated::Applied { replayed: false, .. }), "{first:?}");
    let Operated::Refused { refusal, .. } = second else { panic!("{second:?}") };
    assert_eq!(refusal, Refusal::Stale { current: stuck.saga.version + 1 });
    let again = desk.operate(id, Action::Retry, version, "a").await;
    assert!(matches!(again, Operated::Applied { replayed: true, .. }), "{again:?}");
    println!("admins at one version: 2, turned down as stale: 1, repeated: 1");
    desk.puppet("notify").succeed(json!({})).await;
    desk.until_status(id, Status::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_answer_is_asked_for_and_nothing_doubled() {
    for fault in [Fault::CommittedUnknown, Fault::DroppedUnknown, Fault::Unavailable] {
        let mut desk = Desk::new().await;
        desk.store.fail_next(fault);
        let (id, confirm) = desk.play_to_pivot().await;
        desk.store.fail_next(fault);
        desk.puppet("confirmation").reply(&confirm, Outcome::succeeded(json!({})));
        desk.puppet("notify").succeed(json!({})).await;
        desk.until_status(id, Status::Completed).await;
        desk.outbox_empties().await;
        assert_eq!(desk.store.fired(fault), 2, "{fault:?}");
        for puppet in desk.puppets.values() {
            assert!(puppet.pending.is_empty(), "no second command");
        }
        println!("{fault:?}: {} times, saga completed with one command per step", desk.store.fired(fault));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_compare_and_swap_is_decided_again() {
    let mut desk = Desk::new().await;
    let (id, confirm) = desk.play_to_pivot().await;
    desk.store.fail_next(Fault::Lost);
    desk.puppet("confirmation").reply(&confirm, Outcome::succeeded(json!({})));
    desk.puppet("notify").succeed(json!({})).await;
    desk.until_status(id, Status::Completed).await;
    assert_eq!(desk.store.fired(Fault::Lost), 1);
}

#[tokio::test(start_paused = true)]
async fn what_no_queue_takes_is_relayed_later() {
    // Nothing may be on its way: every message is left to the relay, which finds no room either, until there is.
    let mut desk = Desk::with(Options { in_flight_max: 1, ..Options::default() }).await;
    let (first, second) = tokio::join!(desk.engine.begin(request("one")), desk.engine.begin(request("two")));
    assert!(first.is_ok() && second.is_ok());
    let one = desk.puppet("booking").command(Verb::Execute).await;
    let two = desk.puppet("booking").command(Verb::Execute).await;
    assert_ne!(one.saga_id, two.saga_id);
    desk.puppet("booking").reply(&one, Outcome::refused("slot_taken", ""));
    desk.puppet("booking").reply(&two, Outcome::refused("slot_taken", ""));
    desk.until_status(one.saga_id, Status::Compensated).await;
    desk.until_status(two.saga_id, Status::Compensated).await;
    desk.outbox_empties().await;
}

#[tokio::test(start_paused = true)]
async fn commands_that_travel_alone_leave_as_fast_as_there_is_room() {
    let one_at_a_time = BTreeSet::from(["booking".to_owned()]);
    let mut desk = Desk::with(Options { in_flight_max: 2, one_at_a_time, ..Options::default() }).await;
    let keys: Vec<String> = (0..40).map(|key| key.to_string()).collect();
    let begun = Instant::now();
    let start = |key: String| {
        let engine = desk.engine.clone();
        async move { engine.begin(request(&key)).await.is_ok() }
    };
    let started = keys.iter().cloned().map(start).collect::<JoinSet<bool>>().join_all().await;
    assert!(started.into_iter().all(|started| started));
    let mut asked = BTreeSet::new();
    while asked.len() < keys.len() {
        let command = desk.puppet("booking").command(Verb::Execute).await;
        desk.puppet("booking").reply(&command, Outcome::refused("slot_taken", ""));
        asked.insert(command.saga_id);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "rows were put off for {:?}", begun.elapsed());
    for saga_id in asked {
        desk.until_status(saga_id, Status::Compensated).await;
    }
    desk.outbox_empties().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_every_task_and_answers_who_waits() {
    let mut desk = Desk::new().await;
    let (id, _) = desk.play_to_pivot().await;
    let engine = desk.engine.clone();
    let waiter = tokio::task::JoinSet::from_iter([async move { engine.wait(id, LIMIT).await }]);
    tokio::task::yield_now().await;
    assert_eq!(desk.tasks.shutdown(Duration::from_secs(5)).await, 0, "no task is left");
    let answers = waiter.join_all().await;
    assert!(answers.into_iter().all(|answer| answer.is_ok_and(|snapshot| snapshot.is_some())));
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_brings_the_store_down_does_not_hold_up_the_others() {
    let mut desk = Desk::with(Options { workers: 1, ..Options::default() }).await;
    let unlucky = desk.start().await.header.id;
    let reserve = desk.puppet("booking").command(Verb::Execute).await;
    desk.store.fail_with(Some(unlucky));
    desk.puppet("booking").reply(&reserve, Outcome::succeeded(reserved()));
    for name in ["two", "three"] {
        // Long enough for it to have failed alone.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let StartAnswer::Started(other) = desk.engine.begin(request(name)).await.expect("an answer") else {
            panic!("not started")
        };
        desk.puppet("booking").succeed(reserved()).await;
        desk.puppet("payment").command(Verb::Execute).await;
        assert_ne!(other.snapshot.header.id, unlucky);
    }
    println!("commits that found the store out of reach: {}", desk.store.fired(Fault::Unavailable));
    assert!(desk.store.fired(Fault::Unavailable) > 0);
    desk.store.fail_with(None);
    let paid = desk.puppet("payment").command(Verb::Execute).await;
    assert_eq!(paid.saga_id, unlucky, "what was held up goes on");
}

#[tokio::test(start_paused = true)]
async fn what_another_instance_published_just_now_can_be_started() {
    let desk = Desk::new().await;
    let text = Catalog::built_in().find("booking").expect("built in").definition.clone();
    let later = saga_defs::Definition { name: "later".to_owned(), ..text };
    let loaded = saga_defs::catalog::Loaded::new(later).expect("sound");
    let published = saga_store::PublishedDefinition {
        name: "later".to_owned(),
        version: loaded.definition.version,
        digest: loaded.digest.clone(),
        body: serde_json::to_string(&loaded.definition).expect("JSON"),
    };
    let of = |name: &str| StartRequest { definition: name.to_owned(), ..request(name) };
    // Within a second of the look at the start, and of each other.
    let unknown = desk.engine.begin(of("later")).await.expect("an answer");
    assert!(matches!(unknown, StartAnswer::UnknownDefinition), "{unknown:?}");
    desk.store.publish_definitions(&[published]).await.expect("published");
    let started = tokio::join!(desk.engine.begin(of("later")), desk.engine.begin(of("nowhere")));
    assert!(matches!(started.0.expect("an answer"), StartAnswer::Started(_)));
    assert!(matches!(started.1.expect("an answer"), StartAnswer::UnknownDefinition));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_start_finds_its_saga_though_its_input_fits_no_more() {
    let desk = Desk::new().await;
    let saga = desk.start().await;
    let mut stricter = catalog::booking();
    stricter.version += 1;
    stricter.input["required"] = json!(["nothing that was given"]);
    let mut catalog = Catalog::built_in();
    catalog.add(catalog::Loaded::new(stricter).expect("it keeps the rules")).expect("it is new");
    let transport = InProcess::new(&transport::in_process::Options {
        queues: transport::topology::queues(["booking"]),
        capacity: 8,
        faults: None,
    });
    let (store, entropy) = (Arc::clone(&desk.store) as Arc<dyn Store>, Arc::new(SeededEntropy::new(8)));
    let newer =
        Engine::start(store, &transport, &catalog, entropy, &desk.tasks, Options::default()).await.expect("it starts");

    let again = newer.begin(request("one")).await.expect("an answer");
    let StartAnswer::Started(again) = again else { panic!("{again:?}") };
    assert!(again.replayed && again.snapshot.header.id == saga.header.id);
    let mut other = request("one");
    other.input["payment_method"] = json!("tok_other");
    assert!(matches!(newer.begin(other).await.expect("an answer"), StartAnswer::KeyReused));
    assert!(matches!(newer.begin(request("two")).await.expect("an answer"), StartAnswer::BadInput(_)));
}
