//! A process whose database is not there waits: it lives, and is not ready.

use std::path::Path;

use bookend::dev::ADMIN_TOKEN;
use runtime::http::auth::sha256;
use testkit::free_port;
use testkit::process::{Process, Program};

use super::common::{Answer, Api, BIN, LIMIT};

fn start(args: &[&str], database: &str, dir: &Path) -> Process {
    let config = dir.join("bookend.toml");
    let token =
        format!("{{ name = \"operator\", role = \"admin\", sha256 = \"{}\" }}", hex::encode(sha256(ADMIN_TOKEN)));
    let broker = "amqp://guest:guest@127.0.0.1:1";
    let text = format!("[database]\nurl = {database:?}\n[broker]\nurl = {broker:?}\n[auth]\ntokens = [{token}]\n");
    std::fs::write(&config, text).expect("a file");
    let config = config.display().to_string();
    let args = [args, &["--listen", "127.0.0.1:0", "--config", &config]].concat();
    Process::start(Program::new(BIN, args)).expect("the product starts")
}

async fn waits(process: &Process) {
    let url = |line: &str| line.strip_prefix("api   ")?.split_whitespace().next().map(str::to_owned);
    let api = Api::new(&process.line(LIMIT, "the product says where it listens", url).await);
    assert_eq!(api.get("/livez").await.status, 200);
    let unready = api.get("/readyz").await;
    assert_eq!((unready.status, unready.body["failing"][0]["name"].as_str()), (503, Some("starting")), "{unready:?}");
    let other: Answer = api.get("/v1/sagas").await;
    assert_eq!((other.status, other.header("retry-after"), other.text("code")), (503, "1", "unavailable"), "{other:?}");
    assert_eq!(other.header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn waiting_for_a_database() {
    let dir = tempfile::tempdir().expect("a folder");
    // Takes sessions and never says a word.
    let (_silent, address) = free_port().await.expect("a port");
    let database = format!("postgres://bookend@{address}/bookend?sslmode=disable");
    for args in [&["serve"][..], &["participant", "payment"]] {
        let mut process = start(args, &database, dir.path());
        waits(&process).await;
        process.terminate().expect("the signal is sent");
        assert!(process.ended(LIMIT).await.success(), "{}", process.output());
    }
}
