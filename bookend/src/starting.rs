//! What a process serves while it waits for its database: that it lives, and that it can do nothing yet.
//!
//! Must hold: whoever asks is answered from the moment the address is bound, so that nobody takes a process that waits
//! for a dead one; there is one socket, so no connection is turned away when the process is ready.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::any;
use runtime::Tasks;
use runtime::health::Health;
use runtime::http::Problem;
use runtime::metrics::Recorder;
use tokio::net::TcpListener;

use crate::process;

/// How long a request under way may hold up the start.
const END_MAX: Duration = Duration::from_secs(1);

/// Serves until it is ended.
#[derive(Debug)]
pub struct Starting {
    tasks: Tasks,
}

impl Starting {
    /// Serves on the socket of `listener`, which stays the caller's.
    ///
    /// # Errors
    /// When the socket can't be shared.
    pub fn serve(listener: &TcpListener, recorder: Recorder) -> anyhow::Result<Self> {
        let shared = listener.as_fd().try_clone_to_owned().context("the listener can't be shared")?;
        let shared = TcpListener::from_std(shared.into()).context("the listener can't be shared")?;
        let tasks = Tasks::new();
        process::serve(shared, router(recorder, &tasks), &tasks);
        Ok(Self { tasks })
    }

    /// Ends when requests under way are answered.
    pub async fn end(self) {
        self.tasks.shutdown(END_MAX).await;
    }
}

fn router(recorder: Recorder, tasks: &Tasks) -> Router {
    let waits = || std::future::ready(Err("the process waits for its database".to_owned()));
    let health = Health::new(tasks).with("starting", END_MAX, waits);
    let later =
        || any(async || Problem::unavailable("The process is starting. Send the same request again in a moment."));
    let router = Router::new().route("/", later()).route("/{*path}", later());
    runtime::http::edge(router.merge(runtime::http::operations(Arc::new(health), recorder)))
}
