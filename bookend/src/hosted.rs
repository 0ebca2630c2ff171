//! The four participants of this repository, hosted in a process: all of them beside the engine, or some of them in a
//! process of their own.
//!
//! No logic: everything here is plugging.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use db::Db;
use participant_kit::{ExternalHandler, ExternalOptions, Handler, TransactionalHandler};
use runtime::Tasks;
use transport::Transport;
use uuid::Uuid;

use crate::databases::Owner;
use crate::settings::Settings;

/// A participant of this repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Participant {
    /// Holds slots.
    Booking,
    /// Charges cards.
    Payment,
    /// Makes appointments firm.
    Confirmation,
    /// Tells patients.
    Notify,
}

impl Participant {
    /// All participants.
    pub const ALL: [Self; 4] = [Self::Booking, Self::Payment, Self::Confirmation, Self::Notify];

    /// The participant's name: its queue.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booking => "booking",
            Self::Payment => "payment",
            Self::Confirmation => "confirmation",
            Self::Notify => "notify",
        }
    }

    /// The participants of these names, each once.
    ///
    /// # Errors
    /// When there is no such participant.
    pub fn named(names: &[String]) -> anyhow::Result<Vec<Self>> {
        let all = || Self::ALL.map(Self::as_str).join(", ");
        let find = |name: &String| {
            let found = Self::ALL.into_iter().find(|one| one.as_str() == name);
            found.with_context(|| format!("there is no participant {name:?}; here are {}", all()))
        };
        let mut found = names.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?;
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            bail!("name at least one participant of {}", all());
        }
        Ok(found)
    }

    /// Whose tables it works on.
    #[must_use]
    pub fn owner(self) -> Owner {
        match self {
            Self::Booking | Self::Confirmation => Owner::Clinic,
            Self::Payment => Owner::Payment,
            Self::Notify => Owner::Notify,
        }
    }
}

/// How participants are hosted.
#[derive(Clone, Debug)]
pub struct Hosting {
    /// Base address of the providers that the settings name none for.
    pub simulators: String,
    /// This process is provably the only one on its databases: calls of a dead one are taken over at once.
    pub alone: bool,
    /// How long after shutdown began replies are still waited for.
    pub drain: Duration,
}

/// Participants that serve.
#[derive(Clone, Debug)]
pub struct Hosted {
    /// The notices, when they are hosted here: their breaker can be looked at.
    pub notify: Option<notify::Notify>,
    databases: BTreeMap<Owner, Db>,
}

impl Hosted {
    /// Starts participants on the databases of their owners, all of which must be in `databases`.
    ///
    /// # Errors
    /// When a provider can't be used, or an owner's database is missing.
    pub fn start(
        participants: &[Participant],
        settings: &Settings,
        databases: BTreeMap<Owner, Db>,
        transport: &dyn Transport,
        tasks: &Tasks,
        hosting: &Hosting,
    ) -> anyhow::Result<Self> {
        let mut hosted = Self { notify: None, databases };
        for participant in participants {
            let handler = hosted.handler(*participant, settings, hosting)?;
            let options = participant_kit::Options {
                prefetch: settings.participants.prefetch,
                batch_max: settings.participants.batch_max,
                drain: hosting.drain,
                ..participant_kit::Options::default()
            };
            participant_kit::serve(handler, transport, tasks, options);
        }
        Ok(hosted)
    }

    fn handler(
        &mut self,
        participant: Participant,
        settings: &Settings,
        hosting: &Hosting,
    ) -> anyhow::Result<Arc<dyn Handler>> {
        let owner = participant.owner();
        let db = self.databases.get(&owner).cloned();
        let db = db.with_context(|| format!("the database of {} is not open", owner.as_str()))?;
        let external = ExternalOptions {
            concurrency: settings.participants.calls_max,
            lease: Duration::from_millis(settings.participants.lease_ms),
            take_over_at_start: hosting.alone,
            owner: Uuid::new_v4(),
            ..ExternalOptions::default()
        };
        Ok(match participant {
            Participant::Booking => Arc::new(TransactionalHandler::new(db, booking::Booking)),
            Participant::Confirmation => Arc::new(TransactionalHandler::new(db, confirmation::Confirmation)),
            Participant::Payment => Arc::new(ExternalHandler::new(db, payment(settings, hosting)?, external)),
            Participant::Notify => {
                let notify = notify(settings, hosting)?;
                self.notify = Some(notify.clone());
                Arc::new(ExternalHandler::new(db, notify, external))
            }
        })
    }

    /// The HTTP API of the owners hosted here.
    pub fn router(&self) -> Router {
        self.databases.iter().fold(Router::new(), |router, (owner, db)| match owner {
            Owner::Engine => router,
            Owner::Clinic => router.merge(clinic::http::router(db.clone())),
            Owner::Payment => router.merge(::payment::http::router(db.clone())),
            Owner::Notify => router.merge(::notify::http::router(db.clone())),
        })
    }
}

/// The address of a provider: the configured one, or that of the simulators.
fn provider(configured: &str, key: &str, hosting: &Hosting) -> anyhow::Result<String> {
    match (configured, hosting.simulators.as_str()) {
        ("", "") => bail!("{key} is not set; `bookend providers` starts simulators to point it at"),
        ("", simulators) => Ok(simulators.to_owned()),
        (configured, _) => Ok(configured.to_owned()),
    }
}

fn payment(settings: &Settings, hosting: &Hosting) -> anyhow::Result<payment::Payment> {
    payment::Payment::new(&payment::Options {
        gateway_url: provider(&settings.payment.gateway_url, "payment.gateway_url", hosting)?,
        timeout_ms: settings.payment.timeout_ms,
    })
    .context("the card gateway can't be used")
}

fn notify(settings: &Settings, hosting: &Hosting) -> anyhow::Result<notify::Notify> {
    notify::Notify::new(&notify::Options {
        sms_url: provider(&settings.notify.sms_url, "notify.sms_url", hosting)?,
        mail_url: provider(&settings.notify.mail_url, "notify.mail_url", hosting)?,
        timeout_ms: settings.notify.timeout_ms,
        breaker: notify::BreakerOptions {
            failures: settings.notify.breaker_failures,
            open_ms: settings.notify.breaker_open_ms,
        },
    })
    .context("the notice providers can't be used")
}
