//! Waits for a saga, on behalf of clients.
//!
//! Must hold: whoever waits holds no saga meanwhile and little else, because there may be very many who do; each wait ends
//! within its limit.

use std::sync::Arc;
use std::time::Duration;

use saga_core::Saga;
use tokio::time::Instant;
use uuid::Uuid;

use crate::hints::Watch;
use crate::request::{Snapshot, Started};
use crate::{Engine, Error};

/// When a saga is looked at again whose row is not as new as a hint said: a standby may have taken over that knows less.
const AHEAD: Duration = Duration::from_millis(250);

/// What a client waits for: it implies an answer, because nobody is told of what comes before.
type Reached = fn(&Saga) -> bool;

/// How far a saga was when it was seen last.
enum Seen {
    Reached(Box<Snapshot>),
    /// Not yet, at this version.
    At(u64),
}

fn seen(snapshot: Snapshot, reached: Reached) -> Seen {
    if reached(&snapshot.saga) { Seen::Reached(Box::new(snapshot)) } else { Seen::At(snapshot.saga.version) }
}

impl Engine {
    /// The saga once it is decided or stuck, or as it is when `limit` is over or the engine stops.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn wait(&self, saga_id: Uuid, limit: Duration) -> Result<Option<Snapshot>, Error> {
        let watch = self.shared.hints.watch(saga_id);
        match self.read(saga_id).await? {
            Some(snapshot) => self.until(seen(*snapshot, Saga::is_answered), watch, limit, Saga::is_answered).await,
            None => Ok(None),
        }
    }

    /// As [`Engine::wait`], for a saga that was started just now.
    ///
    /// # Errors
    /// When the store fails.
    pub fn follow(
        &self,
        started: Started,
        limit: Duration,
    ) -> impl Future<Output = Result<Option<Snapshot>, Error>> + Send + use<'_> {
        let Started { snapshot, watch, .. } = started;
        self.until(seen(snapshot, Saga::is_answered), watch, limit, Saga::is_answered)
    }

    /// As [`Engine::follow`], until the saga has ended or is stuck.
    ///
    /// # Errors
    /// When the store fails.
    pub fn follow_to_end(
        &self,
        started: Started,
        limit: Duration,
    ) -> impl Future<Output = Result<Option<Snapshot>, Error>> + Send + use<'_> {
        let reached: Reached = |saga| saga.is_ended() || saga.stuck.is_some();
        let Started { snapshot, watch, .. } = started;
        self.until(seen(snapshot, reached), watch, limit, reached)
    }

    async fn until(
        &self,
        mut last: Seen,
        mut watch: Watch,
        limit: Duration,
        reached: Reached,
    ) -> Result<Option<Snapshot>, Error> {
        let deadline = Instant::now() + limit;
        let mut looked = None;
        loop {
            let version = match last {
                Seen::Reached(snapshot) => return Ok(Some(*snapshot)),
                Seen::At(version) => version,
            };
            if looked.is_some_and(|looked| looked >= version) {
                self.shared.tasks.sleep(AHEAD.min(deadline.saturating_duration_since(Instant::now()))).await;
            }
            let heard = tokio::select! {
                biased;
                () = self.shared.tasks.stopping() => None,
                () = tokio::time::sleep_until(deadline) => None,
                heard = watch.newer_than(version) => Some(heard),
            };
            last = match heard {
                Some(Some(heard)) => seen(Arc::unwrap_or_clone(heard), reached),
                Some(None) => match self.read(watch.saga_id()).await? {
                    Some(snapshot) => {
                        looked = Some(version);
                        seen(*snapshot, reached)
                    }
                    None => return Ok(None),
                },
                // As it is by now.
                None => return Ok(self.read(watch.saga_id()).await?.map(|snapshot| *snapshot)),
            };
        }
    }

    /// Reads a saga, in memory that is only held meanwhile.
    async fn read(&self, saga_id: Uuid) -> Result<Option<Box<Snapshot>>, Error> {
        Ok(Box::pin(self.get(saga_id)).await?.map(Box::new))
    }
}
