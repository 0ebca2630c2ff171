//! Providers, notices and verdicts for the participant's tests.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use notify::{BreakerOptions, Notify, Options};
use participant_kit::{Effect, Verdict, conformance};
use providers::{Counts, Providers};
use runtime::http::serve_here;
use runtime::{SystemClock, Tasks};
use saga_defs::Outcome;
use saga_defs::contract::notify::SEND;
use serde_json::{Value, json};
use uuid::Uuid;

/// Longest wait for something that must come.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) const PHONE: &str = "+15005550006";
pub(crate) const PHONE_DOWN: &str = "+15005550009";
pub(crate) const PHONE_SILENT: &str = "+15005550008";

/// The simulators, over a loopback socket.
pub(crate) struct World {
    pub(crate) providers: Providers,
    pub(crate) url: String,
    pub(crate) tasks: Tasks,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// An address where nobody listens.
pub(crate) async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

impl World {
    pub(crate) async fn new() -> Self {
        let tasks = Tasks::new();
        let providers = Providers::new(providers::Options::default(), Arc::new(SystemClock), tasks.clone());
        let url = serve_here(providers::router(providers.clone()), &tasks).await.unwrap();
        Self { providers, url, tasks }
    }

    pub(crate) fn notify(&self, change: impl FnOnce(&mut Options)) -> Notify {
        let mut options = at(&self.url);
        change(&mut options);
        Notify::new(&options).unwrap()
    }

    pub(crate) fn accepted(&self) -> (u64, u64) {
        let Counts { sms, mail, .. } = self.providers.summary().accepted;
        (sms, mail)
    }
}

/// Both providers at one address, and a breaker that stays out of the way.
fn at(url: &str) -> Options {
    Options {
        sms_url: url.to_owned(),
        mail_url: url.to_owned(),
        timeout_ms: 5_000,
        breaker: BreakerOptions { failures: 1_000, open_ms: 60_000 },
    }
}

/// Both providers, which answer as they are told, and remember who was asked under which key.
pub(crate) struct Script {
    sms: AtomicU16,
    mail: AtomicU16,
    asked: Mutex<Vec<(String, String)>>,
}

impl Script {
    /// Serves both until `tasks` stop; and a participant that talks to them.
    pub(crate) async fn serve(tasks: &Tasks) -> (Arc<Self>, Notify) {
        let script = Arc::new(Self { sms: AtomicU16::new(200), mail: AtomicU16::new(200), asked: Mutex::default() });
        let router = Router::new().route("/{channel}/messages", post(answer)).with_state(Arc::clone(&script));
        let url = serve_here(router, tasks).await.unwrap();
        (script, Notify::new(&at(&url)).unwrap())
    }

    /// From now on they answer with these statuses.
    pub(crate) fn say(&self, sms: u16, mail: u16) {
        self.sms.store(sms, Ordering::SeqCst);
        self.mail.store(mail, Ordering::SeqCst);
    }

    /// Who was asked since this was asked last, and under which keys.
    pub(crate) fn asked(&self) -> (Vec<String>, Vec<String>) {
        std::mem::take(&mut *self.asked.lock().unwrap()).into_iter().unzip()
    }
}

async fn answer(State(script): State<Arc<Script>>, Path(channel): Path<String>, headers: HeaderMap) -> Response {
    let status = if channel == "sms" { &script.sms } else { &script.mail }.load(Ordering::SeqCst);
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let id = json!({"id": format!("{channel}_scripted")});
    script.asked.lock().unwrap().push((channel, key));
    (StatusCode::from_u16(status).unwrap(), Json(id)).into_response()
}

/// What a notice says.
pub(crate) fn payload(phone: &str) -> Value {
    json!({
        "patient": {"name": "Ada Lovelace", "phone": phone, "email": "ada@example.org"},
        "appointment_id": Uuid::from_u128(77),
        "starts_at": 1_790_000_000_000_000_i64,
    })
}

pub(crate) fn effect(saga: u128, phone: &str) -> Effect {
    let mut effect = conformance::effect("notify", Uuid::from_u128(saga), payload(phone));
    effect.command.command = SEND.to_owned();
    effect
}

/// The same notice again, with what a try before it noted.
pub(crate) fn again(note: &str) -> Effect {
    Effect { provider_ref: Some(note.to_owned()), ..effect(1, PHONE) }
}

/// The channel that took the notice.
pub(crate) fn channel(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Definite(Outcome::Succeeded { output }) => output["channel"].as_str().unwrap().to_owned(),
        other @ (Verdict::Definite(_) | Verdict::Unknown { .. }) => panic!("expected a success, got {other:?}"),
    }
}

/// What a try without a verdict noted.
pub(crate) fn noted(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Unknown { provider_ref, .. } => provider_ref.clone(),
        Verdict::Definite(outcome) => panic!("expected nothing definite, got {outcome:?}"),
    }
}

/// The code of a refusal.
pub(crate) fn code(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Definite(Outcome::Refused { code, .. }) => code.clone(),
        other @ (Verdict::Definite(_) | Verdict::Unknown { .. }) => panic!("expected a refusal, got {other:?}"),
    }
}
