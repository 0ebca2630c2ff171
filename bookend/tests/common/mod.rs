//! The product as its people meet it, on both stacks: processes, a client at the REST API, simulated providers.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

mod api;

mod simulators;

mod embedded;

mod cluster;

mod product;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use saga_defs::Definition;
use serde_json::{Value, json};
use testkit::eventually;
use testkit::process::Process;

pub(crate) use api::{Answer, Api};
pub(crate) use cluster::{Cluster, Shape};
pub(crate) use embedded::{Dev, Local};
pub(crate) use product::{Product, Stack};
pub(crate) use simulators::Simulators;

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_bookend");
/// Longest wait for something that takes a moment.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// A phone that every simulator delivers to.
pub(crate) const PHONE: &str = "+15005550006";

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

/// Waits until a process that serves says that it is ready, and gives its API.
pub(crate) async fn ready(process: &Process) -> Api {
    let url = |line: &str| line.strip_prefix("api   ")?.split_whitespace().next().map(str::to_owned);
    let url = process.line(LIMIT, "the product says where it listens", url).await;
    process.line(LIMIT, "the product is ready", |line| (line == "ready").then_some(())).await;
    Api::new(&url)
}

/// Runs `bookend audit` until it exits 0: the outbox empties a moment after the last saga has ended.
pub(crate) async fn audit(place: &[&str]) {
    eventually(LIMIT, "the audit finds nothing", async || {
        let output = Command::new(BIN).arg("audit").args(place).output().expect("the audit runs");
        if output.status.success() {
            println!("audit: {}", String::from_utf8_lossy(&output.stderr).trim());
            return Ok(());
        }
        Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    })
    .await;
}
