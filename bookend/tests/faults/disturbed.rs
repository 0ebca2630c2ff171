//! A cluster on services of a story's own, which it may stop, kill and cut off.
//!
//! Must hold: nothing here is shared with another story.

use std::time::Duration;

use testkit::eventually;
use testkit::services::{PrivateServices, Services};

use crate::common::{Api, Cluster, LIMIT, Shape, Simulators};
use crate::load::{Load, Wish, rivals, wishes};

/// How long a process may take to notice that something is gone, or is back.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// How long a charge with `tok_slow` takes: sagas are under way whenever the fault comes.
const SLOW_MS: &str = "1000";
/// Of six charges.
const SLOW: usize = 2;
const CLIENTS: usize = 12;
/// Sagas that a fault must meet under way.
const UNDER_WAY_MIN: usize = 3;

/// Two orchestrators and all participants, on PostgreSQL and RabbitMQ of their own.
pub(crate) struct Disturbed {
    // The processes end before what they are connected to.
    pub(crate) cluster: Cluster,
    pub(crate) simulators: Simulators,
    pub(crate) services: PrivateServices,
    slots: Vec<String>,
}

impl Disturbed {
    /// Starts everything, with as many free slots.
    pub(crate) async fn start(slots: usize) -> Self {
        Self::on(Services::private().await, slots, &[]).await
    }

    /// The same on services that run already, with these variables in the environment.
    pub(crate) async fn on(services: PrivateServices, slots: usize, env: &[(&str, &str)]) -> Self {
        let simulators = Simulators::start(&[("BOOKEND_PROVIDERS__SLOW_MS", SLOW_MS)]).await;
        let count = slots.to_string();
        let own = [("BOOKEND_SEED__SLOTS", count.as_str()), ("BOOKEND_PARTICIPANTS__CALLS_MAX", "64")];
        // Shorter than usual: an intent whose commit was not answered waits for its end.
        let lease = [("BOOKEND_PARTICIPANTS__LEASE_MS", "5000")];
        let env = [&own[..], &lease, env].concat();
        let cluster = Cluster::start(&services, &Shape::default(), &simulators, &env).await;
        let slots = cluster.api.free_slots(slots).await;
        Self { cluster, simulators, services, slots }
    }

    /// Clients at both orchestrators that ask for all that is free, each `pace` after its last answer: some cards are
    /// declined, some charges land late, some slots are wanted by two.
    pub(crate) fn load(&mut self, name: &str, pace: Duration) -> Load {
        let slots = std::mem::take(&mut self.slots);
        self.clients(rivals(wishes(name, &slots, SLOW)), pace)
    }

    /// The same for the next `count` free slots.
    pub(crate) fn load_of(&mut self, name: &str, count: usize, pace: Duration) -> Load {
        let slots: Vec<String> = self.slots.drain(..count).collect();
        self.clients(rivals(wishes(name, &slots, SLOW)), pace)
    }

    fn clients(&self, wishes: Vec<Wish>, pace: Duration) -> Load {
        Load::paced(&self.apis(), wishes, CLIENTS, pace)
    }

    pub(crate) fn apis(&self) -> [Api; 2] {
        [self.cluster.at(0), self.cluster.at(1)]
    }

    /// Waits until every process answers the question for its readiness with this status.
    pub(crate) async fn all_say(&self, status: u16) {
        for member in self.cluster.servers.iter().chain(&self.cluster.sites) {
            eventually(NOTICED_WITHIN, &format!("readiness is answered with {status}"), async || {
                let answer = member.api.get("/readyz").await;
                if answer.status == status { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
            })
            .await;
        }
    }

    /// Waits until sagas are under way, and says how many.
    pub(crate) async fn under_way(&self) -> usize {
        eventually(LIMIT, "sagas are under way", async || {
            let count = self.cluster.api.count("running").await;
            if count >= UNDER_WAY_MIN { Ok(count) } else { Err(format!("{count} are")) }
        })
        .await
    }

    /// Messages that wait in the engine's outbox.
    pub(crate) async fn outbox_rows(&self) -> usize {
        let sql = format!("select count(*) from {}.outbox", self.cluster.tables("engine").schema);
        self.services.query(&sql).await.expect("the database answers").trim().parse().expect("a number")
    }
}
