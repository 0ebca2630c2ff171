//! Where sagas enter: at the engine itself, or through its HTTP interface over loopback.
//!
//! Must hold: both ask for the same saga and look at what became of it. At the engine a saga counts when it has ended;
//! through HTTP when the client has its answer, which is when the saga is decided.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use orchestrator::{Engine, Error, StartAnswer, StartRequest, Started};
use reqwest::{Client, StatusCode, Url};
use runtime::Tasks;
use runtime::http::{Role, Token, Tokens};
use saga_core::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::job::{DEFINITION_NAME, NAP_NAME};
use crate::load::{Entry, SAGA_MAX};
use crate::world::Setup;

/// When an engine at its limit is asked again.
const AGAIN: Duration = Duration::from_millis(20);

const TOKEN: &str = "bench-token";

/// The entry that was asked for.
pub(crate) async fn entry(engine: Engine, setup: Setup, tasks: &Tasks) -> anyhow::Result<Arc<dyn Entry>> {
    if !setup.http {
        return Ok(Arc::new(Direct { engine }));
    }
    let token = Token { name: "bench".to_owned(), role: Role::Client, sha256: runtime::http::auth::sha256(TOKEN) };
    let identified = runtime::http::identify(saga_api::router(engine), Arc::new(Tokens::new(vec![token])));
    let url = runtime::http::serve_here(runtime::http::edge(identified), tasks).await?;
    Ok(Arc::new(Http { client: Client::new(), url: format!("{url}/v1/sagas").parse()? }))
}

/// Starts a saga that waits for an hour at its first step; nobody follows it.
pub(crate) async fn nap(engine: &Engine, number: u64) -> anyhow::Result<()> {
    begin(engine, NAP_NAME, || json!({}), format!("nap-{}", key(number))).await.map(|_| ())
}

async fn begin(
    engine: &Engine,
    definition: &str,
    input: impl Fn() -> Value,
    idempotency_key: String,
) -> anyhow::Result<Started> {
    loop {
        // A client is elsewhere: whoever waits, to ask again or for the end, holds nothing here of what was asked.
        let request = StartRequest {
            tenant: "bench".to_owned(),
            principal: "bench".to_owned(),
            actor: "client:bench".to_owned(),
            idempotency_key: idempotency_key.clone(),
            definition: definition.to_owned(),
            key: None,
            input: input(),
        };
        match Box::pin(engine.begin(request)).await {
            Ok(StartAnswer::Started(started)) => return Ok(*started),
            // As a client does that was told to ask again soon.
            Err(Error::Overloaded) => tokio::time::sleep(AGAIN).await,
            Ok(_) => bail!("a saga was not started"),
            Err(error) => return Err(error.into()),
        }
    }
}

fn key(number: u64) -> String {
    format!("{}-{number}", std::process::id())
}

/// At the engine itself.
struct Direct {
    engine: Engine,
}

#[async_trait]
impl Entry for Direct {
    async fn run(&self, number: u64, refuse: bool) -> anyhow::Result<()> {
        let started = begin(&self.engine, DEFINITION_NAME, || json!({ "refuse": refuse }), key(number)).await?;
        let ended = self.engine.follow_to_end(started, SAGA_MAX).await?.context("a saga is gone")?;
        let wanted = if refuse { Status::Compensated } else { Status::Completed };
        if ended.saga.status() != wanted {
            bail!("saga {} is {:?}", ended.header.id, ended.saga.status());
        }
        Ok(())
    }
}

/// Through HTTP.
struct Http {
    client: Client,
    url: Url,
}

/// What a client looks at in an answer; it shares its processors with what it measures, and so reads no more.
#[derive(Deserialize)]
struct Answer<'a> {
    decision: Option<&'a str>,
}

#[async_trait]
impl Entry for Http {
    async fn run(&self, number: u64, refuse: bool) -> anyhow::Result<()> {
        let request = self.client.post(self.url.clone()).bearer_auth(TOKEN).header("Idempotency-Key", key(number));
        let body = json!({ "definition": DEFINITION_NAME, "input": { "refuse": refuse } });
        let answer = request.header("Prefer", "wait=60").json(&body).send().await?;
        let status = answer.status();
        let text = answer.bytes().await?;
        let Answer { decision } = serde_json::from_slice(&text)?;
        let wanted = if refuse { "undone" } else { "committed" };
        if status != StatusCode::CREATED || decision != Some(wanted) {
            bail!("a saga was answered with {status}: {}", String::from_utf8_lossy(&text));
        }
        Ok(())
    }
}
