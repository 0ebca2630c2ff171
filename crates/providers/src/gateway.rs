//! The card gateway over HTTP: create an intent, then confirm, cancel or refund it.
//!
//! Creating takes no money, so that cancelling what was created is definite. Must hold: a slow charge lands even
//! when its caller has hung up.

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::intents::{Confirmed, Intent, Status};
use crate::refusal::{Refusal, idempotency_key};
use crate::{Providers, World};

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
            Status::Processing(_) => ("processing", None, None),
            Status::Charged { charge_id, refund_id } => ("charged", Some(charge_id.clone()), refund_id.clone()),
            Status::Declined => ("declined", None, None),
            Status::Canceled => ("canceled", None, None),
        };
        Self {
            id: intent.id.clone(),
            status,
            amount_minor: intent.amount_minor,
            currency: intent.currency.clone(),
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
    let intent = providers.world().intents.create(key, body.amount_minor, body.currency, &body.payment_method)?;
    Ok(Json(View::from(&intent)))
}

async fn find(State(providers): State<Providers>, Query(find): Query<Find>) -> Json<Found> {
    let data = providers.world().intents.by_key(&find.key).map(View::from).into_iter().collect();
    Json(Found { data })
}

async fn read(State(providers): State<Providers>, Path(id): Path<String>) -> Result<Json<View>, Refusal> {
    view(&providers, &id)
}

async fn confirm(State(providers): State<Providers>, Path(id): Path<String>) -> Result<Json<View>, Refusal> {
    let now = providers.now();
    let confirmed = {
        let mut world = providers.world();
        let World { intents, journal, .. } = &mut *world;
        intents.confirm(&id, journal, now)?
    };
    match confirmed {
        Confirmed::Answer => view(&providers, &id),
        Confirmed::Silence => {
            providers.tasks().stopping().await;
            Err(Refusal::Stopping)
        }
        Confirmed::Land(landing) => {
            let landed = landing.subscribe();
            land_later(&providers, id.clone(), landing);
            wait(&providers, &id, landed).await
        }
        Confirmed::Wait(landed) => wait(&providers, &id, landed).await,
    }
}

fn land_later(providers: &Providers, id: String, landing: watch::Sender<()>) {
    let owned = providers.clone();
    providers.tasks().spawn(async move {
        if owned.tasks().sleep(owned.slow()).await {
            let now = owned.now();
            let mut world = owned.world();
            let World { intents, journal, .. } = &mut *world;
            intents.land(&id, journal, now);
        }
        drop(landing);
    });
}

async fn wait(providers: &Providers, id: &str, mut landed: watch::Receiver<()>) -> Result<Json<View>, Refusal> {
    // Nothing is ever sent: an error means that the sender is gone, which is the sign.
    while landed.changed().await.is_ok() {}
    let answer = view(providers, id)?;
    if answer.status == "charged" { Ok(answer) } else { Err(Refusal::Stopping) }
}

async fn cancel(State(providers): State<Providers>, Path(id): Path<String>) -> Result<Json<View>, Refusal> {
    providers.world().intents.cancel(&id)?;
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
    let World { intents, journal, .. } = &mut *world;
    let refund = intents.refund(&id, &key, journal, now)?;
    Ok(Json(RefundView { refund_id: refund.refund_id, amount_minor: refund.amount_minor, currency: refund.currency }))
}

fn view(providers: &Providers, id: &str) -> Result<Json<View>, Refusal> {
    providers.world().intents.get(id).map(|intent| Json(View::from(intent)))
}
