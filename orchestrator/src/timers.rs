//! Wakes sagas that are due.
//!
//! Must hold: a claim only pushes `wake_at`, so a claimer that dies delays a saga and never loses it.

use std::sync::Arc;

use crate::shared::Shared;
use crate::work::Work;

/// How far a claimed saga's `wake_at` is pushed; its transition sets it anew.
const PUSH_MS: u64 = 2_000;
/// Sagas claimed at once.
const CLAIM_MAX: u64 = 256;

pub(crate) async fn run(shared: Arc<Shared>) {
    while shared.tasks.sleep(shared.options.timers_every).await {
        loop {
            let due = match shared.store.claim_timers(CLAIM_MAX, PUSH_MS).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(error = %error, "due sagas could not be claimed");
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
