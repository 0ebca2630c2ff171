//! A gateway that moves other amounts than it was asked to: nothing of that passes for done.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use participant_kit::{Effect, External, Verdict, conformance};
use payment::{Options, Payment, Undone};
use runtime::Tasks;
use runtime::http::serve_here;
use saga_defs::contract::Money;
use saga_defs::contract::payment::{CHARGE, Charged};
use saga_defs::ids::provider_key;
use saga_defs::{Outcome, Verb};
use serde_json::{Value, json};
use uuid::Uuid;

/// What the gateway answers, whatever it is asked.
#[derive(Clone, Debug)]
struct Answers {
    created: Value,
    confirmed: Value,
    canceled: (StatusCode, Value),
    read: Value,
    refunded: Value,
}

/// An intent in a state, with what else is said of it.
fn intent(status: &str, more: &Value) -> Value {
    let mut intent = json!({"id": "pi", "status": status});
    if status == "charged" {
        intent["charge_id"] = json!("ch");
    }
    for (name, value) in more.as_object().unwrap() {
        intent[name] = value.clone();
    }
    intent
}

impl Answers {
    /// A gateway that does what it is asked, for 45.00 EUR.
    fn honest() -> Self {
        let amount = money(4_500, "EUR");
        Self {
            created: intent("created", &amount),
            confirmed: intent("charged", &amount),
            canceled: (StatusCode::CONFLICT, json!({"code": "already_charged"})),
            read: intent("charged", &amount),
            refunded: refund(4_500, "EUR"),
        }
    }
}

fn money(amount_minor: i64, currency: &str) -> Value {
    json!({"amount_minor": amount_minor, "currency": currency})
}

fn refund(amount_minor: i64, currency: &str) -> Value {
    json!({"refund_id": "re", "amount_minor": amount_minor, "currency": currency})
}

/// Ends the gateway with the test.
struct World {
    payment: Payment,
    tasks: Tasks,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn before(answers: Answers) -> World {
    let tasks = Tasks::new();
    let router = Router::new()
        .route("/gateway/intents", post(|State(it): State<Answers>| async move { Json(it.created) }))
        .route("/gateway/intents/pi", get(|State(it): State<Answers>| async move { Json(it.read) }))
        .route("/gateway/intents/pi/confirm", post(|State(it): State<Answers>| async move { Json(it.confirmed) }))
        .route("/gateway/intents/pi/cancel", post(cancel))
        .route("/gateway/intents/pi/refund", post(|State(it): State<Answers>| async move { Json(it.refunded) }))
        .with_state(answers);
    let gateway_url = serve_here(router, &tasks).await.unwrap();
    World { payment: Payment::new(&Options { gateway_url, timeout_ms: 5_000 }).unwrap(), tasks }
}

async fn cancel(State(it): State<Answers>) -> (StatusCode, Json<Value>) {
    (it.canceled.0, Json(it.canceled.1))
}

/// A charge of 45.00 EUR.
fn charge() -> Effect {
    let payload = json!({"amount": money(4_500, "EUR"), "payment_method": "tok_visa"});
    let mut effect = conformance::effect("payment", Uuid::from_u128(1), payload);
    effect.command.command = CHARGE.to_owned();
    effect
}

/// The undo of that charge, with what its execution answered.
fn undo(output: Option<Value>) -> Effect {
    let mut effect = charge();
    effect.command.payload = Value::Null;
    effect.provider_key = provider_key(effect.command.key, Verb::Compensate);
    effect.provider_ref = Some("pi".to_owned());
    effect.output = output;
    effect
}

/// The output of the charge.
fn output() -> Value {
    let charged = Charged { charge_id: "ch".to_owned(), amount: Money { amount_minor: 4_500, currency: "EUR".into() } };
    serde_json::to_value(charged).unwrap()
}

fn refusal(verdict: &Verdict) -> (&str, &str) {
    match verdict {
        Verdict::Definite(Outcome::Refused { code, message }) => (code, message),
        other @ (Verdict::Definite(_) | Verdict::Unknown { .. }) => panic!("expected a refusal, got {other:?}"),
    }
}

/// Nothing definite, with the intent noted.
fn is_open(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Unknown { provider_ref: Some(id), .. } if id == "pi")
}

