//! A client at the REST API, the product as a process, and the product within the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bookend::dev::{ADMIN_TOKEN, CLIENT_TOKEN};
use bookend::settings::Settings;
use bookend::stack::{Parts, Stack};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use runtime::http::auth::sha256;
use runtime::http::{Role, Token};
use runtime::metrics::Recorder;
use saga_defs::Definition;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::process::{Process, Program};
use testkit::{eventually, free_port};
use transport::in_process::Faults;

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_bookend");
/// Longest wait for something that takes a moment.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// A phone that every simulator delivers to.
pub(crate) const PHONE: &str = "+15005550006";

/// A client or an admin at a server.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    pub(crate) url: String,
}

/// What the server said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Api {
    pub(crate) fn new(url: &str) -> Self {
        let client = Client::builder().timeout(Duration::from_secs(75)).build().expect("a client");
        Self { client, url: url.to_owned() }
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    /// Starts a saga as the client; `wait` in seconds.
    pub(crate) async fn start(
        &self,
        definition: &str,
        key: &str,
        input: &Value,
        wait: u32,
    ) -> Result<Answer, reqwest::Error> {
        let body = json!({"definition": definition, "input": input});
        let prefer = format!("wait={wait}");
        let mut headers = vec![("idempotency-key", key)];
        if wait > 0 {
            headers.push(("prefer", &prefer));
        }
        self.ask(Method::POST, "/v1/sagas", CLIENT_TOKEN, &headers, Some(&body)).await
    }

    /// Starts a saga that must be accepted, and returns its id.
    pub(crate) async fn accepted(&self, definition: &str, key: &str, input: &Value) -> String {
        let answer = self.start(definition, key, input, 0).await.expect("an answer");
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        answer.text("id").to_owned()
    }

    /// Asks as admin.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, ADMIN_TOKEN, &[], None).await.expect("an answer")
    }

    pub(crate) async fn saga(&self, id: &str) -> Answer {
        self.get(&format!("/v1/sagas/{id}")).await
    }

    /// An admin's operation at the given version.
    pub(crate) async fn operate(&self, id: &str, action: &str, etag: &str, key: &str) -> Answer {
        let headers = [("if-match", etag), ("idempotency-key", key)];
        let body = json!({"reason": "a test of this story"});
        let path = format!("/v1/sagas/{id}/{action}");
        self.ask(Method::POST, &path, ADMIN_TOKEN, &headers, Some(&body)).await.expect("an answer")
    }

    /// Waits until a saga has this status.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Answer {
        eventually(LIMIT, &format!("saga {id} is {status}"), async || {
            let answer = self.saga(id).await;
            if answer.text("status") == status { Ok(answer) } else { Err(answer.body.to_string()) }
        })
        .await
    }

    /// Ids of free slots.
    pub(crate) async fn free_slots(&self, count: usize) -> Vec<String> {
        let mut slots = Vec::new();
        let mut cursor = String::new();
        while slots.len() < count {
            let page = self.get(&format!("/v1/clinic/slots?status=free&limit=200{cursor}")).await;
            let data = page.body["data"].as_array().expect("a page").clone();
            slots.extend(data.iter().map(|slot| slot["id"].as_str().expect("an id").to_owned()));
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert!(slots.len() >= count, "only {} of {count} slots are free", slots.len());
        slots.truncate(count);
        slots
    }

    /// How many sagas have this status.
    pub(crate) async fn count(&self, status: &str) -> usize {
        let mut count = 0;
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/sagas?status={status}&limit=200{cursor}")).await;
            count += page.body["data"].as_array().expect("a page").len();
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return count,
            }
        }
    }

    /// Waits until no saga is under way.
    pub(crate) async fn all_ended(&self, limit: Duration) {
        eventually(limit, "every saga has ended", async || {
            let open = (self.count("running").await, self.count("compensating").await);
            if open == (0, 0) { Ok(()) } else { Err(format!("running and compensating: {open:?}")) }
        })
        .await;
    }

    /// Sum of a counter over the labels that fit.
    pub(crate) async fn counter(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").await.body.as_str().expect("metrics are text").to_owned();
        let fitting = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        fitting.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// What was charged and not refunded for a saga, in minor units.
    pub(crate) async fn net(&self, saga: &str) -> i64 {
        let page = self.get(&format!("/v1/payments?saga_id={saga}")).await;
        let entries = page.body["data"].as_array().expect("a page").clone();
        entries.iter().map(|entry| entry["net"]["amount_minor"].as_i64().expect("an amount")).sum()
    }
}

/// Input of a booking.
pub(crate) fn input(slot: &str, payment_method: &str) -> Value {
    json!({
        "slot_id": slot,
        "patient": {"name": "Ada Lovelace", "phone": PHONE, "email": "ada@example.org"},
        "payment_method": payment_method
    })
}

