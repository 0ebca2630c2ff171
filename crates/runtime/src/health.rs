//! Whether this process can serve: named checks with a time-out each.
//!
//! Not for liveness: a process that answers at all is alive. Must hold: a check that hangs fails; a process that is
//! stopping is not ready, so that its load goes elsewhere first.

use std::fmt;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};
use serde::Serialize;

use crate::Tasks;

type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

struct Check {
    name: &'static str,
    limit: Duration,
    probe: Probe,
}

/// All checks of a process.
pub struct Health {
    tasks: Tasks,
    checks: Vec<Check>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|check| check.name)).finish()
    }
}

/// A check that fails at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// The check's name.
    pub name: &'static str,
    /// Why, for an operator; no personal data.
    pub reason: String,
}

impl Health {
    /// No checks but one: whether `tasks` are stopping.
    #[must_use]
    pub fn new(tasks: &Tasks) -> Self {
        Self { tasks: tasks.clone(), checks: Vec::new() }
    }

    /// Adds a check that must pass within `limit`.
    #[must_use]
    pub fn with<F, Fut>(mut self, name: &'static str, limit: Duration, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push(Check { name, limit, probe: Box::new(move || probe().boxed()) });
        self
    }

    /// Runs all checks at once and returns those that fail, in the order they were added.
    pub async fn failing(&self) -> Vec<Failing> {
        if self.tasks.is_stopping() {
            return vec![Failing { name: "shutdown", reason: "the process is stopping".to_owned() }];
        }
        join_all(self.checks.iter().map(run)).await.into_iter().flatten().collect()
    }
}

async fn run(check: &Check) -> Option<Failing> {
    let reason = match tokio::time::timeout(check.limit, (check.probe)()).await {
        Ok(Ok(())) => return None,
        Ok(Err(reason)) => reason,
        Err(_) => format!("no answer within {} ms", check.limit.as_millis()),
    };
    Some(Failing { name: check.name, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_fails_and_others_still_answer() {
        let health = Health::new(&Tasks::new())
            .with("hangs", LIMIT, std::future::pending)
            .with("passes", LIMIT, async || Ok(()))
            .with("fails", LIMIT, async || Err("no".to_owned()));
        let failing = health.failing().await;
        let expected = [("hangs", "no answer within 1000 ms"), ("fails", "no")];
        assert_eq!(failing.iter().map(|f| (f.name, f.reason.as_str())).collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn a_stopping_process_is_not_ready() {
        let tasks = Tasks::new();
        let health = Health::new(&tasks);
        assert_eq!(health.failing().await, []);
        tasks.stop();
        assert_eq!(health.failing().await[0].name, "shutdown");
    }
}
