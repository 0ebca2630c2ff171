//! The simulators, killed and started again on the same journal.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use providers::{Error, Filter, Options, Providers, router};
use runtime::Tasks;
use runtime::clock::TokioClock;
use saga_defs::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

/// How long a slow charge takes.
const SLOW_MS: u64 = 60_000;

/// A journal, and the clock that all lives share.
struct Place {
    folder: tempfile::TempDir,
    clock: TokioClock,
}

/// One life of the simulators. Dropping it stops its tasks, so that nothing of it lands in a later one.
struct Life {
    providers: Providers,
    router: Router,
    tasks: Tasks,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: TokioClock::starting_at(Timestamp(1_000_000)) }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("providers.jsonl")
    }

    fn open(&self, records_max: usize) -> Result<Life, Error> {
        let (tasks, clock) = (Tasks::new(), Arc::new(self.clock));
        let options = Options { slow_ms: SLOW_MS, records_max, journal: Some(self.journal()) };
        let providers = Providers::open(options, clock, tasks.clone())?;
        Ok(Life { router: router(providers.clone()), providers, tasks })
    }

    fn start(&self) -> Life {
        self.open(1_000).unwrap()
    }

    fn append(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).open(self.journal()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

impl Life {
    async fn ask(&self, method: &str, path: &str, key: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, key: &str) -> Value {
        self.ask("POST", path, key, json!({})).await.1
    }

    async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, "", Value::Null).await.1
    }

    /// Creates an intent; the answer is its address.
    async fn create(&self, key: &str, token: &str) -> String {
        let body = json!({"amount_minor": 4_500, "currency": "EUR", "payment_method": token});
        let (status, body) = self.ask("POST", "/gateway/intents", key, body).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        format!("/gateway/intents/{}", body["id"].as_str().unwrap())
    }

    async fn sms(&self, key: &str) -> StatusCode {
        self.ask("POST", "/sms/messages", key, json!({"to": "+15005550006", "text": "hello"})).await.0
    }

    /// Confirms a slow charge and hangs up.
    async fn confirm_slow(&self, intent: &str) {
        let path = format!("{intent}/confirm");
        let hung_up = tokio::time::timeout(Duration::from_secs(20), self.post(&path, "")).await;
        assert!(hung_up.is_err(), "the confirmation answered before the charge landed");
        assert_eq!(self.get(intent).await["status"], "processing");
    }
}

#[tokio::test]
async fn what_was_accepted_outlives_the_process() {
    let place = Place::new();
    let first = place.start();
    let mut intents = Vec::new();
    for (key, token, actions) in [
        ("created", "tok_visa", &[][..]),
        ("charged", "tok_visa", &["confirm"]),
        ("refunded", "tok_visa", &["confirm", "refund", "refund"]),
        ("declined", "tok_declined", &["confirm"]),
        ("canceled", "tok_visa", &["cancel", "cancel"]),
        ("given up", "tok_declined", &["confirm", "cancel"]),
    ] {
        let intent = first.create(key, token).await;
        for action in actions {
            first.post(&format!("{intent}/{action}"), "again").await;
        }
        intents.push((key, token, intent.clone(), first.get(&intent).await));
    }
    for key in ["a", "a", "b"] {
        assert_eq!(first.sms(key).await, StatusCode::OK);
    }
    let mail = json!({"to": "ada@example.org", "subject": "hi", "text": "hello"});
    assert_eq!(first.ask("POST", "/mail/messages", "a", mail).await.0, StatusCode::OK);
    let (summary, list) = (first.providers.summary(), first.providers.accepted(&Filter::default(), 0, 100));
    assert_eq!((summary.accepted.charge, summary.accepted.refund, summary.doubles.sms), (2, 1, 1));
    drop(first);

    let text = std::fs::read_to_string(place.journal()).unwrap();
    assert!(!text.contains("15005550006") && !text.contains("ada@") && !text.contains("tok_"), "{text}");
    let second = place.start();
    assert_eq!(second.providers.summary(), summary);
    assert_eq!(second.providers.accepted(&Filter::default(), 0, 100), list);
    for (key, token, intent, told) in intents {
        assert_eq!(second.get(&intent).await, told, "{key}");
        assert_eq!(second.create(key, token).await, intent, "{key} must not be created twice");
    }
}

