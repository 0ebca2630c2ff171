//! `bookend dead-letters …`: messages that could not be handled, and what a person makes of them.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Server, encode};
use super::exit::Exit;
use super::output::{self, Format, cell};

#[derive(Debug, Args)]
pub(super) struct DeadLetters {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List dead letters, newest first, without their items.
    List {
        /// waiting, replayed, discarded or all.
        #[arg(long, default_value = "waiting")]
        state: String,
        /// bad_json, unknown_version, wrong_participant, contract_violation, oversized, failed, rejected,
        /// delivery_limit, expired or maxlen.
        #[arg(long)]
        reason: Option<String>,
        /// Name of the queue that they were in, such as bookend.payment.
        #[arg(long)]
        queue: Option<String>,
        /// Dead letters per page.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Where the last page ended.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a dead letter with its item, which may hold personal data.
    Get { id: Uuid },
    /// Send a dead letter's item again.
    #[command(after_help = "Exit codes: 5 it can't be sent again, or was discarded; it is as it was.")]
    Replay(Settle),
    /// Throw a dead letter away; it stays in lists.
    Discard(Settle),
}

#[derive(Debug, Args)]
struct Settle {
    /// The dead letter.
    id: Uuid,
    /// Why; it is kept with the letter.
    #[arg(long)]
    reason: String,
}

impl DeadLetters {
    pub(super) async fn run(&self, format: Format) -> anyhow::Result<Exit> {
        match &self.verb {
            Verb::List { state, reason, queue, limit, cursor } => {
                let state = Some(state.clone());
                let filters = [("state", &state), ("reason", reason), ("queue", queue), ("cursor", cursor)];
                self.list(&filters, *limit, format).await
            }
            Verb::Get { id } => self.get(*id, format).await,
            Verb::Replay(settle) => self.settle("replay", settle, format).await,
            Verb::Discard(settle) => self.settle("discard", settle, format).await,
        }
    }

    async fn list(&self, filters: &[(&str, &Option<String>)], limit: u32, format: Format) -> anyhow::Result<Exit> {
        let mut path = format!("/v1/dead-letters?limit={limit}");
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        let page = match self.server.ask(Method::GET, &path, &[], None, format).await? {
            Err(exit) => return Ok(exit),
            Ok(answer) => answer.body,
        };
        output::rows(&page, &["id", "at", "queue", "reason", "state", "detail"], format);
        if let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) {
            output::note(&format!("more: --cursor {cursor}"));
        }
        Ok(Exit::Done)
    }

    async fn get(&self, id: Uuid, format: Format) -> anyhow::Result<Exit> {
        match self.server.ask(Method::GET, &format!("/v1/dead-letters/{id}"), &[], None, format).await? {
            Err(exit) => Ok(exit),
            Ok(answer) => {
                show(&answer.body, format);
                Ok(Exit::Done)
            }
        }
    }

    async fn settle(&self, action: &str, settle: &Settle, format: Format) -> anyhow::Result<Exit> {
        let path = format!("/v1/dead-letters/{}/{action}", settle.id);
        let body = json!({"reason": settle.reason});
        match self.server.ask(Method::POST, &path, &[], Some(&body), format).await? {
            Err(exit) => Ok(exit),
            Ok(answer) => {
                show(&answer.body, format);
                Ok(Exit::Done)
            }
        }
    }
}

fn show(letter: &Value, format: Format) {
    if format == Format::Json {
        return output::json(letter);
    }
    let mut rows: Vec<Vec<String>> = ["id", "state", "queue", "reason", "detail", "at", "attempts"]
        .map(|name| vec![name.to_owned(), cell(letter, name)])
        .to_vec();
    if letter.get("settled").is_some_and(Value::is_object) {
        let settled = ["settled.by", "settled.at", "settled.reason"];
        rows.extend(settled.map(|name| vec![name.to_owned(), cell(letter, name)]));
    }
    output::table(&["", ""], &rows);
    if letter.get("body").is_some() {
        output::line(&format!("\n{} ({}):", "item", cell(letter, "encoding")));
        output::line(&cell(letter, "body"));
    }
}
