//! A client and an admin at the demo's own API.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, RequestBuilder};
use runtime::clock::parse_rfc3339;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::cli::output::{self, cell};
use crate::dev::{ADMIN_TOKEN, CLIENT_TOKEN};

use super::narrator::sentence;

/// Longest that a saga of the demo may take.
const STORY_MAX: Duration = Duration::from_secs(30);
/// Wait between two looks at a saga's history.
const LOOK_EVERY: Duration = Duration::from_millis(15);

pub(super) struct Teller {
    client: Client,
    url: String,
}

/// What a booking is made with.
pub(super) struct Wish {
    pub(super) phone: &'static str,
    pub(super) payment_method: &'static str,
}

impl Teller {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let client = Client::builder().timeout(STORY_MAX).build().context("no HTTP client")?;
        Ok(Self { client, url: url.to_owned() })
    }

    /// Some free slots.
    pub(super) async fn free_slots(&self, count: u32) -> anyhow::Result<Vec<Value>> {
        let page = self.get(&format!("/v1/clinic/slots?status=free&limit={count}"), CLIENT_TOKEN).await?;
        let slots = page["data"].as_array().cloned().unwrap_or_default();
        if slots.len() < count as usize {
            bail!("only {} of {count} free slots are left", slots.len());
        }
        Ok(slots)
    }

    /// Starts a booking and returns the saga's id.
    pub(super) async fn book(&self, slot: &Value, wish: &Wish) -> anyhow::Result<String> {
        let body = json!({"definition": "booking", "input": {
            "slot_id": slot["id"],
            "patient": {"name": "Ada Lovelace", "phone": wish.phone, "email": "ada@example.org"},
            "payment_method": wish.payment_method,
        }});
        let request = self.client.post(format!("{}/v1/sagas", self.url)).bearer_auth(CLIENT_TOKEN);
        let saga = read(request.header("Idempotency-Key", Uuid::new_v4().to_string()).json(&body)).await?;
        Ok(cell(&saga, "id"))
    }

    /// Tells a saga's events as they happen, until it has ended or is stuck.
    pub(super) async fn follow(&self, id: &str) -> anyhow::Result<Value> {
        let begun = Instant::now();
        let mut told = 0;
        loop {
            let saga = self.saga(id).await?;
            let history = self.get(&format!("/v1/sagas/{id}/history?limit=200"), CLIENT_TOKEN).await?;
            for row in history["data"].as_array().into_iter().flatten() {
                let seq = row["seq"].as_u64().unwrap_or(0);
                if seq <= told {
                    continue;
                }
                told = seq;
                let at = seconds_between(&saga["created_at"], &row["at"]);
                for event in row["events"].as_array().into_iter().flatten() {
                    output::line(&format!("  {at:>7.3}  {}  {}", short(id), sentence(event)));
                }
            }
            // The saga was read before its history, so nothing is left untold.
            if is_over(&saga) {
                return Ok(saga);
            }
            if begun.elapsed() > STORY_MAX {
                bail!("saga {id} is still {} after {STORY_MAX:?}", cell(&saga, "status"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a saga has ended or is stuck, telling nothing.
    pub(super) async fn outcome(&self, id: &str) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let saga = self.saga(id).await?;
            if is_over(&saga) {
                return Ok(saga);
            }
            if begun.elapsed() > STORY_MAX {
                bail!("saga {id} is still {} after {STORY_MAX:?}", cell(&saga, "status"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// What was charged and not refunded, in minor units.
    pub(super) async fn net_paid(&self, saga: &str) -> anyhow::Result<i64> {
        let page = self.get(&format!("/v1/payments?saga_id={saga}"), ADMIN_TOKEN).await?;
        let net = |entry: &Value| entry["net"]["amount_minor"].as_i64().unwrap_or(0);
        Ok(page["data"].as_array().into_iter().flatten().map(net).sum())
    }

    /// The channel that the saga's notice went out by.
    pub(super) async fn channel(&self, saga: &str) -> anyhow::Result<String> {
        let page = self.get(&format!("/v1/notices?saga_id={saga}"), ADMIN_TOKEN).await?;
        Ok(page["data"].get(0).map_or_else(|| "none".to_owned(), |notice| cell(notice, "channel")))
    }

    /// Whether the slot is free.
    pub(super) async fn is_free(&self, slot: &Value) -> anyhow::Result<bool> {
        let path = format!("/v1/clinic/appointments?slot_id={}&limit=200", cell(slot, "id"));
        let page = self.get(&path, ADMIN_TOKEN).await?;
        let active = |entry: &Value| matches!(cell(entry, "status").as_str(), "pending" | "confirmed");
        Ok(!page["data"].as_array().into_iter().flatten().any(active))
    }

    async fn saga(&self, id: &str) -> anyhow::Result<Value> {
        self.get(&format!("/v1/sagas/{id}"), CLIENT_TOKEN).await
    }

    async fn get(&self, path: &str, token: &str) -> anyhow::Result<Value> {
        read(self.client.get(format!("{}{path}", self.url)).bearer_auth(token)).await
    }
}

/// Seconds from one instant of the API to another.
fn seconds_between(from: &Value, to: &Value) -> f64 {
    let instant = |value: &Value| value.as_str().and_then(parse_rfc3339);
    match (instant(from), instant(to)) {
        (Some(from), Some(to)) => (to.0 - from.0) as f64 / 1_000_000.0,
        (_, _) => 0.0,
    }
}

fn is_over(saga: &Value) -> bool {
    matches!(cell(saga, "status").as_str(), "completed" | "compensated" | "stuck" | "closed")
}

/// The end of an id: the beginning of a UUIDv7 is the time, and all of a demo's look alike.
pub(super) fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(6)..).unwrap_or(id)
}

async fn read(request: RequestBuilder) -> anyhow::Result<Value> {
    let response = request.send().await.context("the demo's own server does not answer")?;
    let status = response.status();
    let body: Value = response.json().await.context("the demo's own server answers without JSON")?;
    if !status.is_success() {
        bail!("{status}: {}", cell(&body, "detail"));
    }
    Ok(body)
}
