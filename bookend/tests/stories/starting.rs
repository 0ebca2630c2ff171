//! A process whose database is not there, or lets nobody in, waits: it lives, is not ready, and says why.

use std::path::Path;

use bookend::dev::ADMIN_TOKEN;
use runtime::http::auth::sha256;
use testkit::free_port;
use testkit::process::{Process, Program};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

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

/// A server that lets nobody in. Answers the first message of each session as PostgreSQL does.
async fn lets_nobody_in(listener: TcpListener) {
    let said = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"bookend\"\0\0";
    let length = u32::try_from(said.len() + 4).expect("it is short").to_be_bytes();
    let answer = [&b"E"[..], &length, said].concat();
    loop {
        let (mut session, _) = listener.accept().await.expect("a session");
        let mut asked = [0; 1_024];
        let read = session.read(&mut asked).await.unwrap_or(0);
        if read > 0 && session.write_all(&answer).await.is_ok() {
            let _ = session.shutdown().await;
        }
    }
}

#[tokio::test]
async fn waiting_for_a_password_to_be_mended() {
    let dir = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let database = format!("postgres://bookend@{}/bookend?sslmode=disable", listener.local_addr().expect("an address"));
    let process = start(&["serve"], &database, dir.path());
    let says = async {
        waits(&process).await;
        let plain = |line: &str| line.contains("can't be used as it is set up").then(|| line.to_owned());
        process.line(LIMIT, "the product says what is wrong", plain).await
    };
    let line = tokio::select! {
        line = says => line,
        () = lets_nobody_in(listener) => unreachable!("it serves for ever"),
    };
    assert_eq!(line.matches("password authentication failed").count(), 1, "{line}");
}
