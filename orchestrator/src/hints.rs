//! Wakes those who wait for a saga, in this process and in others.
//!
//! A hint is one message for all sagas of a commit that can answer a wait. Within a process it carries the saga as it
//! was committed, so that nobody who waits here reads the row again. Hints may be lost: waited sagas are asked for
//! every now and then, many in one query. Must hold: watch, then read the row or let the saga move, then wait; never the other
//! way round.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::Pause;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::request::Snapshot;
use crate::shared::Shared;

/// Wait after the store failed, doubled up to its bound.
const PAUSE: Pause = Pause::new(Duration::from_millis(200), Duration::from_secs(2));

/// Waited sagas that are looked at in one round.
const ROUND_MAX: usize = 1_024;

/// A saga and the version that it has reached.
type Hint = (Uuid, u64);

/// The newest that is known of a waited saga.
#[derive(Clone, Debug, Default)]
struct Heard {
    version: u64,
    /// The saga at that version; none when it moved elsewhere.
    snapshot: Option<Arc<Snapshot>>,
}

/// A saga that somebody waits for.
#[derive(Debug)]
struct Wanted {
    since: Instant,
    told: watch::Sender<Heard>,
}

type Waited = Arc<Mutex<BTreeMap<Uuid, Wanted>>>;

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    waited: Waited,
}

impl Hints {
    /// Hears of every version from now on that may answer a wait.
    pub(crate) fn watch(&self, saga_id: Uuid) -> Watch {
        let wanted = || Wanted { since: Instant::now(), told: watch::Sender::default() };
        let heard = lock(&self.waited).entry(saga_id).or_insert_with(wanted).told.subscribe();
        Watch { saga_id, heard: Some(heard), waited: Arc::clone(&self.waited) }
    }

    /// How many sagas are waited for.
    pub(crate) fn len(&self) -> usize {
        lock(&self.waited).len()
    }

    /// Tells that a saga has reached this version.
    fn tell(&self, saga_id: Uuid, version: u64, snapshot: Option<&Snapshot>) {
        if let Some(wanted) = lock(&self.waited).get(&saga_id) {
            wanted.told.send_if_modified(|heard| {
                let newer = heard.version < version;
                if newer {
                    *heard = Heard { version, snapshot: snapshot.cloned().map(Arc::new) };
                }
                newer
            });
        }
    }

    /// Sagas that are waited for since before `since`, from this one on, in order.
    fn waited(&self, from: Uuid, since: Instant) -> Vec<Uuid> {
        let waited = lock(&self.waited);
        let old = waited.range(from..).filter(|(_, wanted)| wanted.since <= since);
        old.map(|(id, _)| *id).take(ROUND_MAX).collect()
    }
}

fn lock(waited: &Waited) -> MutexGuard<'_, BTreeMap<Uuid, Wanted>> {
    waited.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears of one saga, from the moment it was made.
#[derive(Debug)]
pub struct Watch {
    saga_id: Uuid,
    /// Taken when it is dropped.
    heard: Option<watch::Receiver<Heard>>,
    waited: Waited,
}

impl Watch {
    /// Which saga.
    pub(crate) fn saga_id(&self) -> Uuid {
        self.saga_id
    }

    /// Waits for a version above `version`: the saga at that version, or none when its row must be read.
    pub(crate) async fn newer_than(&mut self, version: u64) -> Option<Arc<Snapshot>> {
        match &mut self.heard {
            // The sender stays for as long as somebody watches.
            Some(heard) => heard.wait_for(|heard| heard.version > version).await.ok()?.snapshot.clone(),
            None => None,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waited = lock(&self.waited);
        self.heard = None;
        if waited.get(&self.saga_id).is_some_and(|wanted| wanted.told.receiver_count() == 0) {
            waited.remove(&self.saga_id);
        }
    }
}

/// Tells everyone who waits for these sagas: here of each step, elsewhere only once they can answer.
pub(crate) fn tell<'a>(shared: &Shared, moved: impl Iterator<Item = (&'a Snapshot, bool)>) {
    let mut hints: Vec<Hint> = Vec::new();
    for (snapshot, new) in moved {
        let (id, version) = (snapshot.header.id, snapshot.saga.version);
        shared.hints.tell(id, version, Some(snapshot));
        if new {
            hints.push((id, version));
        }
    }
    if !hints.is_empty() && shared.options.hints && !shared.options.alone {
        shared.outbound.hint(&serde_json::to_string(&hints).expect("ids and numbers are JSON"));
    }
}

/// Hears what other instances tell.
pub(crate) async fn hear(shared: Arc<Shared>, mut hints: Box<dyn transport::Hints>) {
    loop {
        let hint = tokio::select! {
            biased;
            () = shared.tasks.stopping() => return,
            hint = hints.next() => hint,
        };
        let Some(hint) = hint else { return };
        match serde_json::from_str::<Vec<Hint>>(&hint) {
            Ok(hints) => {
                metrics::counter!("bookend_hints_heard_total").increment(hints.len() as u64);
                hints.into_iter().for_each(|(id, version)| shared.hints.tell(id, version, None));
            }
            Err(error) => tracing::debug!(%error, "a hint of another build is not understood"),
        }
    }
}

/// Looks at waited sagas every now and then, so many at a time, in case a hint was lost.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pause = PAUSE;
    let mut from = Uuid::nil();
    while shared.tasks.sleep(shared.options.hints_every).await {
        // Most sagas are decided sooner, and here.
        let Some(since) = Instant::now().checked_sub(shared.options.hints_every) else { continue };
        let round = shared.hints.waited(from, since);
        from = round.last().filter(|_| round.len() == ROUND_MAX).map_or(Uuid::nil(), |last| next(*last));
        if round.is_empty() {
            continue;
        }
        match shared.store.answered(&round).await {
            Ok(versions) => {
                pause.reset();
                versions.into_iter().for_each(|(id, version)| shared.hints.tell(id, version, None));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "waited sagas could not be looked at");
                pause.wait(&shared.tasks).await;
            }
        }
    }
}

fn next(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().wrapping_add(1))
}
