//! What the command line prints and how it ends, before a server that answers as the test wants it.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use runtime::Tasks;
use serde_json::{Value, json};
use testkit::free_port;
use uuid::Uuid;

use crate::common::BIN;

/// Names some saga.
const ID: &str = "0190f5fe-7c00-7a00-8000-000000000001";

/// How a run of `bookend` ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command.args(args).env_remove("BOOKEND_SERVER").env_remove("BOOKEND_TOKEN");
    command
}

fn run(args: &[&str]) -> Ran {
    let output = command(args).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A server that answers whatever it is asked, and notes it.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: Tasks,
}

impl Server {
    /// `answer` gets method and path, and how many requests came before.
    async fn start(answer: impl Fn(&str, usize) -> (u16, Value) + Clone + Send + Sync + 'static) -> Self {
        let (listener, address) = free_port().await.expect("a port");
        let (tasks, asked) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let (stop, noted) = (tasks.clone(), Arc::clone(&asked));
        let router = Router::new().fallback(async move |request: Request| {
            let line = format!("{} {}", request.method(), request.uri());
            let mut noted = noted.lock().expect("no test panicked");
            let (status, body) = answer(&line, noted.len());
            let prefer = request.headers().get("prefer").map_or("", |value| value.to_str().expect("ASCII"));
            noted.push(format!("{line} {prefer}").trim_end().to_owned());
            let mut response = Response::new(Body::from(body.to_string()));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response
        });
        tasks.spawn(async move { runtime::http::serve(listener, router, &stop).await });
        Self { url: format!("http://{address}"), asked, _tasks: tasks }
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(&[&["sagas", "--server", &self.url], args].concat())
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panicked").clone()
    }
}

