//! `bookend serve`: one of any number of equal orchestrators, on PostgreSQL and RabbitMQ.
//!
//! No logic: everything here is plugging. Must hold: nothing belongs to this process, so that it may die at any moment
//! and the others go on; it says that it is ready only when it can take a saga and move it.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use db::Db;
use orchestrator::{Engine, RandomEntropy};
use runtime::Tasks;
use runtime::health::Health;
use runtime::http::{Token, Tokens};
use runtime::metrics::Recorder;
use saga_defs::Definition;
use saga_defs::catalog::Catalog;
use saga_store::{SqlStore, Store};
use transport::Transport;
use transport::rabbitmq::RabbitMq;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::databases::{Owner, Place};
use crate::door::Door;
use crate::process::{bind, init_log, until_asked_to_stop};
use crate::settings::Settings;

/// How long a health check may take.
pub(crate) const CHECK_MAX: Duration = Duration::from_secs(2);

/// Serves until asked to stop.
///
/// # Errors
/// When the settings can't work, the tables are not up to date or the address is taken.
pub async fn run(settings: &Settings) -> anyhow::Result<Exit> {
    init_log(settings)?;
    if settings.auth.tokens.is_empty() {
        bail!("`serve` needs tokens: name at least one in auth.tokens (`bookend config` shows how)");
    }
    let listener = bind(settings.api.listen, false).await?;
    let address = listener.local_addr().context("the listener has no address")?;
    let tasks = Tasks::new();
    let parts = Parts {
        tokens: settings.tokens()?,
        recorder: Recorder::install(&Tasks::new()).context("metrics can't be collected")?,
        tasks: tasks.clone(),
    };
    output::line(&format!("bookend {} serve  PostgreSQL, RabbitMQ", env!("CARGO_PKG_VERSION")));
    output::line(&format!("api   http://{address}   docs http://{address}/docs"));
    let door = Door::open(listener, parts.recorder.clone(), &tasks);
    let mut asked = pin!(until_asked_to_stop(&tasks));
    let server = tokio::select! {
        biased;
        asked = &mut asked => return asked,
        server = Server::start(settings, parts) => server?,
    };
    door.lead_to(server.router.clone());
    output::line("ready");
    let asked = asked.await?;
    let left = server.shutdown(settings.shutdown_deadline()).await;
    if left > 0 {
        output::note(&format!("{left} tasks were still running at the deadline; others go on with their sagas"));
    }
    Ok(asked)
}

/// What an orchestrator is made of besides its settings.
#[derive(Debug)]
pub struct Parts {
    /// Who may ask.
    pub tokens: Vec<Token>,
    /// Where metrics are collected.
    pub recorder: Recorder,
    /// How its tasks are started.
    pub tasks: Tasks,
}

/// A running orchestrator.
#[derive(Debug)]
pub struct Server {
    /// The engine.
    pub engine: Engine,
    /// Everything it serves.
    pub router: Router,
    db: Db,
    tasks: Tasks,
}

impl Server {
    /// Opens the database, waiting for it where it is not there yet, and starts everything. The broker need not be
    /// there.
    ///
    /// # Errors
    /// When the settings can't work or the tables are not up to date.
    pub async fn start(settings: &Settings, parts: Parts) -> anyhow::Result<Self> {
        let db = Place::server(settings)?.open_patiently(Owner::Engine, &parts.tasks).await?;
        let store = Arc::new(SqlStore::new(db.clone()));
        Self::on(settings, parts, db, store).await
    }

    /// As [`Server::start`], on a store that is open already.
    ///
    /// # Errors
    /// When the settings can't work.
    pub async fn on(settings: &Settings, parts: Parts, db: Db, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let Parts { tokens, recorder, tasks } = parts;
        let catalog = settings.catalog()?;
        let participants = participants(&catalog, &*store).await?;
        let broker = settings.broker(transport::topology::queues(participants), "serve")?;
        let broker = Arc::new(RabbitMq::start(broker, &tasks).context("broker.url can't be used")?);
        let entropy = Arc::new(RandomEntropy);
        let options = settings.engine_options()?;
        let engine = Engine::start(Arc::clone(&store), &*broker, &catalog, entropy, &tasks, options)
            .await
            .context("starting the engine")?;
        let health = health(settings, store, broker, &tasks);
        let identified = runtime::http::identify(saga_api::router(engine.clone()), Arc::new(Tokens::new(tokens)));
        let router = runtime::http::edge(identified.merge(runtime::http::operations(Arc::new(health), recorder)));
        Ok(Self { engine, router, db, tasks })
    }

    /// Stops everything within `deadline`. Returns how many tasks were still running.
    pub async fn shutdown(self, deadline: Duration) -> usize {
        let left = self.tasks.shutdown(deadline).await;
        self.db.close().await;
        left
    }
}

/// Whom the definitions command, those of this build and those that others published.
async fn participants(catalog: &Catalog, store: &dyn Store) -> anyhow::Result<BTreeSet<String>> {
    let names =
        |definition: &Definition| definition.steps.iter().map(|step| step.participant.clone()).collect::<Vec<String>>();
    let mut all: BTreeSet<String> = catalog.iter().flat_map(|loaded| names(&loaded.definition)).collect();
    for published in store.definitions().await.context("the published definitions can't be read")? {
        // One that this build can't read is for instances that can.
        all.extend(Definition::from_json(&published.body).iter().flat_map(names));
    }
    Ok(all)
}

fn health(settings: &Settings, store: Arc<dyn Store>, broker: Arc<RabbitMq>, tasks: &Tasks) -> Health {
    let outbox = Arc::clone(&store);
    let age_max = settings.engine.outbox_age_max_ms;
    Health::new(tasks)
        .with("database", CHECK_MAX, move || {
            let store = Arc::clone(&store);
            async move { store.check_writable().await.map_err(|error| error.to_string()) }
        })
        .with("broker", CHECK_MAX, move || std::future::ready(broker.trouble().map_or(Ok(()), Err)))
        .with("outbox", CHECK_MAX, move || {
            let store = Arc::clone(&outbox);
            async move {
                let load = store.outbox_load().await.map_err(|error| error.to_string())?;
                let (rows, age) = (load.rows, load.oldest_ms);
                let late = || format!("{rows} messages wait, the oldest for {age} ms; accepted is {age_max} ms");
                if age > age_max { Err(late()) } else { Ok(()) }
            }
        })
}
