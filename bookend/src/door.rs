//! What a process answers from the moment its address is bound: that it lives, and that it can do nothing yet, until its routes are
//! there.
//!
//! Must hold: nobody takes a process that waits for its database for a dead one; there is one listener all along, so no connection
//! is turned away when the process is ready.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use runtime::Tasks;
use runtime::health::Health;
use runtime::http::Problem;
use runtime::metrics::Recorder;
use tokio::net::TcpListener;
use tower::{ServiceExt as _, service_fn};

use crate::process;

/// The check that fails has nothing to wait for.
const CHECK_MAX: Duration = Duration::from_secs(1);

/// Where requests come in.
#[derive(Debug)]
pub struct Door(Arc<OnceLock<Router>>);

impl Door {
    /// Answers on `listener` until shutdown.
    #[must_use]
    pub fn open(listener: TcpListener, recorder: Recorder, tasks: &Tasks) -> Self {
        let routes = Arc::<OnceLock<Router>>::default();
        let (behind, waiting) = (Arc::clone(&routes), waiting(recorder, tasks));
        let forward = service_fn(move |request: Request| behind.get().unwrap_or(&waiting).clone().oneshot(request));
        process::serve(listener, Router::new().fallback_service(forward), tasks);
        Self(routes)
    }

    /// The process is ready: these are its routes from now on.
    pub fn lead_to(&self, router: Router) {
        // There is one set of routes to a process.
        let _ = self.0.set(router);
    }
}

fn waiting(recorder: Recorder, tasks: &Tasks) -> Router {
    let waits = || std::future::ready(Err("the process waits for its database".to_owned()));
    let health = Health::new(tasks).with("starting", CHECK_MAX, waits);
    let later =
        || any(async || Problem::unavailable("The process is starting. Send the same request again in a moment."));
    let router = Router::new().route("/", later()).route("/{*path}", later());
    runtime::http::edge(router.merge(runtime::http::operations(Arc::new(health), recorder)))
}
