//! The composition root of the embedded stack: SQLite files, in-process queues, four participants, one engine and
//! the HTTP edge, in one process.
//!
//! No logic: everything here is plugging. Must hold: one process per data folder, guarded by a lock file; what was
//! started through the stack's tasks is stopped by [`Stack::shutdown`].

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use db::Db;
use orchestrator::{Engine, RandomEntropy};
use participant_kit::{ExternalHandler, ExternalOptions, Handler, TransactionalHandler};
use providers::Providers;
use runtime::health::Health;
use runtime::http::{Token, Tokens};
use runtime::metrics::Recorder;
use runtime::{SystemClock, Tasks};
use saga_defs::catalog::Catalog;
use saga_store::{SqlStore, Store};
use tokio::net::TcpListener;
use transport::Queue;
use transport::in_process::{Faults, InProcess};
use uuid::Uuid;

use crate::settings::Settings;

/// Names of the four participants of this repository.
pub const PARTICIPANTS: [&str; 4] = ["booking", "payment", "confirmation", "notify"];

/// The databases of all owners, open.
#[derive(Clone, Debug)]
pub struct Databases {
    /// Sagas.
    pub engine: Db,
    /// Slots and appointments.
    pub clinic: Db,
    /// Charges and refunds.
    pub payment: Db,
    /// Notices.
    pub notify: Db,
}

impl Databases {
    /// Opens the files in `dir`, creating what is missing.
    ///
    /// # Errors
    /// When the folder or a file can't be opened.
    pub async fn open(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("the data folder {} can't be created", dir.display()))?;
        let open = async |name: &str| {
            let path = dir.join(format!("{name}.sqlite"));
            Db::open_sqlite(&path).await.with_context(|| format!("{} can't be opened", path.display()))
        };
        Ok(Self {
            engine: open("engine").await?,
            clinic: open("clinic").await?,
            payment: open("payment").await?,
            notify: open("notify").await?,
        })
    }

    /// Opens the files of a folder that is in use already.
    ///
    /// # Errors
    /// When the folder holds no data.
    pub async fn open_existing(dir: &Path) -> anyhow::Result<Self> {
        if !dir.join("engine.sqlite").exists() {
            bail!("{} holds no data; `bookend migrate --data {}` creates it", dir.display(), dir.display());
        }
        Self::open(dir).await
    }

    /// Brings the tables of every owner up to date.
    ///
    /// # Errors
    /// When a migration fails; what was done before it stays.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        migrations::up::<migrations::Engine>(self.engine.writer()).await.context("migrating the engine's tables")?;
        migrations::up::<migrations::Clinic>(self.clinic.writer()).await.context("migrating the clinic's tables")?;
        migrations::up::<migrations::Payment>(self.payment.writer()).await.context("migrating the payment tables")?;
        migrations::up::<migrations::Notify>(self.notify.writer()).await.context("migrating the notify tables")?;
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        for db in [&self.engine, &self.clinic, &self.payment, &self.notify] {
            db.close().await;
        }
    }
}

/// Keeps other processes out of a data folder while it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `dir`.
    ///
    /// # Errors
    /// When another process has it.
    pub fn take(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("the data folder {} can't be created", dir.display()))?;
        let path = dir.join("bookend.lock");
        let file = File::create(&path).with_context(|| format!("{} can't be created", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("{} is in use by another bookend process; stop it or choose another folder", dir.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{} can't be locked", path.display()))
            }
        }
    }
}

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
    /// The SMS breaker, for whoever wants to look at it.
    pub notify: notify::Notify,
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
        let databases = Databases::open(&parts.dir).await?;
        databases.migrate().await?;
        let now = databases.clinic.now();
        clinic::seed::seed(&databases.clinic, settings.seed.slots, now).await.context("seeding slots")?;
        let transport = Arc::new(InProcess::new(&transport::in_process::Options {
            queues: queues(),
            capacity: settings.transport.capacity,
            faults: parts.faults,
        }));
        let (providers, provider_url) = start_providers(settings, &parts.dir, &tasks).await?;
        let notify = start_participants(settings, &databases, &transport, &provider_url, &tasks)?;
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
            orchestrator::Options { alone: true, ..settings.engine_options() },
        )
        .await
        .context("starting the engine")?;
        let router = router(&engine, &databases, store, Tokens::new(parts.tokens), parts.recorder, &tasks);
        Ok(Self { engine, databases, transport, providers, notify, router, tasks, _lock: lock })
    }

    /// Serves on `listener` until shutdown.
    pub fn serve(&self, listener: TcpListener) {
        let (router, tasks) = (self.router.clone(), self.tasks.clone());
        self.tasks.spawn(async move { runtime::http::serve(listener, router, &tasks).await });
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
            if !PARTICIPANTS.contains(&step.participant.as_str()) {
                let (definition, name, asked) = (loaded.definition.reference(), &step.name, &step.participant);
                bail!("{definition}: step `{name}` asks participant `{asked}`; here are {}", PARTICIPANTS.join(", "));
            }
        }
    }
    Ok(())
}

