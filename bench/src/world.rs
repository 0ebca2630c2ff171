//! The stacks that are measured, in the shape in which the product runs: everything in one process, or an orchestrator
//! and participants as processes of their own on PostgreSQL and RabbitMQ.
//!
//! The orchestrator lives in the measuring process, so that sagas can enter at the engine itself. Must hold: each world
//! has databases and queues of its own, and leaves nothing behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use db::{Db, PostgresOptions};
use orchestrator::{Engine, Options, RandomEntropy};
use participant_kit::TransactionalHandler;
use runtime::Tasks;
use runtime::metrics::Recorder;
use saga_defs::message;
use saga_store::{SqlStore, Store};
use tempfile::TempDir;
use testkit::Services;
use testkit::process::{Process, Program};
use testkit::services::{PrivateServices, Vhost};
use tokio::time::Instant;
use transport::Transport;
use transport::in_process::{self, InProcess};
use transport::rabbitmq::{self, RabbitMq};

use crate::args::{BareKind, Side};
use crate::bare::{self, Bare};
use crate::bare_sql;
use crate::baseline::{self, Baseline};
use crate::entry::entry;
use crate::job::{self, Made, STEPS, Worker};
use crate::load::Entry;
use crate::meter::Group;
use crate::prefill_sql;

/// How long a child process may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long the last effect may take once all sagas count.
const ACCOUNTED_MAX: Duration = Duration::from_secs(30);
/// Between two looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A running stack.
pub(crate) struct World {
    pub(crate) entry: Arc<dyn Entry>,
    pub(crate) groups: Vec<Group>,
    pub(crate) services: Option<(PrivateServices, Vhost)>,
    /// None for the baseline, which has none.
    pub(crate) engine: Option<Engine>,
    effects: Effects,
    tasks: Tasks,
    _held: Held,
}

/// How a stack is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Sagas enter through HTTP, not at the engine itself.
    pub(crate) http: bool,
    /// Many commands and replies share a message.
    pub(crate) batch: bool,
    /// Workers of the engine, where not as many as usual.
    pub(crate) workers: Option<usize>,
}

impl Setup {
    /// Of a message with replies.
    fn reply_items_max(self) -> usize {
        if self.batch { message::BATCH_ITEMS_MAX } else { 1 }
    }

    /// Participants that get one command at a time.
    fn one_at_a_time(self) -> BTreeSet<String> {
        if self.batch { BTreeSet::new() } else { STEPS.map(str::to_owned).into() }
    }
}

/// The databases of an engine and its participants.
#[derive(Clone)]
pub(crate) struct Owners {
    pub(crate) engine: Db,
    pub(crate) participants: Vec<Db>,
}

/// Where effects are counted.
enum Effects {
    Owners(Box<Owners>),
    Baseline { postgres: String },
}

/// What lives as long as the stack.
enum Held {
    Folder { _dir: TempDir },
    Processes { _participants: Box<Process> },
}

