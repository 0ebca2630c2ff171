//! What every process of the product has in common: its log, its listener, its signals.

use std::io::IsTerminal;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use axum::Router;
use runtime::{Tasks, telemetry};
use tokio::net::TcpListener;

use crate::cli::exit::Exit;
use crate::settings::{LogFormat, Settings};

/// Starts logging.
///
/// # Errors
/// When the filter can't be read.
pub fn init_log(settings: &Settings) -> anyhow::Result<()> {
    let format = match settings.log.format {
        LogFormat::Pretty => telemetry::Format::Pretty,
        LogFormat::Json => telemetry::Format::Json,
    };
    let options =
        telemetry::Options { format, filter: settings.log.filter.clone(), colour: std::io::stderr().is_terminal() };
    telemetry::init(&options).context("log.filter does not fit")
}

/// Resolves on SIGINT or SIGTERM, or when a vital task broke and the rest is stopping: that is a failure.
///
/// # Errors
/// When signals can't be listened to.
pub async fn until_asked_to_stop(tasks: &Tasks) -> anyhow::Result<Exit> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be heard")?;
    tokio::select! {
        biased;
        _ = terminate.recv() => Ok(Exit::Done),
        heard = tokio::signal::ctrl_c() => heard.map(|()| Exit::Done).context("SIGINT can't be heard"),
        () = tasks.stopping() => Ok(Exit::Failed),
    }
}

/// Binds `address`, or the next free port after it where that is allowed.
///
/// # Errors
/// When the address can't be listened on, or no port is free.
pub async fn bind(address: SocketAddr, try_next: bool) -> anyhow::Result<TcpListener> {
    let last = if try_next { address.port().saturating_add(50) } else { address.port() };
    for port in address.port()..=last {
        match TcpListener::bind(SocketAddr::new(address.ip(), port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && port < last => {}
            Err(error) => return Err(error).with_context(|| format!("{}:{port} can't be listened on", address.ip())),
        }
    }
    bail!("no free port from {} to {last}", address.port())
}

/// Serves `router` on `listener` until shutdown.
pub fn serve(listener: TcpListener, router: Router, tasks: &Tasks) {
    let stop = tasks.clone();
    tasks.spawn(async move { runtime::http::serve(listener, router, &stop).await });
}
