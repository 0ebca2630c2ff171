//! The composition root of the embedded stack: SQLite files, in-process queues, four participants, one engine and
//! the HTTP edge, in one process.
//!
//! No logic: everything here is plugging. Must hold: one process per data folder, guarded by a lock file; what was
//! started through the stack's tasks is stopped by [`Stack::shutdown`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use orchestrator::{Engine, RandomEntropy};
use providers::Providers;
use runtime::health::Health;
use runtime::http::{Token, Tokens};
use runtime::metrics::Recorder;
use runtime::{SystemClock, Tasks};
use saga_defs::catalog::Catalog;
use saga_store::{SqlStore, Store};
use tokio::net::TcpListener;
use transport::in_process::{Faults, InProcess};

use crate::databases::{Databases, Owner, Place};
use crate::folder::Lock;
use crate::hosted::{Hosted, Hosting, Participant};
use crate::process;
use crate::settings::Settings;

/// What a stack is made of besides its settings.
#[derive(Debug)]
pub struct Parts {
    /// The data folder.
    pub dir: PathBuf,
    /// Who may ask.
    pub tokens: Vec<Token>,
    /// Trouble in the transport, for tests.
    pub faults: Option<Faults>,
    /// Where metrics are collected.
    pub recorder: Recorder,
}

/// A running embedded stack.
#[derive(Debug)]
pub struct Stack {
    /// The engine.
    pub engine: Engine,
    /// All databases.
    pub databases: Databases,
    /// The queues.
    pub transport: Arc<InProcess>,
    /// The simulators, where no providers are configured.
    pub providers: Option<Providers>,
    /// The participants.
    pub hosted: Hosted,
    /// Everything the stack serves.
    pub router: Router,
    /// What runs.
    pub tasks: Tasks,
    _lock: Lock,
}

impl Stack {
    /// Opens, migrates and seeds the databases and starts everything; nothing listens yet but the simulators.
    ///
    /// # Errors
    /// When a part can't be started.
    pub async fn start(settings: &Settings, parts: Parts) -> anyhow::Result<Self> {
        let lock = Lock::take(&parts.dir)?;
        let tasks = Tasks::new();
        let databases = Databases::open(&Place::Folder(parts.dir.clone())).await?;
        databases.migrate().await?;
        let now = databases.clinic.now();
        clinic::seed::seed(&databases.clinic, settings.seed.slots, now).await.context("seeding slots")?;
        let transport = Arc::new(InProcess::new(&transport::in_process::Options {
            queues: transport::topology::queues(Participant::ALL.map(Participant::as_str)),
            capacity: settings.transport.capacity,
            faults: parts.faults,
        }));
        let (providers, provider_url) = start_providers(settings, &parts.dir, &tasks).await?;
        let hosting = Hosting {
            simulators: provider_url,
            alone: true,
            // The engine stops beside them and confirms nothing more; what is unconfirmed comes again at the next start.
            drain: Duration::from_millis(200),
        };
        let owners = [Owner::Clinic, Owner::Payment, Owner::Notify];
        let owned: BTreeMap<_, _> = owners.map(|owner| (owner, databases.of(owner).clone())).into();
        let hosted = Hosted::start(&Participant::ALL, settings, owned, &*transport, &tasks, &hosting)?;
        let store: Arc<dyn Store> = Arc::new(SqlStore::new(databases.engine.clone()));
        let catalog = settings.catalog()?;
        deployed(&catalog)?;
        let engine = Engine::start(
            Arc::clone(&store),
            &*transport,
            &catalog,
            Arc::new(RandomEntropy),
            &tasks,
            // The lock file makes this process provably alone.
            orchestrator::Options { alone: true, ..settings.engine_options()? },
        )
        .await
        .context("starting the engine")?;
        let router = router(&engine, &hosted, store, Tokens::new(parts.tokens), parts.recorder, &tasks);
        Ok(Self { engine, databases, transport, providers, hosted, router, tasks, _lock: lock })
    }

    /// Serves on `listener` until shutdown.
    pub fn serve(&self, listener: TcpListener) {
        process::serve(listener, self.router.clone(), &self.tasks);
    }

    /// Stops everything within `deadline`. Returns how many tasks were still running.
    pub async fn shutdown(self, deadline: Duration) -> usize {
        let left = self.tasks.shutdown(deadline).await;
        self.databases.close().await;
        left
    }
}

/// Every step's participant must be one of those in this process: a command for another would never be taken.
fn deployed(catalog: &Catalog) -> anyhow::Result<()> {
    for loaded in catalog.iter() {
        for step in &loaded.definition.steps {
            let here = Participant::ALL.map(Participant::as_str);
            if !here.contains(&step.participant.as_str()) {
                let (definition, name, asked) = (loaded.definition.reference(), &step.name, &step.participant);
                bail!("{definition}: step `{name}` asks participant `{asked}`; here are {}", here.join(", "));
            }
        }
    }
    Ok(())
}

/// Starts the simulators where no provider is configured, and says where they are.
async fn start_providers(
    settings: &Settings,
    dir: &Path,
    tasks: &Tasks,
) -> anyhow::Result<(Option<Providers>, String)> {
    let configured = [&settings.payment.gateway_url, &settings.notify.sms_url, &settings.notify.mail_url];
    if configured.iter().all(|url| !url.is_empty()) {
        return Ok((None, String::new()));
    }
    let (slow_ms, journal) = (settings.providers.slow_ms, dir.join("providers.jsonl"));
    let options = providers::Options { slow_ms, journal: Some(journal.clone()), ..providers::Options::default() };
    let providers = Providers::open(options, Arc::new(SystemClock), tasks.clone())
        .with_context(|| format!("the simulators can't remember what {} holds", journal.display()))?;
    let router = providers::router(providers.clone());
    let url = runtime::http::serve_here(router, tasks).await.context("the simulators can't listen")?;
    Ok((Some(providers), url))
}

fn router(
    engine: &Engine,
    hosted: &Hosted,
    store: Arc<dyn Store>,
    tokens: Tokens,
    recorder: Recorder,
    tasks: &Tasks,
) -> Router {
    let health = Health::new(tasks).with("store", Duration::from_secs(2), move || {
        let store = Arc::clone(&store);
        async move { store.check_writable().await.map_err(|error| error.to_string()) }
    });
    let business = saga_api::router(engine.clone()).merge(hosted.router());
    let identified = runtime::http::identify(business, Arc::new(tokens));
    runtime::http::edge(identified.merge(runtime::http::operations(Arc::new(health), recorder)))
}
