//! kill -9 of everything but the providers, three times, with at least 100 sagas in flight.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use testkit::eventually;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::common::{Api, Product, Simulators, Stack, input};

const ROUNDS: usize = 3;
const SAGAS: usize = 200;
const IN_FLIGHT_MIN: usize = 100;

/// After a restart, every accepted saga is decided within this. A participant that is alone on its database takes a dead
/// one's calls over at once, one among others only when their leases are over.
fn decided_within(stack: Stack) -> Duration {
    match stack {
        Stack::Embedded => Duration::from_secs(5),
        Stack::Services => Duration::from_secs(15),
    }
}

type Accepted = Arc<Mutex<BTreeMap<String, Option<String>>>>;

#[tokio::test(flavor = "multi_thread")]
async fn kill_engine() {
    story(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn kill_engine_on_services() {
    story(Stack::Services).await;
}

async fn story(stack: Stack) {
    let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", "1000")]).await;
    let mut env = vec![("BOOKEND_SEED__SLOTS", "600"), ("BOOKEND_PARTICIPANTS__CALLS_MAX", "256")];
    env.extend([("BOOKEND_PARTICIPANTS__PREFETCH", "512"), ("BOOKEND_PAYMENT__TIMEOUT_MS", "4000")]);
    // Shorter than usual: a dead one's calls wait for its end.
    env.push(("BOOKEND_PARTICIPANTS__LEASE_MS", "5000"));
    let mut product = Product::start(stack, &simulators, &env).await;
    let slots = product.api().free_slots(ROUNDS * SAGAS).await;
    let mut sagas: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..ROUNDS {
        let wishes: Vec<(String, Value)> = (0..SAGAS).map(|n| wish(round, n, &slots[round * SAGAS + n])).collect();
        let accepted: Accepted = Arc::default();
        let asking = ask_all(product.api(), &wishes, &accepted);
        let in_flight = until_in_flight(product.api(), &accepted).await;
        product.kill_and_restart().await;
        let begun = Instant::now();
        asking.join_all().await;
        let known: Vec<String> = accepted.lock().expect("no panic").values().flatten().cloned().collect();
        until_decided(product.api(), &known, decided_within(stack)).await;
        let took = begun.elapsed();
        // Whoever got no answer asks again with its key, and learns of the one saga that it is.
        for (key, input) in &wishes {
            let id = product.api().accepted("booking", key, input).await;
            assert_eq!(*sagas.entry(key.clone()).or_insert_with(|| id.clone()), id);
            if let Some(Some(told)) = accepted.lock().expect("no panic").get(key) {
                assert_eq!(told, &id, "what was acknowledged is kept");
            }
        }
        println!(
            "round {round}: killed with {in_flight} in flight, {} accepted decided {took:.2?} after the restart",
            known.len()
        );
        assert!(in_flight >= IN_FLIGHT_MIN, "only {in_flight} were in flight");
    }
    let hits = product.counter("bookend_inbox_messages_total", "duplicate").await
        + product.counter("bookend_inbox_messages_total", "open").await;
    let relayed = product.counter("bookend_outbox_relayed_total", "").await;
    product.api().all_ended(Duration::from_secs(60)).await;
    product.audit().await;
    let summary = simulators.summary().await;
    println!("after the last restart: {relayed} rows re-sent, {hits} inbox hits; providers: {summary}");
    // A broker gives back by itself what the dead had in hand: then little is left for the relay.
    let bites = match stack {
        Stack::Embedded => relayed.min(hits),
        Stack::Services => relayed + hits,
    };
    assert!(bites > 0.0, "the kills proved nothing");
    assert_eq!(summary["doubles"]["charge"], 0, "no second charge for any key");
    assert_eq!(summary["doubles"]["refund"], 0, "no second refund for any key");
    assert_eq!(sagas.len(), ROUNDS * SAGAS);
}

/// Mostly slow charges, so that many sagas are in flight; some that work at once and some that fail.
fn wish(round: usize, n: usize, slot: &str) -> (String, Value) {
    let payment_method = match n % 6 {
        0 => "tok_visa",
        1 => "tok_declined",
        _ => "tok_slow",
    };
    (format!("kill-{round}-{n}"), input(slot, payment_method))
}

fn ask_all(api: &Api, wishes: &[(String, Value)], accepted: &Accepted) -> JoinSet<()> {
    let mut asking = JoinSet::new();
    for (key, input) in wishes.iter().cloned() {
        let (api, accepted) = (api.clone(), Arc::clone(accepted));
        asking.spawn(async move {
            let id = match api.start("booking", &key, &input, 0).await {
                Ok(answer) if answer.status == 201 => Some(answer.text("id").to_owned()),
                Ok(_) | Err(_) => None,
            };
            accepted.lock().expect("no panic").insert(key, id);
        });
    }
    asking
}

/// Waits until enough are accepted, a number drawn anew each time, and says how many of them are undecided.
async fn until_in_flight(api: &Api, accepted: &Accepted) -> usize {
    let drawn = usize::try_from(Uuid::new_v4().as_u128() % 40).expect("small");
    eventually(Duration::from_secs(30), "enough sagas are in flight", async || {
        let known = accepted.lock().expect("no panic").values().flatten().count();
        if known < IN_FLIGHT_MIN + drawn {
            return Err(format!("{known} accepted"));
        }
        let open = api.count("running").await + api.count("compensating").await;
        if open >= IN_FLIGHT_MIN { Ok(open) } else { Err(format!("{known} accepted, {open} open")) }
    })
    .await
}

async fn until_decided(api: &Api, ids: &[String], limit: Duration) {
    let mut open: Vec<String> = ids.to_vec();
    eventually(limit, "every accepted saga is decided", async || {
        let mut left = Vec::new();
        for id in &open {
            let saga = api.saga(id).await;
            assert_eq!(saga.status, 200, "an accepted saga is there: {saga:?}");
            if saga.body["decision"].is_null() {
                left.push(id.clone());
                break;
            }
        }
        let done = open.iter().position(|id| Some(id) == left.first()).unwrap_or(open.len());
        open.drain(..done);
        if open.is_empty() { Ok(()) } else { Err(format!("{} undecided, first {}", open.len(), open[0])) }
    })
    .await;
}
