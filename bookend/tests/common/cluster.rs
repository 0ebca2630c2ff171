//! The services stack: orchestrators and participants as processes of their own, on PostgreSQL and RabbitMQ.
//!
//! Must hold: each cluster has schemas and a virtual host of its own, so that clusters do not meet.

use std::path::{Path, PathBuf};
use std::process::Command;

use bookend::dev::{ADMIN_TOKEN, CLIENT_TOKEN};
use db::{Db, PostgresOptions};
use runtime::http::auth::sha256;
use tempfile::TempDir;
use testkit::process::{Process, Program};
use testkit::services::{Schemas, Services, Vhost};

use super::{Api, BIN, Simulators, audit, ready};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Orchestrators.
    pub(crate) servers: usize,
    /// Processes of participants, by the names that each hosts.
    pub(crate) sites: Vec<Vec<&'static str>>,
    /// The address of the database, when it is not the services' own.
    pub(crate) database: Option<String>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { servers: 2, sites: vec![vec!["booking", "payment", "confirmation", "notify"]], database: None }
    }
}

impl Shape {
    /// Every participant in a process of its own.
    pub(crate) fn apart() -> Self {
        let sites = ["booking", "payment", "confirmation", "notify"].map(|name| vec![name]).to_vec();
        Self { sites, ..Self::default() }
    }
}

/// A process of the cluster that serves an API.
pub(crate) struct Member {
    pub(crate) process: Process,
    pub(crate) api: Api,
    pub(crate) names: Vec<&'static str>,
}

impl Member {
    async fn start(config: &Path, args: &[&str], names: Vec<&'static str>, env: &[(&str, &str)]) -> Self {
        let config = config.display().to_string();
        let args = [args, &names, &["--listen", "127.0.0.1:0", "--config", &config]].concat();
        let program = env.iter().fold(Program::new(BIN, args), |program, (name, value)| program.with_env(name, value));
        let process = Process::start(program).expect("the product starts");
        let api = ready(&process).await;
        Self { process, api, names }
    }
}

/// Orchestrators and participants, running.
pub(crate) struct Cluster {
    /// A client at the first orchestrator and at all owners.
    pub(crate) api: Api,
    pub(crate) servers: Vec<Member>,
    pub(crate) sites: Vec<Member>,
    pub(crate) vhost: Vhost,
    config: PathBuf,
    // Dropped last, when no process holds a session any more.
    schemas: Schemas,
    _dir: TempDir,
}

