//! The participant against the gateway simulator, over a loopback socket.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use db::Db;
use fixture::{Owned, Stack};
use participant_kit::{Definite, Effect, External, Verdict, conformance};
use payment::{Options, Payment, Undone, query};
use providers::{Providers, Summary};
use runtime::http::serve_here;
use runtime::{SystemClock, Tasks};
use saga_defs::contract::Money;
use saga_defs::contract::payment::{CHARGE, Charged};
use saga_defs::ids::provider_key;
use saga_defs::{Outcome, Verb};
use serde_json::{Value, json};
use uuid::Uuid;

/// Longest wait for something that must come.
const LIMIT: Duration = Duration::from_secs(20);

struct World {
    payment: Payment,
    providers: Providers,
    url: String,
    tasks: Tasks,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A gateway whose slow charges take `slow_ms`, and a participant that waits `timeout_ms` for each answer.
async fn world(slow_ms: u64, timeout_ms: u64) -> World {
    let tasks = Tasks::new();
    let options = providers::Options { slow_ms, ..providers::Options::default() };
    let providers = Providers::new(options, Arc::new(SystemClock), tasks.clone());
    let gateway_url = serve_here(providers::router(providers.clone()), &tasks).await.unwrap();
    let payment = Payment::new(&Options { gateway_url: gateway_url.clone(), timeout_ms }).unwrap();
    World { payment, providers, url: gateway_url, tasks }
}

fn effect_with(saga: u128, payload: Value) -> Effect {
    let mut effect = conformance::effect("payment", Uuid::from_u128(saga), payload);
    effect.command.command = CHARGE.to_owned();
    effect
}

fn effect(saga: u128, token: &str) -> Effect {
    let payload = json!({"amount": {"amount_minor": 4_500, "currency": "EUR"}, "payment_method": token});
    effect_with(saga, payload)
}

/// The same effect as the kit hands it over for undoing: the payload is gone by then.
fn undoing(effect: &Effect) -> Effect {
    let mut undoing = effect.clone();
    undoing.command.payload = Value::Null;
    undoing.provider_key = provider_key(effect.command.key, Verb::Compensate);
    undoing.output = Some(json!({"charge_id": "ch", "amount": {"amount_minor": 4_500, "currency": "EUR"}}));
    undoing
}

fn noted(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Unknown { provider_ref, .. } => provider_ref.clone(),
        Verdict::Definite(outcome) => panic!("expected nothing definite, got {outcome:?}"),
    }
}

fn output(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Definite(Outcome::Succeeded { output }) => output.clone(),
        other @ (Verdict::Definite(_) | Verdict::Unknown { .. }) => panic!("expected a success, got {other:?}"),
    }
}

fn refusal(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Definite(Outcome::Refused { code, .. }) => code.clone(),
        other @ (Verdict::Definite(_) | Verdict::Unknown { .. }) => panic!("expected a refusal, got {other:?}"),
    }
}

/// Repeats a verb, as the kit does, until its verdict is definite.
async fn settled(payment: &Payment, verb: Verb, mut effect: Effect) -> Verdict {
    let settling = async {
        loop {
            let verdict = match verb {
                Verb::Execute => payment.execute(&effect).await,
                Verb::Compensate => payment.undo(&effect).await,
            };
            match verdict {
                Verdict::Unknown { provider_ref, .. } => effect.provider_ref = provider_ref,
                Verdict::Definite(_) => return verdict,
            }
        }
    };
    tokio::time::timeout(LIMIT, settling).await.expect("the gateway settles every effect")
}

fn moved(summary: Summary) -> (u64, u64, u64, u64) {
    (summary.accepted.charge, summary.accepted.refund, summary.doubles.charge, summary.doubles.refund)
}

