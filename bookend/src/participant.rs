//! `bookend participant NAME…`: some of the four participants, on PostgreSQL and RabbitMQ, and the HTTP API of the
//! owners that they work on.
//!
//! No logic: everything here is plugging. Must hold: the process reaches no tables but those of its owners.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use db::Db;
use runtime::Tasks;
use runtime::health::Health;
use runtime::http::{Token, Tokens};
use runtime::metrics::Recorder;
use transport::Transport;
use transport::rabbitmq::RabbitMq;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::databases::{Owner, Place};
use crate::door::Door;
use crate::hosted::{Hosted, Hosting, Participant};
use crate::process::{bind, init_log, until_asked_to_stop};
use crate::serve::CHECK_MAX;
use crate::settings::Settings;

/// Serves until asked to stop.
///
/// # Errors
/// When the settings can't work, the tables are not up to date or the address is taken.
pub async fn run(settings: &Settings, names: &[String]) -> anyhow::Result<Exit> {
    init_log(settings)?;
    let participants = Participant::named(names)?;
    let tokens = settings.tokens()?;
    let listen = settings.participants.listen;
    if tokens.is_empty() && !listen.ip().is_loopback() {
        bail!("{listen} is not loopback: name tokens in auth.tokens (`bookend config` shows how)");
    }
    let listener = bind(listen, false).await?;
    let address = listener.local_addr().context("the listener has no address")?;
    let tasks = Tasks::new();
    let recorder = Recorder::install(&Tasks::new()).context("metrics can't be collected")?;
    let named: Vec<&str> = participants.iter().map(|participant| participant.as_str()).collect();
    let version = env!("CARGO_PKG_VERSION");
    output::line(&format!("bookend {version} participant {}  PostgreSQL, RabbitMQ", named.join(", ")));
    output::line(&format!("api   http://{address}"));
    let door = Door::open(listener, recorder.clone(), &tasks);
    let mut asked = pin!(until_asked_to_stop(&tasks));
    let site = tokio::select! {
        biased;
        asked = &mut asked => return asked,
        site = Site::start(&participants, settings, tokens, recorder, &tasks) => site?,
    };
    door.lead_to(site.router.clone());
    output::line("ready");
    let asked = asked.await?;
    let left = site.shutdown(settings.shutdown_deadline()).await;
    if left > 0 {
        output::note(&format!("{left} tasks were still running at the deadline; their commands are delivered again"));
    }
    Ok(asked)
}

/// Participants in a process of their own.
#[derive(Debug)]
pub struct Site {
    /// Everything the process serves.
    pub router: Router,
    databases: Vec<Db>,
    tasks: Tasks,
}

impl Site {
    /// Opens the owners' databases, waiting for them where they are not there yet, and starts the participants. The
    /// broker need not be there.
    ///
    /// # Errors
    /// When the settings can't work or tables are not up to date.
    pub async fn start(
        participants: &[Participant],
        settings: &Settings,
        tokens: Vec<Token>,
        recorder: Recorder,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let place = Place::server(settings)?;
        let owners: BTreeSet<Owner> = participants.iter().map(|participant| participant.owner()).collect();
        let mut databases = BTreeMap::new();
        for owner in owners {
            databases.insert(owner, place.open_patiently(owner, tasks).await?);
        }
        let names = participants.iter().map(|participant| participant.as_str());
        let broker = settings.broker(transport::topology::queues(names), "participant")?;
        let broker = Arc::new(RabbitMq::start(broker, tasks).context("broker.url can't be used")?);
        // Others may work on the same databases: a dead one's calls are taken over when their leases are over.
        let hosting = Hosting {
            simulators: String::new(),
            alone: false,
            drain: settings.shutdown_deadline().min(Duration::from_secs(2)),
        };
        let hosted = Hosted::start(participants, settings, databases.clone(), &*broker, tasks, &hosting)?;
        let health = databases.iter().fold(Health::new(tasks), |health, (owner, db)| {
            let db = db.clone();
            health.with(owner.as_str(), CHECK_MAX, move || {
                let db = db.clone();
                async move { db.check_writable().await.map_err(|error| error.to_string()) }
            })
        });
        let health = health.with("broker", CHECK_MAX, move || std::future::ready(broker.trouble().map_or(Ok(()), Err)));
        let identified = runtime::http::identify(hosted.router(), Arc::new(Tokens::new(tokens)));
        let router = runtime::http::edge(identified.merge(runtime::http::operations(Arc::new(health), recorder)));
        Ok(Self { router, databases: databases.into_values().collect(), tasks: tasks.clone() })
    }

    /// Stops everything within `deadline`. Returns how many tasks were still running.
    pub async fn shutdown(self, deadline: Duration) -> usize {
        let left = self.tasks.shutdown(deadline).await;
        for db in self.databases {
            db.close().await;
        }
        left
    }
}
