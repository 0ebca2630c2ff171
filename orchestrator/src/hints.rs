//! Wakes those who wait for a saga, in this process and in others.
//!
//! A hint is one message for all sagas of a commit that can answer a wait. Hints may be lost: whoever waits also looks at
//! the row, and all waited sagas are asked for in one query every now and then. Must hold: subscribe, then read the row, then wait; never the other way round.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::Pause;
use tokio::sync::watch;
use uuid::Uuid;

use crate::shared::Shared;

/// Wait after the store failed, doubled up to its bound.
const PAUSE: Pause = Pause::new(Duration::from_millis(200), Duration::from_secs(2));

/// A saga and the version that it has reached.
pub(crate) type Hint = (Uuid, u64);

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    waited: Mutex<BTreeMap<Uuid, watch::Sender<u64>>>,
}

impl Hints {
    /// Hears of every version from now on that may answer a wait.
    pub(crate) fn subscribe(&self, saga_id: Uuid) -> watch::Receiver<u64> {
        let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        waited.retain(|_, sender| sender.receiver_count() > 0);
        waited.entry(saga_id).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Tells that a saga has reached this version.
    pub(crate) fn tell(&self, saga_id: Uuid, version: u64) {
        let waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waited.get(&saga_id) {
            sender.send_if_modified(|known| std::mem::replace(known, version.max(*known)) < version);
        }
    }

    fn waited(&self) -> Vec<Uuid> {
        let waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        waited.iter().filter(|(_, sender)| sender.receiver_count() > 0).map(|(id, _)| *id).collect()
    }
}

/// Tells everyone who waits for these sagas, here and elsewhere.
pub(crate) fn tell(shared: &Shared, hints: &[Hint]) {
    if hints.is_empty() {
        return;
    }
    hints.iter().for_each(|&(id, version)| shared.hints.tell(id, version));
    if shared.options.hints && !shared.options.alone {
        shared.outbound.hint(&serde_json::to_string(hints).expect("ids and numbers are JSON"));
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
                hints.into_iter().for_each(|(id, version)| shared.hints.tell(id, version));
            }
            Err(error) => tracing::debug!(%error, "a hint of another build is not understood"),
        }
    }
}

/// Looks at all waited sagas every now and then, in case a hint was lost.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pause = PAUSE;
    while shared.tasks.sleep(shared.options.hints_every).await {
        let waited = shared.hints.waited();
        if waited.is_empty() {
            continue;
        }
        match shared.store.versions(&waited).await {
            Ok(versions) => {
                pause.reset();
                versions.into_iter().for_each(|(id, version)| shared.hints.tell(id, version));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "waited sagas could not be looked at");
                pause.wait(&shared.tasks).await;
            }
        }
    }
}