#[tokio::test]
async fn a_refund_of_the_whole_charge_undoes_it() {
    let world = before(Answers::honest()).await;
    let amount = Money { amount_minor: 4_500, currency: "EUR".to_owned() };
    let undone = serde_json::to_value(Undone::Refunded { refund_id: "re".to_owned(), amount }).unwrap();
    assert_eq!(world.payment.undo(&undo(Some(output()))).await, Verdict::Definite(Outcome::succeeded(undone)));
}

#[tokio::test]
async fn a_refund_of_another_amount_is_refused_with_both_amounts() {
    let cases = [
        (0, "EUR", "0.00 EUR"),
        (1, "EUR", "0.01 EUR"),
        (4_499, "EUR", "44.99 EUR"),
        (4_501, "EUR", "45.01 EUR"),
        (-4_500, "EUR", "-45.00 EUR"),
        (4_500, "USD", "45.00 USD"),
    ];
    for (amount_minor, currency, shown) in cases {
        let world = before(Answers { refunded: refund(amount_minor, currency), ..Answers::honest() }).await;
        let verdict = world.payment.undo(&undo(Some(output()))).await;
        let (code, message) = refusal(&verdict);
        assert_eq!(code, "refund_mismatch", "{shown}");
        assert!(message.contains(shown) && message.contains("45.00 EUR had been charged"), "{message}");
    }
}

#[tokio::test]
async fn nothing_is_refunded_before_it_is_known_how_much_was_charged() {
    let world = before(Answers { read: intent("charged", &json!({})), ..Answers::honest() }).await;
    for output in [None, Some(json!({"charge_id": "ch"}))] {
        assert!(is_open(&world.payment.undo(&undo(output)).await));
    }
}

#[tokio::test]
async fn a_charge_of_another_amount_is_neither_a_success_nor_a_refusal() {
    let others = [money(1, "EUR"), money(-4_500, "EUR"), money(4_500, "USD"), json!({"amount_minor": 4_501})];
    for other in others {
        let charged = intent("charged", &other);
        let world = before(Answers { confirmed: charged.clone(), ..Answers::honest() }).await;
        assert!(is_open(&world.payment.execute(&charge()).await), "confirmed with {other}");

        // As a former call left it: the intent is found charged.
        let world = before(Answers { created: charged.clone(), read: charged, ..Answers::honest() }).await;
        assert!(is_open(&world.payment.execute(&charge()).await), "created with {other}");
        let again = Effect { provider_ref: Some("pi".to_owned()), ..charge() };
        assert!(is_open(&world.payment.execute(&again).await), "read with {other}");
    }
}

#[tokio::test]
async fn an_intent_of_another_amount_is_refused_once_it_is_canceled() {
    let created = intent("created", &money(45, "EUR"));
    let canceled = (StatusCode::OK, intent("canceled", &json!({})));
    let world = before(Answers { created: created.clone(), canceled, ..Answers::honest() }).await;
    assert_eq!(refusal(&world.payment.execute(&charge()).await).0, "amount_mismatch");

    for canceled in [
        (StatusCode::CONFLICT, json!({"code": "already_charged"})),
        (StatusCode::CONFLICT, json!({"code": "processing"})),
        (StatusCode::INTERNAL_SERVER_ERROR, Value::Null),
    ] {
        let world = before(Answers { created: created.clone(), canceled, ..Answers::honest() }).await;
        assert!(is_open(&world.payment.execute(&charge()).await));
    }
}

#[tokio::test]
async fn a_gateway_that_names_no_amount_is_believed() {
    let (created, confirmed) = (intent("created", &json!({})), intent("charged", &json!({})));
    let world = before(Answers { created, confirmed, ..Answers::honest() }).await;
    let verdict = world.payment.execute(&charge()).await;
    assert_eq!(verdict, Verdict::Definite(Outcome::succeeded(output())));
}
