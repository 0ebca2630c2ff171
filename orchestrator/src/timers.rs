//! Wakes sagas that are due.
//!
//! Must hold: a claim only pushes `wake_at`, so a claimer that dies delays a saga and never loses it.

use std::sync::Arc;
use std::time::Duration;

use runtime::Pause;

use crate::shared::Shared;
use crate::work::Work;

/// How far a claimed saga's `wake_at` is pushed; its transition sets it anew. As long as a claimer that dies delays it, so
/// no longer than an outbox row is: all is to be decided within two seconds of a kill. A turn that takes longer lets the
/// saga be claimed once more, which finds it moved.
const PUSH_MS: u64 = 1_000;
/// Sagas claimed at once.
const CLAIM_MAX: u64 = 256;

/// Wait after the store failed, doubled up to its bound.
const PAUSE: Pause = Pause::new(Duration::from_millis(200), Duration::from_secs(2));

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pause = PAUSE;
    while shared.tasks.sleep(shared.options.timers_every).await {
        loop {
            let due = match shared.store.claim_timers(CLAIM_MAX, PUSH_MS).await {
                Ok(due) => {
                    pause.reset();
                    due
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "due sagas could not be claimed");
                    pause.wait(&shared.tasks).await;
                    break;
                }
            };
            let full = due.len() as u64 == CLAIM_MAX;
            for saga_id in due {
                if shared.worker(saga_id).send(Work::Tick { saga_id }).await.is_err() {
                    return;
                }
            }
            if !full {
                break;
            }
        }
    }
}