/// A folder with a definition beside the compiled-in ones.
pub(crate) fn definitions(dir: &Path, definition: &Definition) -> PathBuf {
    let folder = dir.join("definitions");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = serde_json::to_string(definition).expect("JSON");
    std::fs::write(folder.join(format!("{}.json", definition.name)), text).expect("a file");
    folder
}

/// The booking saga under another name.
pub(crate) fn booking_as(name: &str) -> Definition {
    Definition { name: name.to_owned(), ..saga_defs::catalog::booking() }
}

/// `bookend dev` as a process of its own.
pub(crate) struct Dev {
    pub(crate) process: Process,
    pub(crate) api: Api,
    pub(crate) data: PathBuf,
    _dir: TempDir,
}

impl Dev {
    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let mut program = Program::new(BIN, ["dev", "--port", "0", "--data", &data.display().to_string()]);
        for (name, value) in env {
            program = program.with_env(name, value);
        }
        let process = Process::start(program).expect("the product starts");
        let api = ready(&process).await;
        Self { process, api, data, _dir: dir }
    }

    /// kill -9, and a new start on the same data.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.process.restart().expect("the product starts again");
        self.api = ready(&self.process).await;
    }

    /// Everything adds up, by the product's own audit in a process of its own.
    pub(crate) async fn audit(&self) {
        audit(&self.data).await;
    }
}

async fn ready(process: &Process) -> Api {
    let url = |line: &str| line.strip_prefix("api   ")?.split_whitespace().next().map(str::to_owned);
    let url = process.line(LIMIT, "the product says where it listens", url).await;
    process.line(LIMIT, "the product is ready", |line| (line == "ready").then_some(())).await;
    Api::new(&url)
}

/// Runs `bookend audit` until it exits 0: the outbox empties a moment after the last saga has ended.
pub(crate) async fn audit(data: &Path) {
    eventually(LIMIT, "the audit finds nothing", async || {
        let output = Command::new(BIN).args(["audit", "--data"]).arg(data).output().expect("the audit runs");
        if output.status.success() {
            println!("audit: {}", String::from_utf8_lossy(&output.stderr).trim());
            return Ok(());
        }
        Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    })
    .await;
}

/// `bookend providers` as a process of its own, so that its list survives the product's death.
pub(crate) struct Simulators {
    _process: Process,
    pub(crate) api: Api,
}

impl Simulators {
    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let mut program = Program::new(BIN, ["providers", "--listen", "127.0.0.1:0"]);
        for (name, value) in env {
            program = program.with_env(name, value);
        }
        let process = Process::start(program).expect("the simulators start");
        let url = |line: &str| line.rsplit_once(" on ").map(|(_, url)| url.to_owned());
        let api = Api::new(&process.line(LIMIT, "the simulators say where they listen", url).await);
        Self { _process: process, api }
    }

    /// Environment that points the product here.
    pub(crate) fn env(&self) -> Vec<(&str, &str)> {
        ["BOOKEND_PAYMENT__GATEWAY_URL", "BOOKEND_NOTIFY__SMS_URL", "BOOKEND_NOTIFY__MAIL_URL"]
            .into_iter()
            .map(|name| (name, self.api.url.as_str()))
            .collect()
    }

    pub(crate) async fn summary(&self) -> Value {
        self.api.get("/accepted/summary").await.body
    }
}

/// The product within the test, where the transport's faults can be set and counted.
pub(crate) struct Local {
    pub(crate) stack: Stack,
    pub(crate) api: Api,
    pub(crate) data: PathBuf,
    _dir: TempDir,
}

impl Local {
    pub(crate) async fn start(
        faults: Option<Faults>,
        definition: Option<&Definition>,
        flags: &[(&'static str, i64)],
        gateway: &str,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut all: Vec<(&'static str, config::Value)> =
            flags.iter().map(|(name, value)| (*name, config::Value::from(*value))).collect();
        if let Some(definition) = definition {
            let folder = definitions(dir.path(), definition).display().to_string();
            all.push(("definitions.dir", folder.into()));
        }
        all.push(("payment.gateway_url", gateway.into()));
        let settings = Settings::read(None, all).expect("the settings fit");
        let token = |name: &str, role, token| Token { name: name.to_owned(), role, sha256: sha256(token) };
        let data = dir.path().join("data");
        let parts = Parts {
            dir: data.clone(),
            tokens: vec![token("a", Role::Admin, ADMIN_TOKEN), token("c", Role::Client, CLIENT_TOKEN)],
            faults,
            recorder: Recorder::unshared(),
        };
        let stack = Stack::start(&settings, parts).await.expect("the stack starts");
        let (listener, address) = free_port().await.expect("a port");
        stack.serve(listener);
        Self { stack, api: Api::new(&format!("http://{address}")), data, _dir: dir }
    }

    pub(crate) async fn audit(&self) {
        audit(&self.data).await;
    }
}