impl Cluster {
    /// Makes tables and slots, and starts everything. `BOOKEND_SEED__SLOTS` in `env` says how many slots.
    pub(crate) async fn start(
        services: &Services,
        shape: &Shape,
        simulators: &Simulators,
        env: &[(&str, &str)],
    ) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (schemas, vhost) = (services.schemas(), services.vhost().await);
        let config = dir.path().join("bookend.toml");
        let database = shape.database.as_deref().unwrap_or_else(|| schemas.url());
        std::fs::write(&config, configuration(database, &prefix(&schemas), vhost.url())).expect("a file");
        let slots = env.iter().find(|(name, _)| *name == "BOOKEND_SEED__SLOTS").map_or("200", |(_, value)| *value);
        once(&config, &["migrate"]);
        once(&config, &["seed", "--slots", slots]);
        let env = [simulators.env(), env.to_vec()].concat();
        let mut sites = Vec::new();
        for names in &shape.sites {
            sites.push(Member::start(&config, &["participant"], names.clone(), &env).await);
        }
        let mut servers = Vec::new();
        for _ in 0..shape.servers {
            servers.push(Member::start(&config, &["serve"], Vec::new(), &env).await);
        }
        let api = at(&servers, &sites);
        Self { api, servers, sites, vhost, config, schemas, _dir: dir }
    }

    /// Starts one more process of participants.
    pub(crate) async fn add_site(&mut self, names: Vec<&'static str>, env: &[(&str, &str)]) {
        self.sites.push(Member::start(&self.config, &["participant"], names, env).await);
    }

    /// A client at the orchestrator of this number, and at all owners.
    pub(crate) fn at(&self, server: usize) -> Api {
        self.api.at(&self.servers[server].api.url)
    }

    /// kill -9 of an orchestrator, which stays dead.
    pub(crate) fn kill_server(&mut self, server: usize) {
        self.servers[server].process.kill().expect("the process ends");
    }

    /// Starts an orchestrator that was killed.
    pub(crate) async fn restart_server(&mut self, server: usize) {
        restart(&mut self.servers[server]).await;
        self.api = at(&self.servers, &self.sites);
    }

    /// kill -9 of a participants' process, and a new start.
    pub(crate) async fn kill_and_restart_site(&mut self, site: usize) {
        restart(&mut self.sites[site]).await;
        self.api = at(&self.servers, &self.sites);
    }

    /// kill -9 of every process, and a new start.
    pub(crate) async fn kill_and_restart(&mut self) {
        for member in self.servers.iter_mut().chain(&mut self.sites) {
            member.process.kill().expect("the process ends");
        }
        for member in self.sites.iter_mut().chain(&mut self.servers) {
            restart(member).await;
        }
        self.api = at(&self.servers, &self.sites);
    }

    /// Asks every process to end.
    pub(crate) fn terminate(&self) {
        for member in self.servers.iter().chain(&self.sites) {
            member.process.terminate().expect("the signal is sent");
        }
    }

    /// Sum of a counter over all processes that live and the labels that fit.
    pub(crate) async fn counter(&self, name: &str, label: &str) -> f64 {
        let mut sum = 0.0;
        for member in self.servers.iter().chain(&self.sites) {
            sum += member.api.counter(name, label).await;
        }
        sum
    }

    /// Everything adds up.
    pub(crate) async fn audit(&self) {
        audit(&["--config", &self.config.display().to_string()]).await;
    }

    /// How an owner's tables are opened.
    pub(crate) fn tables(&self, owner: &str) -> PostgresOptions {
        PostgresOptions::new(self.schemas.url(), self.schemas.name(owner))
    }

    /// An owner's tables, to look at.
    pub(crate) async fn open(&self, owner: &str) -> Db {
        Db::open_postgres(&self.tables(owner)).await.expect("the database answers")
    }

    /// The configuration file, for commands and processes of a test's own.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }
}

fn prefix(schemas: &Schemas) -> String {
    let name = schemas.name("engine");
    name.strip_suffix("_engine").expect("a prefix and the owner").to_owned()
}

fn configuration(database: &str, schema: &str, broker: &str) -> String {
    let token = |name: &str, role: &str, token: &str| {
        format!("{{ name = {name:?}, role = {role:?}, sha256 = \"{}\" }}", hex::encode(sha256(token)))
    };
    let tokens = [token("frontdesk", "client", CLIENT_TOKEN), token("operator", "admin", ADMIN_TOKEN)].join(", ");
    format!(
        "[database]\nurl = {database:?}\nschema = {schema:?}\n[broker]\nurl = {broker:?}\n[auth]\ntokens = [{tokens}]\n"
    )
}

/// Runs a command of the product that ends by itself.
fn once(config: &Path, args: &[&str]) {
    let output = Command::new(BIN).args(args).arg("--config").arg(config).output().expect("the product runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn restart(member: &mut Member) {
    member.process.restart().expect("the product starts again");
    member.api = ready(&member.process).await;
}

/// The first orchestrator, and each owner where it is hosted.
fn at(servers: &[Member], sites: &[Member]) -> Api {
    let owner = |participant: &str| {
        let site = sites.iter().find(|site| site.names.contains(&participant));
        site.map_or_else(String::new, |site| site.api.url.clone())
    };
    let owners =
        vec![("/v1/clinic", owner("booking")), ("/v1/payments", owner("payment")), ("/v1/notices", owner("notify"))];
    let first = servers.first().expect("at least one orchestrator");
    Api::new(&first.api.url).with_owners(owners)
}