#[tokio::test]
async fn a_good_card_is_charged_once_however_often_it_is_asked() {
    let world = world(0, 5_000).await;
    let first = world.payment.execute(&effect(1, "tok_visa")).await;
    assert_eq!(world.payment.execute(&effect(1, "tok_visa")).await, first);
    let charged: Charged = serde_json::from_value(output(&first)).unwrap();
    assert_eq!(charged.amount, Money { amount_minor: 4_500, currency: "EUR".to_owned() });
    assert_eq!(moved(world.providers.summary()), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_declined_card_and_wrong_amounts_are_refused() {
    let world = world(0, 5_000).await;
    assert_eq!(refusal(&world.payment.execute(&effect(1, "tok_declined")).await), "card_declined");
    for amount in [0, -1] {
        let payload = json!({"amount": {"amount_minor": amount, "currency": "EUR"}, "payment_method": "tok_visa"});
        assert_eq!(refusal(&world.payment.execute(&effect_with(2, payload)).await), "amount_mismatch");
    }
    output(&world.payment.execute(&effect(3, "tok_visa")).await);
    let other = json!({"amount": {"amount_minor": 1, "currency": "EUR"}, "payment_method": "tok_visa"});
    assert_eq!(refusal(&world.payment.execute(&effect_with(3, other)).await), "amount_mismatch");
    let shapeless = world.payment.execute(&effect_with(4, json!({"amount": 12}))).await;
    assert_eq!(refusal(&shapeless), "contract_violation");
    assert_eq!(moved(world.providers.summary()), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_command_of_another_name_takes_no_money() {
    let world = world(0, 5_000).await;
    for name in ["payment.chrage", "notify.send"] {
        let mut misnamed = effect(1, "tok_visa");
        misnamed.command.command = name.to_owned();
        assert_eq!(refusal(&world.payment.execute(&misnamed).await), "contract_violation");
    }
    assert_eq!(moved(world.providers.summary()), (0, 0, 0, 0));
}

#[tokio::test]
async fn a_slow_charge_stays_unknown_until_it_lands() {
    let world = world(1_000, 200).await;
    let first = world.payment.execute(&effect(1, "tok_slow")).await;
    assert!(noted(&first).is_some(), "the intent must be noted for the next call");
    assert_eq!(world.providers.summary().accepted.charge, 0, "the charge has landed before it was due");
    let mut again = effect(1, "tok_slow");
    again.provider_ref = noted(&first);
    output(&settled(&world.payment, Verb::Execute, again).await);
    assert_eq!(moved(world.providers.summary()), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_charge_that_was_never_answered_is_found_by_asking() {
    let world = world(0, 200).await;
    let verdict = world.payment.execute(&effect(1, "tok_timeout")).await;
    assert!(output(&verdict)["charge_id"].is_string());
    assert_eq!(moved(world.providers.summary()), (1, 0, 0, 0));
}

#[tokio::test]
async fn an_unreachable_gateway_leaves_everything_unknown() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway_url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let payment = Payment::new(&Options { gateway_url, timeout_ms: 500 }).unwrap();
    assert_eq!(noted(&payment.execute(&effect(1, "tok_visa")).await), None);
    let mut undo = undoing(&effect(1, "tok_visa"));
    undo.provider_ref = Some("pi_noted".to_owned());
    assert_eq!(noted(&payment.undo(&undo).await), Some("pi_noted".to_owned()), "what was noted must not be lost");
}

#[tokio::test]
async fn only_an_answer_that_speaks_of_the_request_is_definite() {
    let tasks = Tasks::new();
    for (status, refused) in [
        (StatusCode::BAD_REQUEST, Some("contract_violation")),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("amount_mismatch")),
        (StatusCode::UNAUTHORIZED, None),
        (StatusCode::REQUEST_TIMEOUT, None),
        (StatusCode::TOO_MANY_REQUESTS, None),
        (StatusCode::INTERNAL_SERVER_ERROR, None),
        (StatusCode::BAD_GATEWAY, None),
        // A success that does not say what it made.
        (StatusCode::OK, None),
    ] {
        let router = Router::new().route("/gateway/intents", post(move || async move { (status, "<html>") }));
        let gateway_url = serve_here(router, &tasks).await.unwrap();
        let payment = Payment::new(&Options { gateway_url, timeout_ms: 5_000 }).unwrap();
        let verdict = payment.execute(&effect(1, "tok_visa")).await;
        match refused {
            Some(code) => assert_eq!(refusal(&verdict), code, "{status}"),
            None => assert_eq!(noted(&verdict), None, "{status}"),
        }
    }
    tasks.stop();
}

#[tokio::test]
async fn undoing_gives_the_money_back_once() {
    let world = world(0, 5_000).await;
    let done = effect(1, "tok_visa");
    output(&world.payment.execute(&done).await);
    let first = world.payment.undo(&undoing(&done)).await;
    assert_eq!(world.payment.undo(&undoing(&done)).await, first);
    let Undone::Refunded { amount, .. } = serde_json::from_value(output(&first)).unwrap();
    assert_eq!(amount.amount_minor, 4_500);
    assert_eq!(moved(world.providers.summary()), (1, 1, 0, 0));
}

fn unwanted(effect: &Effect) -> Effect {
    Effect { unwanted: true, ..effect.clone() }
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_canceled_instead_of_charged() {
    let world = world(0, 5_000).await;
    // Whether the gateway knows the intent already or not.
    let created = effect(2, "tok_visa");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"amount_minor": 4_500, "currency": "EUR", "payment_method": "tok_visa"});
    let request =
        client.post(format!("{}/gateway/intents", world.url)).header("idempotency-key", &created.provider_key);
    assert!(request.json(&body).send().await.unwrap().status().is_success());
    for effect in [effect(1, "tok_visa"), created] {
        assert_eq!(refusal(&world.payment.execute(&unwanted(&effect)).await), "fenced");
        // As when the answer to the first was lost.
        assert_eq!(refusal(&world.payment.execute(&unwanted(&effect)).await), "fenced");
        // For good, even if it were wanted again.
        assert_eq!(refusal(&world.payment.execute(&effect).await), "card_declined");
    }
    assert_eq!(moved(world.providers.summary()), (0, 0, 0, 0));
}

#[tokio::test]
async fn what_is_no_longer_wanted_and_was_charged_already_is_told_as_it_is() {
    let world = world(0, 5_000).await;
    let done = effect(1, "tok_visa");
    let charged = world.payment.execute(&done).await;
    assert_eq!(world.payment.execute(&unwanted(&done)).await, charged);
    assert_eq!(moved(world.providers.summary()), (1, 0, 0, 0));
}

#[tokio::test]
async fn what_is_no_longer_wanted_and_under_way_stays_unknown_until_it_lands() {
    let world = world(1_000, 200).await;
    let slow = effect(1, "tok_slow");
    let provider_ref = noted(&world.payment.execute(&slow).await);
    let slow = Effect { provider_ref, ..unwanted(&slow) };
    assert_eq!(noted(&world.payment.execute(&slow).await), slow.provider_ref, "the intent must be noted");
    output(&settled(&world.payment, Verb::Execute, slow).await);
    assert_eq!(moved(world.providers.summary()), (1, 0, 0, 0));
}

/// The same participant, before a gateway that remembers nothing.
async fn forgotten() -> World {
    world(0, 5_000).await
}

#[tokio::test]
async fn a_gateway_that_forgot_the_intent_is_not_taken_for_an_undo() {
    let world = forgotten().await;
    let undo = undoing(&effect(1, "tok_visa"));
    assert_eq!(noted(&world.payment.undo(&undo).await), None);
    let undo = Effect { provider_ref: Some("pi_forgotten".to_owned()), ..undo };
    assert_eq!(noted(&world.payment.undo(&undo).await), undo.provider_ref);
    assert_eq!(moved(world.providers.summary()), (0, 0, 0, 0));
}

#[tokio::test]
async fn a_gateway_that_forgot_a_noted_intent_is_not_asked_for_another_one() {
    let world = forgotten().await;
    let mut again = effect(1, "tok_visa");
    again.provider_ref = Some("pi_forgotten".to_owned());
    assert_eq!(noted(&world.payment.execute(&again).await), again.provider_ref);
    assert_eq!(moved(world.providers.summary()), (0, 0, 0, 0), "the money may have been taken before");
    // Nor is there an intent that somebody could confirm later.
    assert_eq!(noted(&world.payment.undo(&undoing(&effect(1, "tok_visa"))).await), None);
}

#[tokio::test]
async fn a_gateway_that_forgot_only_the_charge_is_not_taken_for_an_undo() {
    let world = world(0, 5_000).await;
    let done = effect(1, "tok_visa");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"amount_minor": 4_500, "currency": "EUR", "payment_method": "tok_visa"});
    let request = client.post(format!("{}/gateway/intents", world.url)).header("idempotency-key", &done.provider_key);
    assert!(request.json(&body).send().await.unwrap().status().is_success());
    let open = noted(&world.payment.undo(&undoing(&done)).await);
    assert!(open.is_some(), "the intent is there");
    // Left as it was: a person may still settle it either way.
    let intent = client.get(format!("{}/gateway/intents/{}", world.url, open.unwrap())).send().await.unwrap();
    assert_eq!(intent.json::<Value>().await.unwrap()["status"], "created");
}

async fn ledger(stack: Stack) -> Owned {
    Owned::open::<migrations::Payment>(stack).await
}

async fn record(db: &Db, effect: &Effect, verb: Verb, verdict: &Verdict) {
    let Verdict::Definite(outcome) = verdict.clone() else { panic!("only definite verdicts are recorded") };
    record_all(db, vec![(effect.clone(), verb, outcome)]).await.unwrap();
}

async fn record_all(db: &Db, slice: Vec<(Effect, Verb, Outcome)>) -> Result<(), db::Error> {
    let (payment, slice, now) = (Payment::new(&Options::default()).unwrap(), Arc::new(slice), db.now());
    db.transaction(move |tx| {
        let (payment, slice) = (payment.clone(), Arc::clone(&slice));
        Box::pin(async move {
            let verdicts: Vec<Definite<'_>> =
                slice.iter().map(|(effect, verb, outcome)| Definite { effect, verb: *verb, outcome }).collect();
            payment.record(tx, now, &verdicts).await
        })
    })
    .await
}

fixture::on_every_stack! {
    the_ledger_holds_each_movement_once_and_its_net_is_right,
    movements_of_a_slice_are_booked_at_once_and_each_once,
    a_slice_with_an_output_that_nobody_can_read_books_nothing,
    pages_show_every_saga_once_in_order,
}

async fn the_ledger_holds_each_movement_once_and_its_net_is_right(stack: Stack) {
    let (world, owned) = (world(0, 5_000).await, ledger(stack).await);
    let done = effect(1, "tok_visa");
    let charged = world.payment.execute(&done).await;
    record(&owned.db, &done, Verb::Execute, &charged).await;
    record(&owned.db, &done, Verb::Execute, &charged).await;
    let of_saga = query::of_saga(&owned.db, done.command.saga_id).await.unwrap();
    assert_eq!((of_saga.len(), of_saga[0].charges.len(), of_saga[0].net.amount_minor), (1, 1, 4_500));

    let undone = world.payment.undo(&undoing(&done)).await;
    record(&owned.db, &undoing(&done), Verb::Compensate, &undone).await;
    record(&owned.db, &undoing(&done), Verb::Compensate, &undone).await;
    let of_saga = query::of_saga(&owned.db, done.command.saga_id).await.unwrap();
    assert_eq!((of_saga[0].charges.len(), of_saga[0].refunds.len(), of_saga[0].net.amount_minor), (1, 1, 0));

    let refused = effect(2, "tok_declined");
    record(&owned.db, &refused, Verb::Execute, &world.payment.execute(&refused).await).await;
    let nothing = Verdict::Definite(Outcome::succeeded(json!({"nothing_to_undo": true})));
    record(&owned.db, &undoing(&refused), Verb::Compensate, &nothing).await;
    assert!(query::of_saga(&owned.db, refused.command.saga_id).await.unwrap().is_empty());
}

fn charged(saga: u128) -> (Effect, Verb, Outcome) {
    let output = json!({"charge_id": format!("ch_{saga}"), "amount": {"amount_minor": 10, "currency": "EUR"}});
    (effect(saga, "tok_visa"), Verb::Execute, Outcome::succeeded(output))
}

async fn movements_of_a_slice_are_booked_at_once_and_each_once(stack: Stack) {
    let owned = ledger(stack).await;
    let statements: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&statements);
    let db = owned.db.clone().telling(move |text| told.lock().unwrap().push(text.to_owned()));
    let mut slice: Vec<_> = (1..=100).map(charged).collect();
    let undone = |saga, output| (undoing(&effect(saga, "tok_visa")), Verb::Compensate, Outcome::succeeded(output));
    let refunded = json!({"undone": "refunded", "refund_id": "re", "amount": {"amount_minor": 10, "currency": "EUR"}});
    // The undo of an effect may be recorded with the effect itself.
    slice.push(undone(7, refunded));
    slice.push(undone(201, json!({"nothing_to_undo": true})));
    slice.push((effect(202, "tok_declined"), Verb::Execute, Outcome::refused("card_declined", "")));
    record_all(&db, slice.clone()).await.unwrap();
    assert_eq!(statements.lock().unwrap().len(), 2, "one statement for either direction");
    record_all(&db, slice).await.unwrap();
    let page = query::page(&owned.db, None, 1_000).await.unwrap();
    assert_eq!(page.payments.len(), 100);
    let net: i64 = page.payments.iter().map(|payments| payments.net.amount_minor).sum();
    assert_eq!(net, 99 * 10);
    assert_eq!(query::of_saga(&owned.db, Uuid::from_u128(7)).await.unwrap()[0].refunds.len(), 1);
}

