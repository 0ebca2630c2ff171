//! The API in front of a real engine on a store in memory, in paused time, with participants that do as the input's
//! `payment_method` tells them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use orchestrator::{Engine, Options, SeededEntropy};
use runtime::Tasks;
use runtime::clock::TokioClock;
use runtime::http::auth::sha256;
use runtime::http::{Role, Token, Tokens};
use saga_defs::catalog::{Catalog, Loaded, booking};
use saga_defs::{Command, Outcome, Timestamp, Verb, message};
use saga_store::{MemoryStore, Store};
use serde_json::{Value, json};
use tower::ServiceExt;
use transport::in_process::InProcess;
use transport::{Consumer, Message, Publisher, Queue, Transport};
use uuid::Uuid;

/// Longest that anything may take, in paused time.
const LIMIT: Duration = Duration::from_secs(600);
const PARTICIPANTS: [&str; 4] = ["booking", "payment", "confirmation", "notify"];

/// Three who ask: two clients and an admin.
pub(crate) const DESK: &str = "desk-secret";
pub(crate) const OTHER: &str = "other-secret";
pub(crate) const CHIEF: &str = "chief-secret";

/// Inputs' `payment_method`: what the participants do.
pub(crate) const GOOD: &str = "tok_good";
/// The payment is refused.
pub(crate) const DECLINED: &str = "tok_declined";
/// The payment is never answered, neither verb.
pub(crate) const SILENT: &str = "tok_silent";
/// The notice is never answered: stuck after the pivot.
pub(crate) const MUTE: &str = "tok_mute";

/// What the API said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Status and code at once, for comparing.
    pub(crate) fn problem(&self) -> (u16, &str) {
        if self.status.is_client_error() || self.status.is_server_error() {
            assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
            assert!(!self.body["detail"].as_str().expect("says what to do").is_empty());
        }
        (self.status.as_u16(), self.code())
    }

    pub(crate) fn id(&self) -> String {
        self.body["id"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

pub(crate) struct Desk {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) tasks: Tasks,
    router: Router,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        let transport = InProcess::new(&transport::in_process::Options {
            queues: transport::topology::queues(PARTICIPANTS),
            capacity: 64,
            faults: None,
        });
        let clock = TokioClock::starting_at(Timestamp(1_700_000_000_000_000));
        let store = Arc::new(MemoryStore::new(Arc::new(clock)));
        let tasks = Tasks::new();
        let engine = Engine::start(
            Arc::clone(&store) as Arc<dyn Store>,
            &transport,
            &catalog(),
            Arc::new(SeededEntropy::new(7)),
            &tasks,
            Options::default(),
        )
        .await
        .expect("the engine starts");
        for name in PARTICIPANTS {
            let consumer = transport.consumer(&Queue::Participant(name.to_owned()), 8);
            tasks.spawn(participate(consumer, transport.publisher(), tasks.clone()));
        }
        let token = |name: &str, role, text| Token { name: name.to_owned(), role, sha256: sha256(text) };
        let tokens = vec![
            token("desk", Role::Client, DESK),
            token("other", Role::Client, OTHER),
            token("chief", Role::Admin, CHIEF),
        ];
        let identified = runtime::http::identify(saga_api::router(engine), Arc::new(Tokens::new(tokens)));
        Self { store, tasks, router: runtime::http::edge(identified) }
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let request = request.body(body).expect("a request");
        let answered = tokio::time::timeout(LIMIT, self.router.clone().oneshot(request)).await.expect("in time");
        let (parts, body) = answered.expect("the router can't fail").into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(Method::GET, path, token, &[], None).await
    }

    /// Starts a saga as the desk.
    pub(crate) async fn start(&self, key: &str, payment_method: &str) -> Answer {
        self.start_with(key, &body(payment_method), &[]).await
    }

    pub(crate) async fn start_with(&self, key: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let headers: Vec<_> = headers.iter().copied().chain([("idempotency-key", key)]).collect();
        self.ask(Method::POST, "/v1/sagas", DESK, &headers, Some(body)).await
    }

    pub(crate) async fn operate(
        &self,
        id: &str,
        action: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        self.ask(Method::POST, &format!("/v1/sagas/{id}/{action}"), token, headers, Some(body)).await
    }

    /// Waits until a saga is in this status.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Answer {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let answer = self.get(&format!("/v1/sagas/{id}"), CHIEF).await;
            if answer.body["status"] == status {
                return answer;
            }
            assert!(tokio::time::Instant::now() < deadline, "never {status}: {answer:?}");
            tokio::time::advance(Duration::from_millis(50)).await;
        }
    }

    /// A saga that waits for a person: decided, and its notice can't be sent.
    pub(crate) async fn stuck(&self) -> Answer {
        let id = self.start("stuck", MUTE).await.id();
        self.until(&id, "stuck").await
    }
}

/// The booking saga with short budgets, and an older and a newer one beside it.
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (name, version) in [("booking", 1), ("booking", 2), ("other", 1)] {
        let mut definition = booking();
        definition.name = name.to_owned();
        definition.version = version;
        for step in &mut definition.steps {
            step.retry.attempts = 2;
            step.compensate_retry.attempts = 2;
        }
        catalog.add(Loaded::new(definition).expect("sound")).expect("each once");
    }
    catalog
}

pub(crate) fn input(payment_method: &str) -> Value {
    json!({
        "slot_id": Uuid::nil(),
        // The notice is not told of the payment, so the name says what it must know.
        "patient": {"name": payment_method, "phone": "+15005550006", "email": "ada@example.org"},
        "payment_method": payment_method
    })
}

pub(crate) fn body(payment_method: &str) -> Value {
    json!({"definition": "booking@1", "input": input(payment_method)})
}

pub(crate) fn reason() -> Value {
    json!({"reason": "a test"})
}

async fn participate(mut consumer: Box<dyn Consumer>, publisher: Arc<dyn Publisher>, tasks: Tasks) {
    loop {
        let deliveries = tokio::select! {
            biased;
            () = tasks.stopping() => return,
            deliveries = consumer.receive(1) => deliveries,
        };
        for delivery in deliveries.into_iter().flatten() {
            let commands = message::decode::<Command>(&delivery.body).expect("commands are JSON");
            for command in commands.into_iter().map(|item| item.expect("commands can be read")) {
                if let Some(outcome) = outcome(&command) {
                    let body = message::encode(&[command.reply(outcome)]).remove(0);
                    publisher.publish(&[Message::new(Uuid::new_v4(), Queue::Replies, body)]);
                }
            }
            consumer.acknowledge(&[delivery.tag]).await;
        }
    }
}

/// What a participant does; none for silence.
fn outcome(command: &Command) -> Option<Outcome> {
    let payment_method = command.payload["payment_method"].as_str().unwrap_or_default();
    match (command.participant.as_str(), command.verb) {
        ("payment", Verb::Execute) if payment_method == DECLINED => Some(Outcome::refused("card_declined", "no")),
        ("payment", Verb::Execute) if payment_method == SILENT => None,
        ("notify", Verb::Execute) if command.payload["patient"]["name"] == MUTE => None,
        ("booking", Verb::Execute) => Some(Outcome::succeeded(json!({
            "appointment_id": Uuid::nil(), "starts_at": 7, "price": {"amount_minor": 4500, "currency": "EUR"}
        }))),
        (_, Verb::Execute | Verb::Compensate) => Some(Outcome::succeeded(json!({}))),
    }
}