fn queues() -> Vec<Queue> {
    PARTICIPANTS.iter().map(|name| Queue::Participant((*name).to_owned())).chain([Queue::Replies]).collect()
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
    let listener = TcpListener::bind("127.0.0.1:0").await.context("the simulators can't listen")?;
    let address = listener.local_addr().context("the simulators have no address")?;
    let (router, stop) = (providers::router(providers.clone()), tasks.clone());
    tasks.spawn(async move { runtime::http::serve(listener, router, &stop).await });
    Ok((Some(providers), format!("http://{address}")))
}

fn start_participants(
    settings: &Settings,
    databases: &Databases,
    transport: &InProcess,
    simulators: &str,
    tasks: &Tasks,
) -> anyhow::Result<notify::Notify> {
    let url = |configured: &str| if configured.is_empty() { simulators.to_owned() } else { configured.to_owned() };
    let payment = payment::Payment::new(&payment::Options {
        gateway_url: url(&settings.payment.gateway_url),
        timeout_ms: settings.payment.timeout_ms,
    })
    .context("the card gateway can't be used")?;
    let notify = notify::Notify::new(&notify::Options {
        sms_url: url(&settings.notify.sms_url),
        mail_url: url(&settings.notify.mail_url),
        timeout_ms: settings.notify.timeout_ms,
        breaker: notify::BreakerOptions {
            failures: settings.notify.breaker_failures,
            open_ms: settings.notify.breaker_open_ms,
        },
    })
    .context("the notice providers can't be used")?;
    let external = || ExternalOptions {
        concurrency: settings.participants.calls_max,
        lease: Duration::from_millis(settings.participants.lease_ms),
        // The lock file makes this process provably alone.
        take_over_at_start: true,
        owner: Uuid::new_v4(),
        ..ExternalOptions::default()
    };
    let handlers: [Arc<dyn Handler>; 4] = [
        Arc::new(TransactionalHandler::new(databases.clinic.clone(), booking::Booking)),
        Arc::new(TransactionalHandler::new(databases.clinic.clone(), confirmation::Confirmation)),
        Arc::new(ExternalHandler::new(databases.payment.clone(), payment, external())),
        Arc::new(ExternalHandler::new(databases.notify.clone(), notify.clone(), external())),
    ];
    for handler in handlers {
        let options = participant_kit::Options {
            prefetch: settings.participants.prefetch,
            batch_max: settings.participants.batch_max,
            // The engine stops beside them and confirms nothing more; what is unconfirmed comes again at the next start.
            drain: Duration::from_millis(200),
            ..participant_kit::Options::default()
        };
        participant_kit::serve(handler, transport, tasks, options);
    }
    Ok(notify)
}

fn router(
    engine: &Engine,
    databases: &Databases,
    store: Arc<dyn Store>,
    tokens: Tokens,
    recorder: Recorder,
    tasks: &Tasks,
) -> Router {
    let health = Health::new(tasks).with("store", Duration::from_secs(2), move || {
        let store = Arc::clone(&store);
        async move { store.check_writable().await.map_err(|error| error.to_string()) }
    });
    let business = saga_api::router(engine.clone())
        .merge(clinic::http::router(databases.clinic.clone()))
        .merge(payment::http::router(databases.payment.clone()))
        .merge(notify::http::router(databases.notify.clone()));
    let identified = runtime::http::identify(business, Arc::new(tokens));
    runtime::http::edge(identified.merge(runtime::http::operations(Arc::new(health), recorder)))
}

/// Binds `address`, or the next free port after it where that is allowed.
///
/// # Errors
/// When no port is free, or the address is not loopback and there are no tokens of its own.
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
