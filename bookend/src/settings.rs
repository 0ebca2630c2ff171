//! Reads configuration: flag over environment over file over `config.default.toml`, which documents every key.
//!
//! The only place that reads the environment. Must hold: an unknown key is an error, so that a typing mistake is
//! never silently ignored; only variables that contain `__` are configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use config::{Config, Environment, File, FileFormat, Map};
use db::PostgresOptions;
use runtime::http::{Role, Token};
use saga_defs::Definition;
use saga_defs::catalog::{Catalog, Loaded};
use serde::Deserialize;
use transport::Queue;

use crate::databases::Owner;

mod retention;

pub use retention::{Named, Participants, Retention};

/// The text that documents every key.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// All configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "config.default.toml is the manual of every key")]
pub struct Settings {
    pub api: Listen,
    pub data: Data,
    pub database: Database,
    pub broker: Broker,
    pub auth: Auth,
    pub definitions: Definitions,
    pub engine: Engine,
    pub transport: Transport,
    pub participants: Participants,
    pub retention: Retention,
    pub payment: Payment,
    pub notify: Notify,
    pub providers: Providers,
    pub seed: Seed,
    pub log: Log,
    pub shutdown: Shutdown,
}

macro_rules! section {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        /// A section of `config.default.toml`.
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs, reason = "config.default.toml is the manual of every key")]
        pub struct $name { $(pub $field: $type),* }
    };
}

section!(Listen { listen: SocketAddr });
section!(Data { dir: String });
section!(Database {
    url: String,
    engine_url: String,
    clinic_url: String,
    payment_url: String,
    notify_url: String,
    schema: String,
    connections: u32,
    statement_timeout_ms: u64,
    lock_timeout_ms: u64,
});
section!(Broker { url: String, heartbeat_ms: u64 });
section!(Auth { tokens: Vec<TokenEntry> });
section!(TokenEntry { name: String, role: TokenRole, sha256: String });
section!(Definitions { dir: String });
section!(Engine {
    workers: usize,
    queue: usize,
    batch_max: usize,
    hot_max: usize,
    prefetch: usize,
    in_flight_max: usize,
    relay_every_ms: u64,
    timers_every_ms: u64,
    hints: bool,
    hints_every_ms: u64,
    answer_within_ms: u64,
    outbox_age_max_ms: u64,
});
section!(Transport { capacity: usize });
section!(Payment { gateway_url: String, timeout_ms: u64 });
section!(Notify { sms_url: String, mail_url: String, timeout_ms: u64, breaker_failures: u32, breaker_open_ms: u64 });
section!(Providers { listen: SocketAddr, slow_ms: u64 });
section!(Seed { slots: u32 });
section!(Log { format: LogFormat, filter: String });
section!(Shutdown { deadline_ms: u64 });

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// Starts, reads and cancels its own sagas.
    Client,
    /// Reads all and repairs.
    Admin,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// Most items that a queue in memory may be told to hold.
const ITEMS_MAX: u64 = 1_048_576;
const HOUR_MS: u64 = 3_600_000;
/// Leases are renewed by a sweep every half second, at the earliest when a third is over: one of these may come late.
const LEASE_MIN_MS: u64 = 1_500;
const DAY_MS: u64 = 24 * HOUR_MS;
const CENTURY_MS: u64 = 100 * 366 * DAY_MS;

/// A number of the configuration, and what is accepted.
struct Number {
    key: &'static str,
    value: u64,
    min: u64,
    max: u64,
}

impl Number {
    /// A value that does not fit into 64 bits is above every maximum anyway.
    fn new(key: &'static str, value: impl TryInto<u64>, min: u64, max: u64) -> Self {
        Self { key, value: value.try_into().unwrap_or(u64::MAX), min, max }
    }

    fn wrong(self) -> Option<String> {
        let Self { key, value, min, max } = self;
        (value < min || value > max).then(|| format!("{key} is {value}; accepted is {min} to {max}"))
    }
}

/// Whether paths can be appended to this address.
fn is_base(text: &str) -> bool {
    // The parser mends what a person got wrong, such as a slash too few or too many: the text itself must be right.
    // Calling https:// needs a TLS stack, which the product is built without.
    let rest = text.strip_prefix("http://");
    let hosted = rest.is_some_and(|rest| !rest.starts_with(['/', '\\']));
    let base = |url: reqwest::Url| url.has_host() && url.query().is_none() && url.fragment().is_none();
    hosted && reqwest::Url::parse(text).is_ok_and(base)
}

