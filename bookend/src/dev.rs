//! `bookend dev`: the embedded stack until it is asked to stop. Also what `demo` shares with it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use runtime::Tasks;
use runtime::http::auth::sha256;
use runtime::http::{Role, Token};
use runtime::metrics::Recorder;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::process::{bind, init_log, until_asked_to_stop};
use crate::settings::Settings;
use crate::stack::{Parts, Stack};

/// Token of the client that `dev` and `demo` know.
pub const CLIENT_TOKEN: &str = "dev-client";
/// Token of the admin that `dev` and `demo` know, unless another was given.
pub const ADMIN_TOKEN: &str = "dev-admin";

/// Serves until asked to stop.
///
/// # Errors
/// When the stack can't be started.
pub async fn run(settings: &Settings, token: Option<String>) -> anyhow::Result<Exit> {
    init_log(settings)?;
    if !settings.api.listen.ip().is_loopback() && token.is_none() && settings.auth.tokens.is_empty() {
        bail!(
            "{} is not loopback: give --token or set auth.tokens, the built-in tokens are known to everyone",
            settings.api.listen
        );
    }
    let house = House::open(settings)?;
    let listener = bind(settings.api.listen, false).await?;
    let running = start(settings, &house, listener, token).await?;
    output::line(&format!("bookend {} dev  {}", env!("CARGO_PKG_VERSION"), house.describe()));
    output::line(&format!("api   {}   docs {}/docs", running.url, running.url));
    output::line("ready");
    let asked = until_asked_to_stop(&running.stack.tasks).await?;
    finish(running, settings.shutdown_deadline()).await;
    Ok(asked)
}

/// Where the data lives: a folder of the user's, or one that is removed at exit.
#[derive(Debug)]
pub struct House {
    dir: PathBuf,
    temporary: Option<TempDir>,
}

impl House {
    /// The configured folder, or a new temporary one.
    ///
    /// # Errors
    /// When none can be created.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        if settings.data.dir.is_empty() {
            let temporary = tempfile::Builder::new().prefix("bookend-").tempdir().context("no temporary folder")?;
            Ok(Self { dir: temporary.path().to_owned(), temporary: Some(temporary) })
        } else {
            Ok(Self { dir: settings.data_dir()?, temporary: None })
        }
    }

    fn describe(&self) -> String {
        match self.temporary {
            Some(_) => "SQLite in a temporary folder, in-process transport; NOT FOR PRODUCTION".to_owned(),
            None => format!("SQLite in {}, in-process transport", self.dir.display()),
        }
    }
}

/// A stack that serves.
#[derive(Debug)]
pub struct Running {
    /// The stack.
    pub stack: Stack,
    /// Its base address.
    pub url: String,
}

/// Starts the stack and serves it.
///
/// # Errors
/// When a part can't be started.
pub async fn start(
    settings: &Settings,
    house: &House,
    listener: TcpListener,
    token: Option<String>,
) -> anyhow::Result<Running> {
    let address = listener.local_addr().context("the listener has no address")?;
    let mut tokens = settings.tokens()?;
    let named = |name: &str, role, token: &str| Token { name: name.to_owned(), role, sha256: sha256(token) };
    // The built-in tokens are known to everyone: they are for this machine only.
    let at_home = address.ip().is_loopback();
    let admin = token.as_deref().or_else(|| at_home.then_some(ADMIN_TOKEN));
    tokens.extend(admin.map(|token| named("dev-admin", Role::Admin, token)));
    if at_home {
        tokens.push(named("dev-client", Role::Client, CLIENT_TOKEN));
    }
    let recorder = Recorder::install(&Tasks::new()).context("metrics can't be collected")?;
    let parts = Parts { dir: house.dir.clone(), tokens, faults: None, recorder };
    let stack = Stack::start(settings, parts).await?;
    stack.serve(listener);
    Ok(Running { stack, url: format!("http://{address}") })
}

/// Stops the stack.
pub async fn finish(running: Running, deadline: Duration) {
    let left = running.stack.shutdown(deadline).await;
    if left > 0 {
        output::note(&format!("{left} tasks were still running at the deadline; their sagas go on at the next start"));
    }
}
