//! Talks to a server's REST API and translates its answers into exit codes.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use super::exit::Exit;
use super::output::{self, Format};

/// Longest wait for one answer: the longest wait that can be asked for, and some.
const ANSWER_MAX: Duration = Duration::from_secs(75);

/// Where the server is, and who asks.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// Base address of the server.
    #[arg(long, env = "BOOKEND_SERVER", default_value = "http://127.0.0.1:7878", global = true, value_parser = base)]
    server: String,
    /// Bearer token.
    #[arg(long, env = "BOOKEND_TOKEN", hide_env_values = true, default_value = "dev-admin", global = true)]
    token: String,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Server {
    /// Asks. `Err` holds the exit code of a bad answer, which is printed already.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
        format: Format,
    ) -> anyhow::Result<Result<Answer, Exit>> {
        let client = reqwest::Client::builder().timeout(ANSWER_MAX).build().context("no HTTP client")?;
        let headers = match self.headers(headers) {
            Ok(headers) => headers,
            Err(flag) => {
                output::error(&format!("{flag} takes visible ASCII characters, without line breaks: correct it"));
                return Ok(Err(Exit::Usage));
            }
        };
        let mut request = client.request(method, format!("{}{path}", self.server)).headers(headers);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                output::error(&format!("{} can't be reached: {:#}", self.server, anyhow::Error::from(error)));
                return Ok(Err(Exit::Unreachable));
            }
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.context("the answer broke off")?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status.is_success() {
            return Ok(Ok(Answer { headers, body }));
        }
        complain(status, &body, format);
        Ok(Err(exit_of(status)))
    }

    /// `Err` names the flag whose value fits into no header.
    fn headers(&self, headers: &[(&'static str, String)]) -> Result<HeaderMap, String> {
        let mut all = HeaderMap::new();
        let mut token = HeaderValue::from_str(&format!("Bearer {}", self.token)).map_err(|_| "--token".to_owned())?;
        token.set_sensitive(true);
        all.insert(AUTHORIZATION, token);
        for (name, value) in headers {
            all.insert(*name, HeaderValue::from_str(value).map_err(|_| format!("--{name}"))?);
        }
        Ok(all)
    }
}

/// The base of all addresses.
fn base(text: &str) -> Result<String, &'static str> {
    let plain =
        |url: &Url| matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    match Url::parse(text).ok().filter(plain) {
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None => Err("give the whole URL, such as http://127.0.0.1:7878"),
    }
}

fn complain(status: StatusCode, body: &Value, format: Format) {
    if format == Format::Json {
        return output::note(&body.to_string());
    }
    let title = output::cell(body, "title");
    output::error(&format!("{} {title}: {}", status.as_u16(), output::cell(body, "detail")));
    for name in ["actions", "version", "saga_id"] {
        match body.get(name) {
            Some(Value::Array(values)) => {
                let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                output::note(&format!("  {name}: {}", values.join(", ")));
            }
            Some(_) => output::note(&format!("  {name}: {}", output::cell(body, name))),
            None => {}
        }
    }
    for problem in body.get("errors").and_then(Value::as_array).into_iter().flatten() {
        output::note(&format!("  {} {}", output::cell(problem, "pointer"), output::cell(problem, "detail")));
    }
}

fn exit_of(status: StatusCode) -> Exit {
    match status.as_u16() {
        401 | 403 => Exit::Forbidden,
        404 | 410 => Exit::NotFound,
        409 | 412 | 428 => Exit::Conflict,
        500..=599 => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// Percent-encodes everything but unreserved characters: RFC 3986, 2.3.
pub(super) fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