#[tokio::test]
async fn a_charge_of_a_former_life_is_charged_once_and_given_back_once() {
    let place = Place::new();
    let first = place.start();
    let intent = first.create("k", "tok_visa").await;
    let charged = first.post(&format!("{intent}/confirm"), "").await;
    drop(first);
    let second = place.start();
    assert_eq!(second.post(&format!("{intent}/confirm"), "").await, charged);
    let refund = second.post(&format!("{intent}/refund"), "r").await;
    assert_eq!(refund["amount_minor"], 4_500);
    drop(second);
    let third = place.start();
    assert_eq!(third.post(&format!("{intent}/refund"), "r").await, refund);
    let accepted = third.providers.summary().accepted;
    assert_eq!((accepted.charge, accepted.refund), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_charge_lands_after_a_restart_in_the_time_that_is_left() {
    let place = Place::new();
    let first = place.start();
    let intent = first.create("k", "tok_slow").await;
    first.confirm_slow(&intent).await;
    drop(first);
    let second = place.start();
    let before = tokio::time::Instant::now();
    let landed = second.post(&format!("{intent}/confirm"), "").await;
    assert_eq!(landed["status"], "charged");
    assert_eq!(before.elapsed().as_secs(), SLOW_MS / 1_000 - 20);
    drop(second);
    let third = place.start();
    assert_eq!(third.get(&intent).await, landed);
    assert_eq!(third.providers.summary().accepted.charge, 1);
}

#[tokio::test(start_paused = true)]
async fn an_overdue_charge_lands_at_once_after_a_restart() {
    let place = Place::new();
    let first = place.start();
    let intent = first.create("k", "tok_slow").await;
    first.confirm_slow(&intent).await;
    drop(first);
    tokio::time::advance(Duration::from_millis(SLOW_MS)).await;
    let second = place.start();
    let before = tokio::time::Instant::now();
    assert_eq!(second.post(&format!("{intent}/confirm"), "").await["status"], "charged");
    assert!(before.elapsed() < Duration::from_millis(10), "took {:?}", before.elapsed());
}

#[tokio::test]
async fn a_torn_last_line_is_dropped_and_writing_goes_on_behind_the_whole_ones() {
    let place = Place::new();
    let first = place.start();
    let intent = first.create("k", "tok_visa").await;
    first.post(&format!("{intent}/confirm"), "").await;
    drop(first);
    let whole = std::fs::read_to_string(place.journal()).unwrap();
    place.append(r#"{"intent":{"id":"#);
    let second = place.start();
    assert_eq!(std::fs::read_to_string(place.journal()).unwrap(), whole);
    assert_eq!(second.get(&intent).await["status"], "charged");
    second.post(&format!("{intent}/refund"), "r").await;
    drop(second);
    let accepted = place.start().providers.summary().accepted;
    assert_eq!((accepted.charge, accepted.refund), (1, 1));
}

#[tokio::test]
async fn a_line_that_makes_no_sense_stops_the_start_and_is_named() {
    let place = Place::new();
    place.start().create("k", "tok_visa").await;
    let whole = std::fs::read_to_string(place.journal()).unwrap();
    place.append("{\"weather\":\"fine\"}\n");
    assert!(matches!(place.open(1_000).err(), Some(Error::JournalLine { line: 2, .. })));
    std::fs::write(place.journal(), whole.repeat(2)).unwrap();
    assert!(matches!(place.open(1_000).err(), Some(Error::JournalOrder { line: 2 })));
    let unknown = r#"{"intent":{"id":"pi_unknown","became":"canceled"}}"#;
    std::fs::write(place.journal(), format!("{whole}{unknown}\n")).unwrap();
    assert!(matches!(place.open(1_000).err(), Some(Error::JournalOrder { line: 2 })));
}

#[tokio::test]
async fn the_bound_counts_former_lives_and_forgets_nothing() {
    let place = Place::new();
    let first = place.start();
    let intent = first.create("k", "tok_visa").await;
    assert_eq!((first.sms("a").await, first.sms("b").await), (StatusCode::OK, StatusCode::OK));
    drop(first);
    let second = place.open(1).unwrap();
    assert_eq!(second.providers.summary().accepted.sms, 2);
    assert_eq!(second.sms("c").await, StatusCode::SERVICE_UNAVAILABLE);
    let body = json!({"amount_minor": 1, "currency": "EUR", "payment_method": "tok_visa"});
    assert_eq!(second.ask("POST", "/gateway/intents", "other", body).await.1["code"], "full");
    assert_eq!(second.post(&format!("{intent}/confirm"), "").await["status"], "charged");
}