async fn a_slice_with_an_output_that_nobody_can_read_books_nothing(stack: Stack) {
    let owned = ledger(stack).await;
    let shapeless = (effect(2, "tok_visa"), Verb::Execute, Outcome::succeeded(json!({"amount": 12})));
    let refused = record_all(&owned.db, vec![charged(1), shapeless, charged(3)]).await;
    assert!(refused.is_err_and(|error| !error.is_transient()), "the kit finds out which it is");
    assert!(query::page(&owned.db, None, 10).await.unwrap().payments.is_empty());
}

async fn pages_show_every_saga_once_in_order(stack: Stack) {
    let owned = ledger(stack).await;
    for saga in 1..=7 {
        let charged = json!({"charge_id": "ch", "amount": {"amount_minor": saga, "currency": "EUR"}});
        let verdict = Verdict::Definite(Outcome::succeeded(charged));
        record(&owned.db, &effect(saga, "tok_visa"), Verb::Execute, &verdict).await;
    }
    // Money given back that nobody took: the audit must see it.
    let refunded = json!({"undone": "refunded", "refund_id": "re", "amount": {"amount_minor": 5, "currency": "EUR"}});
    record(&owned.db, &effect(8, "tok_visa"), Verb::Compensate, &Verdict::Definite(Outcome::succeeded(refunded))).await;

    let (mut nets, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = query::page(&owned.db, after, 3).await.unwrap();
        nets.extend(page.payments.iter().map(|payments| (payments.saga_id.as_u128(), payments.net.amount_minor)));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(nets, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, -5)]);
}
