//! The one handle through which parts start tasks and hear of shutdown.
//!
//! Must hold: no task is started around this handle, so that a shutdown can wait for all of them and a test can
//! run everything on one thread. Shutdown has two moments: `stopping` asks for no new work, `stopped` means the
//! deadline is over.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks, tells them to stop, waits for them.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tasks {
    /// A handle with no tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. It must end soon after [`Tasks::stopping`] resolves.
    #[allow(clippy::disallowed_methods, reason = "this is the one home of spawning")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Starts a task that the whole process depends on: if it panics, everything is stopped, so that whoever looks
    /// after the process starts it again instead of leaving it half alive.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.clone();
        self.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a vital task broke; the process stops");
                tasks.stop();
            }
        });
    }

    /// Resolves when shutdown has begun.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether shutdown has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Begins shutdown: every task hears it.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.tracker.close();
    }

    /// Begins shutdown and waits for all tasks, at most `deadline`. Returns how many were still running.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.stop();
        match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tracker.len(),
        }
    }

    /// How many tasks are running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Waits `duration`, or less when shutdown begins. True when the whole time passed.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => false,
            () = tokio::time::sleep(duration) => true,
        }
    }
}

/// Waits until then; without an instant for ever. Cancel-safe.
pub async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_breaks_stops_everything() {
        let tasks = Tasks::new();
        tasks.spawn_vital("test", async { panic!("on purpose") });
        tokio::time::timeout(Duration::from_secs(10), tasks.stopping()).await.expect("everything is stopped");
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_stops_nothing() {
        let tasks = Tasks::new();
        tasks.spawn_vital("test", async {});
        tasks.tracker.close();
        tokio::time::timeout(Duration::from_secs(10), tasks.tracker.wait()).await.expect("the task ends");
        assert!(!tasks.is_stopping());
    }
}
