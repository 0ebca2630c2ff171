//! `bookend sagas …`: the REST API from a terminal.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::client::{Server, encode};
use super::exit::Exit;
use super::output::{self, Format, cell};

mod show;

/// Longest wait that one request may ask for, in seconds.
const WAIT_S_MAX: u64 = 60;
/// Between two requests that wait.
const WAIT_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Sagas {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a saga.
    #[command(after_help = "Examples:\n  bookend sagas start --input @booking.json --wait 20\n  \
        bookend sagas start --definition booking@1 --input '{\"slot_id\":\"…\",…}' --idempotency-key order-7")]
    Start {
        /// `booking` for the newest version, `booking@1` for that one.
        #[arg(long, default_value = "booking")]
        definition: String,
        /// JSON, or @FILE.
        #[arg(long)]
        input: String,
        /// Business key.
        #[arg(long)]
        key: Option<String>,
        /// Repeating a start with the same key finds the same saga. Default: a new one, printed.
        #[arg(long)]
        idempotency_key: Option<String>,
        /// Wait up to so many seconds until the saga is decided or stuck.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Show a saga.
    Get { id: Uuid },
    /// List sagas, newest first.
    List {
        /// running, compensating, stuck, completed, compensated or closed.
        #[arg(long)]
        status: Option<String>,
        /// Name of the definition.
        #[arg(long)]
        definition: Option<String>,
        /// Business key.
        #[arg(long)]
        key: Option<String>,
        /// Sagas per page.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Where the last page ended.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Wait until a saga is decided or stuck.
    #[command(after_help = "Exit codes: 0 committed, 10 refused or undone, 11 stuck, 124 time ran out.")]
    Wait {
        id: Uuid,
        /// Seconds.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Show what happened to a saga.
    History { id: Uuid },
    /// Send a stuck command again, with a new budget.
    Retry(Operation),
    /// Count a stuck command as succeeded.
    Skip {
        #[command(flatten)]
        operation: Operation,
        /// The output that counts: JSON, or @FILE.
        #[arg(long, default_value = "{}")]
        result: String,
    },
    /// Undo a saga that is not decided.
    Compensate(Operation),
    /// Cancel a saga that is not decided.
    Cancel(Operation),
    /// Close a stuck saga; what it holds stays as it is.
    Close(Operation),
}

#[derive(Debug, Args)]
struct Operation {
    /// The saga.
    id: Uuid,
    /// Why; it is kept in the saga's history.
    #[arg(long)]
    reason: String,
    /// The version that you looked at. Default: the newest, whatever it is.
    #[arg(long)]
    version: Option<u64>,
    /// Repeating an operation with the same key repeats its answer. Default: a new one, printed.
    #[arg(long)]
    idempotency_key: Option<String>,
}

impl Sagas {
    pub(super) async fn run(&self, format: Format) -> anyhow::Result<Exit> {
        match &self.verb {
            Verb::Start { definition, input, key, idempotency_key, wait } => {
                let body = json!({"definition": definition, "key": key, "input": read_json("--input", input)?});
                self.start(without_null(body), idempotency_key.as_deref(), *wait, format).await
            }
            Verb::Get { id } => self.get(*id, format).await,
            Verb::List { status, definition, key, limit, cursor } => {
                let filters = [("status", status), ("definition", definition), ("key", key), ("cursor", cursor)];
                self.list(&filters, *limit, format).await
            }
            Verb::Wait { id, timeout } => self.wait(*id, after(*timeout), format).await,
            Verb::History { id } => self.history(*id, format).await,
            Verb::Retry(operation) => self.operate("retry", operation, None, format).await,
            Verb::Skip { operation, result } => {
                self.operate("skip", operation, Some(read_json("--result", result)?), format).await
            }
            Verb::Compensate(operation) => self.operate("compensate", operation, None, format).await,
            Verb::Cancel(operation) => self.operate("cancel", operation, None, format).await,
            Verb::Close(operation) => self.operate("close", operation, None, format).await,
        }
    }

    async fn start(
        &self,
        body: Value,
        idempotency_key: Option<&str>,
        wait: Option<u64>,
        format: Format,
    ) -> anyhow::Result<Exit> {
        let key = idempotency_key.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        output::note(&format!("idempotency key: {key}"));
        let deadline = wait.and_then(after);
        let mut headers = vec![("idempotency-key", key)];
        headers.extend(wait.map(|seconds| ("prefer", format!("wait={}", seconds.min(WAIT_S_MAX)))));
        match self.server.ask(Method::POST, "/v1/sagas", &headers, Some(&body), format).await? {
            Err(exit) => Ok(exit),
            Ok(answer) => match (wait, decided(&answer.body)) {
                (Some(_), None) => {
                    let id = cell(&answer.body, "id").parse().context("the server sent no id")?;
                    // Whatever becomes of the waiting, the saga was accepted.
                    output::note(&format!("saga: {id}"));
                    self.wait(id, deadline, format).await
                }
                (wait, exit) => {
                    show::saga(&answer.body, format);
                    Ok(exit.filter(|_| wait.is_some()).unwrap_or(Exit::Done))
                }
            },
        }
    }

    async fn get(&self, id: Uuid, format: Format) -> anyhow::Result<Exit> {
        match self.server.ask(Method::GET, &format!("/v1/sagas/{id}"), &[], None, format).await? {
            Err(exit) => Ok(exit),
            Ok(answer) => {
                show::saga(&answer.body, format);
                Ok(if decided(&answer.body).is_some() { Exit::Done } else { Exit::Open })
            }
        }
    }

    async fn list(&self, filters: &[(&str, &Option<String>)], limit: u32, format: Format) -> anyhow::Result<Exit> {
        let mut query = format!("limit={limit}");
        for (name, value) in filters {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        match self.server.ask(Method::GET, &format!("/v1/sagas?{query}"), &[], None, format).await? {
            Err(exit) => Ok(exit),
            Ok(answer) => {
                let columns =
                    ["id", "definition", "status", "decision", "stuck.cause", "stuck.step", "key", "created_at"];
                output::rows(&answer.body, &columns, format);
                if let Some(cursor) = answer.body.get("next_cursor").and_then(Value::as_str) {
                    output::note(&format!("more: --cursor {cursor}"));
                }
                Ok(Exit::Done)
            }
        }
    }

    /// Without a deadline it waits as long as it takes.
    async fn wait(&self, id: Uuid, deadline: Option<Instant>, format: Format) -> anyhow::Result<Exit> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left_s = left.map_or(WAIT_S_MAX, |left| left.as_secs_f64().ceil() as u64);
            let prefer = format!("wait={}", left_s.min(WAIT_S_MAX));
            let asked =
                self.server.ask(Method::GET, &format!("/v1/sagas/{id}"), &[("prefer", prefer)], None, format).await?;
            let answer = match asked {
                Err(exit) => return Ok(exit),
                Ok(answer) => answer,
            };
            if let Some(exit) = decided(&answer.body) {
                show::saga(&answer.body, format);
                return Ok(exit);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                show::saga(&answer.body, format);
                output::note(&format!("time ran out, and the saga goes on: bookend sagas wait {id}"));
                return Ok(Exit::TimedOut);
            }
            // An answer that comes early, as behind a proxy that drops the wish to wait, is not asked for without a pause.
            tokio::time::sleep(WAIT_PAUSE).await;
        }
    }

    async fn history(&self, id: Uuid, format: Format) -> anyhow::Result<Exit> {
        let mut cursor: Option<String> = None;
        let (mut rows, mut late) = (Vec::new(), Value::Null);
        loop {
            let more = cursor.map(|cursor| format!("&cursor={}", encode(&cursor))).unwrap_or_default();
            let path = format!("/v1/sagas/{id}/history?limit=200{more}");
            let answer = match self.server.ask(Method::GET, &path, &[], None, format).await? {
                Err(exit) => return Ok(exit),
                Ok(answer) => answer,
            };
            let mut page = answer.body;
            if let Some(first) = page.get_mut("late_replies") {
                late = first.take();
            }
            let Some(Value::Array(of_page)) = page.get_mut("data").map(Value::take) else {
                bail!("the server sent no history");
            };
            match format {
                Format::Json => rows.extend(of_page),
                Format::Table => show::history(&of_page),
            }
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        match format {
            Format::Json => {
                let whole = json!({"data": rows, "has_more": false, "next_cursor": null, "late_replies": late});
                output::json(&whole);
            }
            Format::Table => show::late_replies(&late),
        }
        Ok(Exit::Done)
    }

    async fn operate(
        &self,
        name: &str,
        operation: &Operation,
        result: Option<Value>,
        format: Format,
    ) -> anyhow::Result<Exit> {
        let matched = match operation.version {
            Some(version) => format!("\"{version}\""),
            None => {
                match self.server.ask(Method::GET, &format!("/v1/sagas/{}", operation.id), &[], None, format).await? {
                    Err(exit) => return Ok(exit),
                    Ok(answer) => {
                        let tag = answer.headers.get("etag").and_then(|tag| tag.to_str().ok());
                        tag.context("the server sent no version")?.to_owned()
                    }
                }
            }
        };
        let key = operation.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        output::note(&format!("idempotency key: {key}"));
        let body = without_null(json!({"reason": operation.reason, "output": result}));
        let path = format!("/v1/sagas/{}/{name}", operation.id);
        let headers = [("if-match", matched), ("idempotency-key", key)];
        match self.server.ask(Method::POST, &path, &headers, Some(&body), format).await? {
            Err(exit) => Ok(exit),
            Ok(answer) => {
                show::saga(&answer.body, format);
                Ok(Exit::Done)
            }
        }
    }
}

/// The instant after so many seconds; none where no clock reaches it.
fn after(seconds: u64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_secs(seconds))
}

/// Exit code of a saga that is decided or stuck.
fn decided(saga: &Value) -> Option<Exit> {
    match (cell(saga, "status").as_str(), cell(saga, "decision").as_str()) {
        ("stuck", _) => Some(Exit::Stuck),
        (_, "committed") => Some(Exit::Done),
        (_, "refused" | "undone" | "abandoned") => Some(Exit::NotCommitted),
        _ => None,
    }
}

fn read_json(flag: &str, text: &str) -> anyhow::Result<Value> {
    let text = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("{path} can't be read"))?,
        None => text.to_owned(),
    };
    match serde_json::from_str(&text).with_context(|| format!("{flag} is not JSON"))? {
        Value::Object(members) => Ok(Value::Object(members)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            bail!("{flag} must be a JSON object")
        }
    }
}

fn without_null(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        members.retain(|_, member| !member.is_null());
    }
    value
}
