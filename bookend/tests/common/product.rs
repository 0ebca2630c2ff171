//! The product on either stack, so that one story is told on both.

use super::{Api, Cluster, Dev, Shape, Simulators};
use testkit::services::Services;

/// Which stack a story runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// SQLite and in-process queues, one process.
    Embedded,
    /// PostgreSQL and RabbitMQ: two orchestrators, and the participants in a process of their own.
    Services,
}

/// The product, running.
pub(crate) enum Product {
    Embedded(Box<Dev>),
    Services(Box<Cluster>),
}

impl Product {
    /// Starts it with these variables in its environment.
    pub(crate) async fn start(stack: Stack, simulators: &Simulators, env: &[(&str, &str)]) -> Self {
        match stack {
            Stack::Embedded => Self::Embedded(Box::new(Dev::start(&[simulators.env(), env.to_vec()].concat()).await)),
            Stack::Services => {
                let cluster = Cluster::start(&Services::shared(), &Shape::default(), simulators, env).await;
                Self::Services(Box::new(cluster))
            }
        }
    }

    /// A client at it; of several orchestrators, at the first.
    pub(crate) fn api(&self) -> &Api {
        match self {
            Self::Embedded(dev) => &dev.api,
            Self::Services(cluster) => &cluster.api,
        }
    }

    /// The same client, at another orchestrator where there is one.
    pub(crate) fn other_api(&self) -> Api {
        match self {
            Self::Embedded(dev) => dev.api.clone(),
            Self::Services(cluster) => cluster.at(1),
        }
    }

    /// kill -9 of everything, and a new start on the same data.
    pub(crate) async fn kill_and_restart(&mut self) {
        match self {
            Self::Embedded(dev) => dev.kill_and_restart().await,
            Self::Services(cluster) => cluster.kill_and_restart().await,
        }
    }

    /// Asks every process to end.
    pub(crate) fn terminate(&self) {
        match self {
            Self::Embedded(dev) => dev.process.terminate().expect("the signal is sent"),
            Self::Services(cluster) => cluster.terminate(),
        }
    }

    /// Sum of a counter over all processes and the labels that fit.
    pub(crate) async fn counter(&self, name: &str, label: &str) -> f64 {
        match self {
            Self::Embedded(dev) => dev.api.counter(name, label).await,
            Self::Services(cluster) => cluster.counter(name, label).await,
        }
    }

    /// Everything adds up, by the product's own audit in a process of its own.
    pub(crate) async fn audit(&self) {
        match self {
            Self::Embedded(dev) => dev.audit().await,
            Self::Services(cluster) => cluster.audit().await,
        }
    }
}