fn saga(status: &str, decision: Option<&str>) -> Value {
    json!({"id": ID, "status": status, "decision": decision, "steps": []})
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_told_whole() {
    let row = |seq: u64, event: Value| json!({"seq": seq, "at": "then", "actor": "engine", "events": [event]});
    let server = Server::start(move |line, _| {
        let page = if line.contains("cursor=next") {
            let late = json!({"type": "late", "step": "payment", "verb": "execute", "fact": {"refused": "no_money"}});
            json!({"data": [row(2, late)], "has_more": false, "next_cursor": null})
        } else {
            let late = json!({"received_at": "later", "reason": "contradiction", "reply":
                {"verb": "compensate", "outcome": "refused", "code": "surprise"}});
            let first = row(1, json!({"type": "started", "definition": "booking@1"}));
            json!({"data": [first], "has_more": true, "next_cursor": "next", "late_replies": [late]})
        };
        (200, page)
    })
    .await;
    let whole: Value = serde_json::from_str(&server.run(&["history", ID, "-o", "json"]).out).expect("one document");
    assert_eq!((&whole["data"][0]["seq"], &whole["data"][1]["seq"]), (&json!(1), &json!(2)));
    assert_eq!((&whole["has_more"], &whole["next_cursor"]), (&json!(false), &Value::Null));
    assert_eq!(whole["late_replies"][0]["reply"]["code"], "surprise");
    let told = server.run(&["history", ID]).out;
    assert!(told.contains("payment      execute was answered, and nothing moves: refused: no_money\n"), "{told}");
    assert!(told.ends_with("late replies\n      later  contradiction  compensate refused: surprise\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_as_long_as_was_asked_for() {
    let server = Server::start(|_, before| {
        (200, if before < 2 { saga("running", None) } else { saga("completed", Some("committed")) })
    })
    .await;
    let ran = server.run(&["start", "--input", "{}", "--wait", "120"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let again = format!("GET /v1/sagas/{ID} wait=60");
    assert_eq!(server.asked(), ["POST /v1/sagas wait=60", &again, &again]);
    let ran = server.run(&["wait", ID, "--timeout", &u64::MAX.to_string()]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = server.run(&["start", "--input", "{}", "--wait", &u64::MAX.to_string()]);
    assert_eq!(ran.code, Some(0), "{ran:?}");

    let server = Server::start(|_, _| (200, saga("running", None))).await;
    for wait in [&["wait", ID, "--timeout", "0"][..], &["start", "--input", "{}", "--wait", "0"]] {
        let ran = server.run(wait);
        assert_eq!(ran.code, Some(124), "{ran:?}");
        assert!(ran.err.contains(&format!("time ran out, and the saga goes on: bookend sagas wait {ID}")), "{ran:?}");
        assert!(ran.out.contains("running"), "{ran:?}");
    }
    assert_eq!(server.run(&["start", "--input", "{}"]).code, Some(0), "it did not wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_with_all_that_is_needed_to_go_on() {
    let problem = |code: &str, name: &str, value: Value| json!({"title": code, "detail": "Do so.", name: value});
    let server = Server::start(move |line, _| match line.rsplit_once('/').expect("a path").1 {
        "retry" => (503, problem("Outcome unknown", "code", json!("outcome_unknown"))),
        "skip" => (409, problem("Action not possible", "actions", json!(["cancel", "close"]))),
        _ => (412, problem("Precondition failed", "version", json!(8))),
    })
    .await;
    let operate = |name: &str| server.run(&[name, ID, "--reason", "a test", "--version", "3"]);
    let unknown = operate("retry");
    let key = unknown.err.lines().find_map(|line| line.strip_prefix("idempotency key: ")).expect("the key is told");
    assert!(Uuid::parse_str(key).is_ok() && unknown.code == Some(6), "{unknown:?}");
    let conflict = operate("skip");
    assert!(conflict.err.contains("actions: cancel, close") && conflict.code == Some(5), "{conflict:?}");
    let stale = operate("close");
    assert!(stale.err.contains("version: 8") && stale.code == Some(5), "{stale:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_decides_by_is_shown() {
    let stuck = json!({"step": "payment", "verb": "compensate", "cause": "compensation_exhausted", "since": "noon",
        "message": "no answer"});
    let server = Server::start(move |line, _| {
        let mut saga = saga("stuck", None);
        saga["stuck"] = stuck.clone();
        if line.contains("/v1/sagas?") {
            return (200, json!({"data": [saga], "next_cursor": null}));
        }
        saga["cancel"] = json!({"outcome": "granted", "requested_at": "dawn"});
        saga["steps"] = json!([{"name": "booking", "participant": "booking", "kind": "compensatable",
            "status": "refused", "holds_effect": false, "code": "slot_taken"}]);
        (200, saga)
    })
    .await;
    let shown = server.run(&["get", ID]).out;
    for line in [
        "cancel      granted  requested dawn",
        "stuck       payment  compensate  compensation_exhausted  since noon  no answer",
        "booking  booking      compensatable  refused  false         slot_taken",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let listed = server.run(&["list", "--status", "stuck"]).out;
    assert!(listed.contains("compensation_exhausted  payment"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_reader_that_has_seen_enough_makes_lost_output_a_success() {
    let server = Server::start(|_, _| (200, json!({"data": [], "next_cursor": null}))).await;
    let list = |to: Stdio| {
        let mut list = command(&["sagas", "list", "-o", "json", "--server", &server.url]);
        list.stdout(to).output().expect("it runs")
    };
    let full = list(File::options().write(true).open("/dev/full").expect("the device is there").into());
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).contains("standard output can't be written"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(list(writer.into()).status.code(), Some(0));
}

#[test]
fn wrong_usage_is_told_with_its_fix() {
    let cases: [(&[&str], &str); 6] = [
        (&["list", "--server", "127.0.0.1:18102"], "give the whole URL, such as http://"),
        (&["list", "--server", "localhost:7878"], "give the whole URL, such as http://"),
        (&["list", "--token", "secret\n"], "--token takes visible ASCII characters"),
        (&["start", "--input", "{}", "--idempotency-key", "a\nb"], "--idempotency-key takes visible ASCII characters"),
        (&["list", "--config", "nofile"], "leave out --config"),
        (&["get", ID, "--config", "nofile"], "leave out --config"),
    ];
    for (args, fix) in cases {
        let ran = run(&[&["sagas"], args].concat());
        assert!(ran.code == Some(2) && ran.err.contains(fix), "{args:?}: {ran:?}");
        assert!(!ran.err.contains("secret"), "{ran:?}");
    }
    assert_eq!(run(&["dead-letters", "list", "--config", "nofile"]).code, Some(2));
}