impl World {
    /// Everything in this process, on SQLite and queues in memory.
    pub(crate) async fn embedded(setup: Setup) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bookend-bench-").tempdir()?;
        let mut participants = Vec::new();
        for step in STEPS {
            participants.push(Db::open_sqlite(&dir.path().join(format!("{step}.sqlite"))).await?);
        }
        let owners = Owners { engine: Db::open_sqlite(&dir.path().join("engine.sqlite")).await?, participants };
        let tasks = Tasks::new();
        let engine = in_process(&owners, &tasks, setup).await?;
        let groups = vec![Group::of("all", std::process::id())];
        let entry = entry(engine.clone(), setup, &tasks).await?;
        let effects = Effects::Owners(Box::new(owners));
        let held = Held::Folder { _dir: dir };
        Ok(Self { entry, groups, services: None, engine: Some(engine), effects, tasks, _held: held })
    }

    /// On services of its own.
    pub(crate) async fn on_services(setup: Setup) -> anyhow::Result<Self> {
        let services = settled_services().await?;
        let vhost = services.vhost().await;
        let (url, amqp) = (services.postgres_url().to_owned(), vhost.url().to_owned());
        let participants = effects(&url).await?;
        let serving = serving(Side::Engine, &url, &amqp, setup.batch).await?;
        let tasks = Tasks::new();
        let engine = orchestrator(&url, &amqp, &tasks, setup).await?;
        let owners = Owners { engine: opened(&url, "engine").await?, participants };
        let groups = groups(&services, &serving)?;
        let entry = entry(engine.clone(), setup, &tasks).await?;
        let held = Held::Processes { _participants: Box::new(serving) };
        let effects = Effects::Owners(Box::new(owners));
        Ok(Self { entry, groups, services: Some((services, vhost)), engine: Some(engine), effects, tasks, _held: held })
    }

    /// Rows and messages and nothing else, on services of its own.
    pub(crate) async fn bare(batch: bool, kind: BareKind) -> anyhow::Result<Self> {
        let services = settled_services().await?;
        let vhost = services.vhost().await;
        let (url, amqp) = (services.postgres_url().to_owned(), vhost.url().to_owned());
        let participants = effects(&url).await?;
        for db in &participants {
            bare_sql::create_for_participant(db).await?;
        }
        let serving = serving(Side::Bare, &url, &amqp, batch).await?;
        let tasks = Tasks::new();
        let engine = Db::open_postgres(&PostgresOptions::new(&url, "engine")).await?;
        migrations::up::<migrations::Engine>(engine.unlimited()).await?;
        bare_sql::create_for_engine(&engine).await?;
        let broker = RabbitMq::start(broker(&amqp, &STEPS, "bench"), &tasks)?;
        until_connected(&broker).await?;
        let entry = Bare::start(engine.clone(), &broker, batch, kind, &tasks);
        let groups = groups(&services, &serving)?;
        let held = Held::Processes { _participants: Box::new(serving) };
        let effects = Effects::Owners(Box::new(Owners { engine, participants }));
        Ok(Self { entry, groups, services: Some((services, vhost)), engine: None, effects, tasks, _held: held })
    }

    /// The baseline, on services of its own.
    pub(crate) async fn baseline() -> anyhow::Result<Self> {
        let services = settled_services().await?;
        let vhost = services.vhost().await;
        let (url, amqp) = (services.postgres_url().to_owned(), vhost.url().to_owned());
        baseline::create_tables(&url).await?;
        let participants = serving(Side::Baseline, &url, &amqp, false).await?;
        let tasks = Tasks::new();
        let entry = Baseline::start(&url, &amqp, &tasks).await?;
        let groups = groups(&services, &participants)?;
        let held = Held::Processes { _participants: Box::new(participants) };
        let effects = Effects::Baseline { postgres: url };
        Ok(Self { entry, groups, services: Some((services, vhost)), engine: None, effects, tasks, _held: held })
    }

    /// Effects that were made more than once.
    pub(crate) async fn doubled(&self) -> anyhow::Result<u64> {
        match &self.effects {
            Effects::Baseline { postgres } => baseline::doubled(postgres).await,
            Effects::Owners(owners) => doubled(&owners.participants).await,
        }
    }

    /// Effects that were made, once or more.
    pub(crate) async fn made(&self) -> anyhow::Result<Made> {
        match &self.effects {
            Effects::Baseline { postgres } => baseline::made(postgres).await,
            Effects::Owners(owners) => {
                let mut sum = Made::default();
                for db in &owners.participants {
                    sum = sum.and(job::made(db.reader()).await?);
                }
                Ok(sum)
            }
        }
    }

    /// Waits until these effects are there, and none of them twice: a saga that counts through HTTP when it is decided has one to
    /// come.
    ///
    /// # Errors
    /// When there are others.
    pub(crate) async fn accounted(&self, wanted: Made) -> anyhow::Result<()> {
        let limit = Instant::now() + ACCOUNTED_MAX;
        loop {
            let made = self.made().await?;
            let doubled = self.doubled().await?;
            if doubled > 0 {
                bail!("{doubled} effects were made more than once");
            }
            if made == wanted {
                return Ok(());
            }
            if Instant::now() > limit {
                bail!("effects should be {wanted:?} and are {made:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Writes as many finished sagas, as if they had run before.
    pub(crate) async fn prefill(&self, sagas: u64) -> anyhow::Result<()> {
        let Effects::Owners(owners) = &self.effects else { bail!("the baseline keeps no finished sagas") };
        let Some((services, _)) = &self.services else {
            return prefill_sql::fill(owners, &*self.entry, sagas).await;
        };
        // Each checkpoint meanwhile would write the pages of every index once more.
        services.query("alter system set max_wal_size = '32GB';\nselect pg_reload_conf();").await?;
        prefill_sql::fill(owners, &*self.entry, sagas).await?;
        services.query("alter system reset max_wal_size;\nselect pg_reload_conf();\ncheckpoint;").await?;
        Ok(())
    }

    pub(crate) async fn end(self) {
        self.tasks.shutdown(Duration::from_secs(20)).await;
    }
}

/// Services of their own, whose database is as one that has run for a while. A server that was made just now creates each
/// file of its log when it is needed, and touches each page of its cache for the first time; later both are used again.
pub(crate) async fn settled_services() -> anyhow::Result<PrivateServices> {
    let services = Services::private().await;
    services.query(LOG_WRITTEN).await.context("the database's log")?;
    services.query(CACHE_FILLED).await.context("the database's cache")?;
    Ok(services)
}

const LOG_WRITTEN: &str = "do $$ begin for n in 1..24 loop perform pg_logical_emit_message(false, '', ''); \
    perform pg_switch_wal(); end loop; end $$; checkpoint;";

/// With rows of which one fills a page, nearly, as many as the cache has pages.
const CACHE_FILLED: &str = "create unlogged table filler (body text);
    alter table filler alter column body set storage plain;
    insert into filler select repeat('x', 8000)
        from generate_series(1, (select setting::int from pg_settings where name = 'shared_buffers'));
    drop table filler; checkpoint;";

/// The participants as a process of their own.
pub(crate) async fn serving(of: Side, postgres: &str, amqp: &str, batch: bool) -> anyhow::Result<Process> {
    let batch = if batch { "on" } else { "off" };
    children(&["participants", "--of", of.name(), "--postgres", postgres, "--amqp", amqp, "--batch", batch]).await
}

/// This program again, in another role.
pub(crate) async fn children(args: &[&str]) -> anyhow::Result<Process> {
    let here = std::env::current_exe().context("this program has no path")?;
    let process = Process::start(Program::new(here, args))?;
    process.line(READY_MAX, "a child process", |line| line.contains("ready").then_some(())).await;
    Ok(process)
}

/// Who takes processor time beside each other.
fn groups(services: &PrivateServices, participants: &Process) -> anyhow::Result<Vec<Group>> {
    let directory = services.directory();
    let found = |name, program| Group::found(name, program, directory).with_context(|| format!("no process of {name}"));
    Ok(vec![
        Group::of_one("orchestrator", std::process::id()),
        Group::of("participants", participants.id()),
        found("postgres", "postgres")?,
        found("rabbitmq", "beam")?,
    ])
}

/// The engine and its participants in this process, with queues in memory.
pub(crate) async fn in_process(owners: &Owners, tasks: &Tasks, setup: Setup) -> anyhow::Result<Engine> {
    let transport = InProcess::new(&in_process::Options {
        queues: transport::topology::queues(STEPS),
        capacity: 4_096,
        faults: None,
    });
    for (step, db) in STEPS.into_iter().zip(&owners.participants) {
        prepare(db).await?;
        serve(step, db.clone(), &transport, tasks, setup);
    }
    migrations::up::<migrations::Engine>(owners.engine.unlimited()).await?;
    engine(owners.engine.clone(), &transport, tasks, true, setup).await
}

/// Effects that were made more than once, of all participants.
pub(crate) async fn doubled(databases: &[Db]) -> anyhow::Result<u64> {
    let mut doubled = 0;
    for db in databases {
        doubled += job::doubled(db.reader()).await?;
    }
    Ok(doubled)
}

/// An owner's database on PostgreSQL, for looking at it.
pub(crate) async fn opened(url: &str, owner: &str) -> anyhow::Result<Db> {
    Ok(Db::open_postgres(&PostgresOptions { connections: 2, ..PostgresOptions::new(url, owner) }).await?)
}

/// The participants' databases on PostgreSQL, with their tables.
pub(crate) async fn effects(url: &str) -> anyhow::Result<Vec<Db>> {
    let mut effects = Vec::new();
    for step in STEPS {
        let db = opened(url, step).await?;
        prepare(&db).await?;
        effects.push(db);
    }
    Ok(effects)
}

/// An engine on services, one of several or the only one.
pub(crate) async fn orchestrator(url: &str, amqp: &str, tasks: &Tasks, setup: Setup) -> anyhow::Result<Engine> {
    let db = Db::open_postgres(&PostgresOptions::new(url, "engine")).await?;
    migrations::up::<migrations::Engine>(db.unlimited()).await?;
    let broker = RabbitMq::start(broker(amqp, &STEPS, "bench"), tasks)?;
    until_connected(&broker).await?;
    engine(db, &broker, tasks, false, setup).await
}

/// Makes a participant's tables.
pub(crate) async fn prepare(db: &Db) -> anyhow::Result<()> {
    // Any ladder of an owner has the inbox.
    migrations::up::<migrations::Notify>(db.unlimited()).await?;
    job::create_effects(db.writer()).await?;
    Ok(())
}

fn serve(step: &'static str, db: Db, transport: &dyn Transport, tasks: &Tasks, setup: Setup) {
    let usual = participant_kit::Options::default();
    let options = participant_kit::Options { reply_items_max: setup.reply_items_max(), ..usual };
    participant_kit::serve(Arc::new(TransactionalHandler::new(db, Worker(step))), transport, tasks, options);
}

async fn engine(db: Db, transport: &dyn Transport, tasks: &Tasks, alone: bool, setup: Setup) -> anyhow::Result<Engine> {
    let store: Arc<dyn Store> = Arc::new(SqlStore::new(db));
    let usual = Options::default();
    let workers = setup.workers.unwrap_or(usual.workers);
    let options = Options { alone, workers, one_at_a_time: setup.one_at_a_time(), ..usual };
    let catalog = job::catalog()?;
    record(tasks);
    Ok(Engine::start(store, transport, &catalog, Arc::new(RandomEntropy), tasks, options).await?)
}

/// Metrics are kept as the product keeps them.
fn record(tasks: &Tasks) {
    // Another stack of this process has installed it already.
    let _ = Recorder::install(tasks);
}

fn broker(url: &str, participants: &[&str], name: &str) -> rabbitmq::Options {
    let queues = transport::topology::queues(participants.iter().copied());
    let in_flight_max = Options::default().in_flight_max;
    rabbitmq::Options { name: name.to_owned(), in_flight_max, ..rabbitmq::Options::new(url, queues) }
}

async fn until_connected(broker: &RabbitMq) -> anyhow::Result<()> {
    testkit::eventually(READY_MAX, "the broker", async || broker.trouble().map_or(Ok(()), Err)).await;
    Ok(())
}

/// The participants' process: serves until it is killed.
pub(crate) async fn participants(postgres: &str, amqp: &str, of: Side, setup: Setup) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    match of {
        Side::Baseline => baseline::participants(postgres, amqp, &tasks).await?,
        Side::Engine | Side::Bare => {
            let broker = RabbitMq::start(broker(amqp, &STEPS, "bench participants"), &tasks)?;
            record(&tasks);
            for (number, step) in STEPS.into_iter().enumerate() {
                let db = Db::open_postgres(&PostgresOptions::new(postgres, step)).await?;
                if of == Side::Bare {
                    bare::participate(number, db, &broker, setup.batch, &tasks);
                } else {
                    serve(step, db, &broker, &tasks, setup);
                }
            }
            until_connected(&broker).await?;
        }
    }
    crate::say("ready");
    tasks.stopping().await;
    Ok(())
}
