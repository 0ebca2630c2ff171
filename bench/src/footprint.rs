//! What the embedded product takes before it has done anything: time until it is ready, memory while it idles, size.
//!
//! Must hold: the binary is the product's own, run as a user runs it on an empty folder, with no setting but the port;
//! readiness is an answer of `/readyz` with 200, not a line of output.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use testkit::process::{Process, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::args::FootprintArgs;
use crate::depth::median;
use crate::meter::{Group, Meter};
use crate::say;

/// When it counts as never.
const READY_MAX: Duration = Duration::from_secs(30);
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(1);
const OK: &[u8] = b"HTTP/1.1 200";

pub(crate) async fn run(args: FootprintArgs) -> anyhow::Result<()> {
    let binary = match args.binary {
        Some(binary) => binary,
        None => beside()?,
    };
    let bytes = std::fs::metadata(&binary).with_context(|| format!("{} can't be read", binary.display()))?.len();
    let idle = Duration::try_from_secs_f64(args.idle)?;
    let (mut ready, mut memory) = (Vec::new(), Vec::new());
    for number in 1..=args.runs.max(1) {
        eprintln!("{number} of {}: start, then {} s of idling", args.runs, args.idle);
        let (took, megabytes) = once(&binary, idle).await?;
        ready.push(took.as_secs_f64() * 1_000.0);
        memory.push(megabytes);
    }
    let report = json!({
        "runs": ready.len(),
        "ready_ms": median(ready.clone()),
        "ready_ms_max": ready.iter().copied().fold(0.0, f64::max),
        "idle_rss_mb": median(memory),
        "binary_mb": bytes as f64 / 1_048_576.0,
    });
    say(&report.to_string());
    Ok(())
}

/// The product that was built with this program.
fn beside() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("this program has no path")?;
    Ok(here.with_file_name("bookend"))
}

/// Time until it is ready, and megabytes after idling.
async fn once(binary: &Path, idle: Duration) -> anyhow::Result<(Duration, f64)> {
    let dir = tempfile::Builder::new().prefix("bookend-bench-").tempdir()?;
    let data = dir.path().join("data");
    // Known before it runs, so that asking begins with its start. Given back at once: nobody else takes it so soon.
    let (listener, address) = testkit::free_port().await?;
    drop(listener);
    let port = address.port().to_string();
    let arguments = ["dev".into(), "--port".into(), port.into(), "--data".into(), data.into_os_string()];
    let began = Instant::now();
    let process = Process::start(Program::new(binary, arguments))?;
    while !is_ready(address).await {
        if began.elapsed() > READY_MAX {
            bail!("it is not ready: {}", process.output());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    let took = began.elapsed();
    tokio::time::sleep(idle).await;
    let meter = Meter { groups: vec![Group::of("bookend", process.id())] };
    let megabytes = meter.rss_mb().get("bookend").copied().context("its memory can't be read")?;
    Ok((took, megabytes))
}

async fn is_ready(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = [0; OK.len()];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer == OK)
    };
    asked.await.unwrap_or(false)
}