/// Values given on the command line; they win.
pub type Flags = Vec<(&'static str, config::Value)>;

impl Settings {
    /// Reads all sources, strongest last.
    ///
    /// # Errors
    /// When a source can't be read, a key is unknown, or a value does not fit.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn read(file: Option<&Path>, flags: Flags) -> anyhow::Result<Self> {
        Self::from_sources(file, std::env::vars(), flags)
    }

    fn from_sources(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Flags,
    ) -> anyhow::Result<Self> {
        let ours: Map<String, String> = environment.into_iter().filter(|(name, _)| name.contains("__")).collect();
        let environment = Environment::with_prefix("BOOKEND")
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .source(Some(ours));
        let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("the configuration file {} can't be read", path.display()))?;
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        builder = builder.add_source(environment);
        for (key, value) in flags {
            builder = builder.set_override(key, value)?;
        }
        let config = builder.build().context("the configuration can't be read")?;
        let settings: Self = config
            .try_deserialize()
            .context("the configuration does not fit; every key is documented by `bookend config`")?;
        settings.check()?;
        Ok(settings)
    }

    /// Refuses what can be read but can't work, before anything starts; all of it is named.
    fn check(&self) -> anyhow::Result<()> {
        let mut wrong: Vec<String> = self.numbers().into_iter().filter_map(Number::wrong).collect();
        wrong.extend(self.wrong_retention());
        let urls = [
            ("payment.gateway_url", &self.payment.gateway_url),
            ("notify.sms_url", &self.notify.sms_url),
            ("notify.mail_url", &self.notify.mail_url),
        ];
        wrong.extend(
            urls.into_iter().filter(|(_, url)| !url.is_empty() && !is_base(url)).map(|(key, url)| {
                format!("{key} is {url:?}; accepted is http:// with a host, and no query, or nothing")
            }),
        );
        let schemes = [
            ("database.url", &self.database.url, ["postgres://", "postgresql://"]),
            ("broker.url", &self.broker.url, ["amqp://", "amqps://"]),
        ];
        for (key, url, accepted) in schemes {
            if !url.is_empty() && !accepted.iter().any(|scheme| url.starts_with(scheme)) {
                // It is not quoted: it may hold a password.
                wrong.push(format!("{key} is of another kind; accepted is {} or nothing", accepted.join("…, ") + "…"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { bail!("the configuration can't work: {}", wrong.join("; ")) }
    }

    /// Every number, with the range in which it works.
    fn numbers(&self) -> Vec<Number> {
        let Self { engine, participants, payment, notify, .. } = self;
        vec![
            Number::new("engine.workers", engine.workers, 1, 64),
            Number::new("engine.queue", engine.queue, 1, ITEMS_MAX),
            Number::new("engine.batch_max", engine.batch_max, 1, 4_096),
            Number::new("engine.hot_max", engine.hot_max, 0, ITEMS_MAX),
            Number::new("engine.prefetch", engine.prefetch, 1, u64::from(u16::MAX)),
            Number::new("engine.in_flight_max", engine.in_flight_max, 1, ITEMS_MAX),
            Number::new("engine.relay_every_ms", engine.relay_every_ms, 1, HOUR_MS),
            Number::new("engine.timers_every_ms", engine.timers_every_ms, 1, HOUR_MS),
            Number::new("engine.hints_every_ms", engine.hints_every_ms, 1, HOUR_MS),
            Number::new("engine.answer_within_ms", engine.answer_within_ms, 1, HOUR_MS),
            Number::new("engine.outbox_age_max_ms", engine.outbox_age_max_ms, 1, DAY_MS),
            Number::new("database.connections", self.database.connections, 2, 1_000),
            Number::new("database.statement_timeout_ms", self.database.statement_timeout_ms, 1, HOUR_MS),
            Number::new("database.lock_timeout_ms", self.database.lock_timeout_ms, 1, HOUR_MS),
            Number::new("broker.heartbeat_ms", self.broker.heartbeat_ms, 1_000, HOUR_MS),
            Number::new("transport.capacity", self.transport.capacity, 1, ITEMS_MAX),
            Number::new("participants.prefetch", participants.prefetch, 1, u64::from(u16::MAX)),
            Number::new("participants.batch_max", participants.batch_max, 1, 4_096),
            Number::new("participants.calls_max", participants.calls_max, 1, 65_536),
            Number::new("participants.lease_ms", participants.lease_ms, LEASE_MIN_MS, DAY_MS),
            Number::new("retention.after_ms", self.retention.after_ms, 0, CENTURY_MS),
            Number::new("retention.keys_after_ms", self.retention.keys_after_ms, 0, CENTURY_MS),
            Number::new("retention.every_ms", self.retention.every_ms, 1, DAY_MS),
            Number::new("retention.batch_max", self.retention.batch_max, 1, 4_096),
            Number::new("payment.timeout_ms", payment.timeout_ms, 1, HOUR_MS),
            Number::new("notify.timeout_ms", notify.timeout_ms, 1, HOUR_MS),
            Number::new("notify.breaker_failures", notify.breaker_failures, 1, 1_000_000),
            Number::new("notify.breaker_open_ms", notify.breaker_open_ms, 1, DAY_MS),
            // A zero works in these: at once, none, without waiting.
            Number::new("providers.slow_ms", self.providers.slow_ms, 0, HOUR_MS),
            Number::new("seed.slots", self.seed.slots, 0, 1_000_000),
            Number::new("shutdown.deadline_ms", self.shutdown.deadline_ms, 0, HOUR_MS),
        ]
    }

    /// The data folder.
    ///
    /// # Errors
    /// When none is set.
    pub fn data_dir(&self) -> anyhow::Result<PathBuf> {
        if self.data.dir.is_empty() {
            bail!("no data folder: give --data DIR, or set data.dir");
        }
        Ok(PathBuf::from(&self.data.dir))
    }

    /// How an owner's schema is opened. Its own URL wins over the one that all share.
    #[must_use]
    pub fn postgres(&self, owner: Owner) -> PostgresOptions {
        let Database { url, engine_url, clinic_url, payment_url, notify_url, schema, .. } = &self.database;
        let own = match owner {
            Owner::Engine => engine_url,
            Owner::Clinic => clinic_url,
            Owner::Payment => payment_url,
            Owner::Notify => notify_url,
        };
        let ms = Duration::from_millis;
        PostgresOptions {
            connections: self.database.connections,
            application: format!("bookend {} {}", owner.as_str(), std::process::id()),
            statement_timeout: ms(self.database.statement_timeout_ms),
            lock_timeout: ms(self.database.lock_timeout_ms),
            ..PostgresOptions::new(if own.is_empty() { url } else { own }, format!("{schema}_{}", owner.as_str()))
        }
    }

    /// How the broker is used by a process that calls itself `name`.
    ///
    /// # Errors
    /// When no broker is set.
    pub fn broker(&self, queues: Vec<Queue>, name: &str) -> anyhow::Result<transport::rabbitmq::Options> {
        if self.broker.url.is_empty() {
            bail!("no broker: set broker.url, as in amqp://user:password@host:5672/vhost");
        }
        Ok(transport::rabbitmq::Options {
            name: format!("bookend {name} {}", std::process::id()),
            heartbeat: Duration::from_millis(self.broker.heartbeat_ms),
            in_flight_max: self.engine.in_flight_max,
            ..transport::rabbitmq::Options::new(&self.broker.url, queues)
        })
    }

    /// The tokens of `[auth]`.
    ///
    /// # Errors
    /// When a hash is not 64 hex digits.
    pub fn tokens(&self) -> anyhow::Result<Vec<Token>> {
        let token = |entry: &TokenEntry| {
            let mut sha256 = [0; 32];
            hex::decode_to_slice(&entry.sha256, &mut sha256)
                .with_context(|| format!("auth.tokens: sha256 of `{}` must be 64 hex digits", entry.name))?;
            let role = match entry.role {
                TokenRole::Client => Role::Client,
                TokenRole::Admin => Role::Admin,
            };
            Ok(Token { name: entry.name.clone(), role, sha256 })
        };
        self.auth.tokens.iter().map(token).collect()
    }

    /// The compiled-in definitions and those of `definitions.dir`.
    ///
    /// # Errors
    /// When a file can't be read, breaks the rules of definitions, or has the name and version of another definition.
    pub fn catalog(&self) -> anyhow::Result<Catalog> {
        let mut catalog = Catalog::built_in();
        if self.definitions.dir.is_empty() {
            return Ok(catalog);
        }
        let dir = Path::new(&self.definitions.dir);
        let entries =
            std::fs::read_dir(dir).with_context(|| format!("definitions.dir {} can't be read", dir.display()))?;
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml" || extension == "json"));
        paths.sort();
        for path in paths {
            let loaded = load_definition(&path)?;
            catalog.add(loaded).with_context(|| format!("{} can't be added", path.display()))?;
        }
        Ok(catalog)
    }

    /// The engine's options.
    ///
    /// # Errors
    /// When the archive's folder can't be used.
    pub fn engine_options(&self) -> anyhow::Result<orchestrator::Options> {
        let ms = Duration::from_millis;
        Ok(orchestrator::Options {
            workers: self.engine.workers,
            queue: self.engine.queue,
            batch_max: self.engine.batch_max,
            hot_max: self.engine.hot_max,
            prefetch: self.engine.prefetch,
            in_flight_max: self.engine.in_flight_max,
            one_at_a_time: self.one_at_a_time(),
            relay_every: ms(self.engine.relay_every_ms),
            timers_every: ms(self.engine.timers_every_ms),
            hints: self.engine.hints,
            hints_every: ms(self.engine.hints_every_ms),
            answer_within: ms(self.engine.answer_within_ms),
            alone: false,
            retention: self.retention()?,
        })
    }

    /// How long a shutdown may take.
    #[must_use]
    pub fn shutdown_deadline(&self) -> Duration {
        Duration::from_millis(self.shutdown.deadline_ms)
    }
}

/// Reads and checks one definition file, TOML or JSON by its ending.
///
/// # Errors
/// When it can't be read or breaks rules, all of which are named.
pub fn load_definition(path: &Path) -> anyhow::Result<Loaded> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    let json = path.extension().is_some_and(|extension| extension == "json");
    let definition = if json { Definition::from_json(&text) } else { Definition::from_toml(&text) };
    let definition = definition.with_context(|| format!("{} is not a sound definition", path.display()))?;
    Loaded::new(definition).with_context(|| format!("{} is not a sound definition", path.display()))
}

#[cfg(test)]
mod tests;
