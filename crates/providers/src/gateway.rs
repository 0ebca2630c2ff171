//! The card gateway over HTTP: create an intent, then confirm, cancel or refund it.
//!
//! Creating takes no money, so that cancelling what was created is definite. Must hold: a slow charge lands even
//! when its caller has hung up; no lock is held over a wait.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Providers;
use crate::intents::{Card, Intent, Status};
use crate::journal::Change;
use crate::refusal::{Refusal, idempotency_key};

pub(crate) fn routes() -> Router<Providers> {
    Router::new()
        .route("/gateway/intents", post(create).get(find))
        .route("/gateway/intents/{id}", get(read))
        .route("/gateway/intents/{id}/confirm", post(confirm))
        .route("/gateway/intents/{id}/cancel", post(cancel))
        .route("/gateway/intents/{id}/refund", post(refund))
}

/// No `Debug`: a payment method is nobody's business.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    amount_minor: i64,
    currency: String,
    payment_method: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Find {
    key: String,
}

#[derive(Serialize)]
struct Found {
    data: Vec<View>,
}

#[derive(Serialize)]
struct View {
    id: String,
    status: &'static str,
    amount_minor: i64,
    currency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_id: Option<String>,
}

impl From<&Intent> for View {
    fn from(intent: &Intent) -> Self {
        let (status, charge_id, refund_id) = match &intent.status {
            Status::Created => ("created", None, None),
            Status::Processing { .. } => ("processing", None, None),
            Status::Charged { charge_id, refund_id } => ("charged", Some(charge_id.clone()), refund_id.clone()),
            Status::Declined => ("declined", None, None),
            Status::Canceled => ("canceled", None, None),
        };
        Self {
            id: intent.wish.id.clone(),
            status,
            amount_minor: intent.wish.amount_minor,
            currency: intent.wish.currency.clone(),
            charge_id,
            refund_id,
        }
    }
}

#[derive(Serialize)]
struct RefundView {
    refund_id: String,
    amount_minor: i64,
    currency: String,
}

async fn create(
    State(providers): State<Providers>,
    headers: HeaderMap,
    Json(body): Json<Create>,
) -> Result<Json<View>, Refusal> {
    let key = idempotency_key(&headers)?;
    let mut world = providers.world();
    if let Some(wish) = world.intents.create(&key, body.amount_minor, &body.currency, &body.payment_method)? {
        world.commit(Change::Created(wish))?;
    }
    world.intents.by_key(&key).map(|intent| Json(View::from(intent))).ok_or(Refusal::IntentUnknown)
}

async fn find(State(providers): State<Providers>, Query(find): Query<Find>) -> Json<Found> {
    let data = providers.world().intents.by_key(&find.key).map(View::from).into_iter().collect();
    Json(Found { data })
}

async fn read(State(providers): State<Providers>, Path(id): Path<String>) -> Result<Json<View>, Refusal> {
    view(&providers, &id)
}

async fn confirm(State(providers): State<Providers>, Path(id): Path<String>) -> Result<Json<View>, Refusal> {
    match confirmed(&providers, &id)? {
        Confirmed::Answer => view(&providers, &id),
        Confirmed::Silence => {
            providers.tasks().stopping().await;
            Err(Refusal::Stopping)
        }
        Confirmed::Wait(landed) => wait(&providers, &id, landed).await,
    }
}

/// What is told about a confirmation.
enum Confirmed {
    /// How the intent stands.
    Answer,
    /// Nothing, although the money was taken.
    Silence,
    /// How it stands once the sender is gone.
    Wait(watch::Receiver<()>),
}

fn confirmed(providers: &Providers, id: &str) -> Result<Confirmed, Refusal> {
    let (now, slow_ms) = (providers.now(), providers.slow_ms());
    let mut world = providers.world();
    let became = world.intents.confirm(id, now, now.plus_ms(slow_ms))?;
    let first = became.is_some();
    if let Some(became) = became {
        world.commit(Change::Intent { id: id.to_owned(), became })?;
    }
    let intent = world.intents.get(id)?;
    match &intent.status {
        Status::Declined => Err(Refusal::CardDeclined),
        Status::Processing { landing, .. } => {
            if first {
                land_later(providers, id.to_owned(), slow_ms);
            }
            Ok(Confirmed::Wait(landing.subscribe()))
        }
        Status::Charged { .. } if first && intent.wish.card == Card::Silent => Ok(Confirmed::Silence),
        Status::Created | Status::Charged { .. } | Status::Canceled => Ok(Confirmed::Answer),
    }
}

/// Lets the charges land that were under way when the journal's former process ended.
pub(crate) fn resume(providers: &Providers) {
    let now = providers.now();
    let world = providers.world();
    for (id, lands_at) in world.intents.landings() {
        // A clock that was set back must not make a charge slower than a new one.
        land_later(providers, id.to_owned(), now.ms_until(lands_at).min(providers.slow_ms()));
    }
    let (intents, accepted) = (world.intents.len(), world.accepted.summary().accepted);
    tracing::info!(intents, ?accepted, "the simulators remember");
}

fn land_later(providers: &Providers, id: String, after_ms: u64) {
    let owned = providers.clone();
    providers.tasks().spawn(async move {
        if !owned.tasks().sleep(Duration::from_millis(after_ms)).await {
            return;
        }
        let now = owned.now();
        let mut world = owned.world();
        if let Some(became) = world.intents.land(&id, now)
            && world.commit(Change::Intent { id, became }).is_err()
        {
            tracing::warn!("a slow charge stays under way until the simulators start again");
        }
    });
}

async fn wait(providers: &Providers, id: &str, mut landed: watch::Receiver<()>) -> Result<Json<View>, Refusal> {
    tokio::select! {
        biased;
        // Nothing is ever sent: the error means that the sender is gone, which is the sign.
        _ = landed.changed() => view(providers, id),
        () = providers.tasks().stopping() => Err(Refusal::Stopping),
    }
}

async fn cancel(State(providers): State<Providers>, Path(id): Path<String>) -> Result<Json<View>, Refusal> {
    {
        let mut world = providers.world();
        if let Some(became) = world.intents.cancel(&id)? {
            world.commit(Change::Intent { id: id.clone(), became })?;
        }
    }
    view(&providers, &id)
}

async fn refund(
    State(providers): State<Providers>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<RefundView>, Refusal> {
    let key = idempotency_key(&headers)?;
    let now = providers.now();
    let mut world = providers.world();
    if let Some(became) = world.intents.refund(&id, &key, now)? {
        world.commit(Change::Intent { id: id.clone(), became })?;
    }
    let View { refund_id, amount_minor, currency, .. } = View::from(world.intents.get(&id)?);
    let refund_id = refund_id.ok_or(Refusal::NotCharged)?;
    Ok(Json(RefundView { refund_id, amount_minor, currency }))
}

fn view(providers: &Providers, id: &str) -> Result<Json<View>, Refusal> {
    providers.world().intents.get(id).map(|intent| Json(View::from(intent)))
}
