//! The whole saga on one thread, in paused time, on in-memory ports: the same seed gives the same trace.

use std::sync::Arc;
use std::time::Duration;

use orchestrator::{Engine, Options, SeededEntropy, StartAnswer, StartRequest};
use participant_kit::{InMemory, serve};
use runtime::Tasks;
use runtime::clock::TokioClock;
use saga_defs::catalog::Catalog;
use saga_defs::{Command, Outcome, Timestamp, Verb};
use saga_store::{Filter, MemoryStore, Store};
use serde_json::json;
use transport::in_process::{Bites, Faults, InProcess};
use uuid::Uuid;

const SAGAS: u32 = 20;
const LIMIT: Duration = Duration::from_secs(3_600);

fn behaviour(command: &Command) -> Outcome {
    let draw = command.key.as_u128() % 10;
    match (command.step.as_str(), command.verb) {
        ("booking", Verb::Execute) => Outcome::succeeded(json!({
            "appointment_id": command.key, "starts_at": 7, "price": {"amount_minor": 4500, "currency": "EUR"}
        })),
        ("payment", Verb::Execute) if draw < 3 => Outcome::refused("card_declined", ""),
        ("payment", Verb::Execute) if draw < 5 && command.attempt < 2 => Outcome::Retry { after_ms: 250 },
        (_, Verb::Execute | Verb::Compensate) => Outcome::succeeded(json!({})),
    }
}

/// Runs a world to its end; its trace is every history row of every saga, with instants.
async fn world(seed: u64) -> (Vec<String>, Bites) {
    let names = ["booking", "payment", "confirmation", "notify"];
    let faults = Faults { seed, redeliver_percent: 25, reorder_percent: 25, lose_percent: 15 };
    let transport = InProcess::new(&transport::in_process::Options {
        queues: transport::topology::queues(names),
        capacity: 16,
        faults: Some(faults),
    });
    let clock = Arc::new(TokioClock::starting_at(Timestamp(1_700_000_000_000_000)));
    let store = Arc::new(MemoryStore::new(clock));
    let tasks = Tasks::new();
    for name in names {
        let undoable = matches!(name, "booking" | "payment");
        let participant = Arc::new(InMemory::new(name, undoable, behaviour));
        serve(participant, &transport, &tasks, participant_kit::Options::default());
    }
    let engine = Engine::start(
        Arc::clone(&store) as Arc<dyn Store>,
        &transport,
        &Catalog::built_in(),
        Arc::new(SeededEntropy::new(seed)),
        &tasks,
        Options::default(),
    )
    .await
    .expect("the engine starts");
    for n in 0..SAGAS {
        assert!(matches!(engine.begin(request(n)).await, Ok(StartAnswer::Started(_))));
    }
    until_ended(&*store).await;
    let trace = trace(&*store).await;
    assert_eq!(tasks.shutdown(Duration::from_secs(60)).await, 0, "no task is left");
    (trace, transport.bites())
}

fn request(n: u32) -> StartRequest {
    StartRequest {
        tenant: "default".to_owned(),
        principal: "client".to_owned(),
        actor: "client:client".to_owned(),
        idempotency_key: n.to_string(),
        definition: "booking".to_owned(),
        key: None,
        input: json!({
            "slot_id": Uuid::from_u128(n.into()),
            "patient": {"name": "Ada", "phone": "+15005550006", "email": "ada@example.org"},
            "payment_method": "tok_visa"
        }),
    }
}

fn all() -> Filter {
    Filter { tenant: "default".to_owned(), ..Filter::default() }
}

async fn until_ended(store: &dyn Store) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let sagas = store.list(&all(), 200).await.expect("readable");
        let open = sagas.iter().filter(|saga| {
            matches!(
                saga.status,
                saga_core::Status::Running | saga_core::Status::Compensating | saga_core::Status::Stuck
            )
        });
        if open.count() == 0 && store.outbox_load().await.expect("readable").rows == 0 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "the world does not end: {sagas:?}");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
}

async fn trace(store: &dyn Store) -> Vec<String> {
    let mut trace = Vec::new();
    for saga in store.list(&all(), 200).await.expect("readable") {
        saga_store::check_replay(store, saga.header.id).await.expect("history explains the state");
        for row in store.history(saga.header.id, 0, 1_000).await.expect("readable") {
            trace.push(format!("{} {} {} {} {}", saga.header.id, row.seq, row.at.0, row.actor, row.events));
        }
    }
    trace
}

/// One thread, paused time: nothing but the seed decides.
fn run(seed: u64) -> (Vec<String>, Bites) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(world(seed))
}

#[test]
fn simulation() {
    let (first, bites) = run(3);
    let (again, _) = run(3);
    let (other, _) = run(4);
    println!("{SAGAS} sagas, {} history rows, twice the same; {bites:?}", first.len());
    assert!(bites.redelivered > 0 && bites.reordered > 0 && bites.lost > 0, "the faults did not bite: {bites:?}");
    assert_eq!(first, again, "the same seed gives the same trace");
    assert_ne!(first, other, "another seed gives another trace");
}
