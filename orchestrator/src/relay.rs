//! Sends what nobody sent: due outbox rows, left by a full queue, a lost message or a dead instance.
//!
//! Two tasks: one deletes rows whose messages are safe, one keeps rows on their way from falling due and claims
//! those that are. Must hold: a row is deleted only after its confirmation; nothing is claimed while the transport is
//! out of reach, because each claim of a row puts off the next, and what waited through an outage must leave at its end.

use std::sync::Arc;
use std::time::Duration;

use runtime::Pause;
use uuid::Uuid;

use crate::shared::Shared;

/// How far a claimed or travelling row's `due_at` is pushed.
const PUSH_MS: u64 = 1_000;
/// Rows claimed at once.
const CLAIM_MAX: u64 = 256;
/// Wait after the store failed, doubled up to its bound.
const PAUSE: Pause = Pause::new(Duration::from_millis(200), Duration::from_secs(2));

/// Deletes the rows of confirmed messages; what is confirmed during a delete shares the next one.
pub(crate) async fn confirm(shared: Arc<Shared>) {
    let mut confirmed: Vec<Uuid> = Vec::new();
    let mut pause = PAUSE;
    loop {
        tokio::select! {
            biased;
            ids = shared.outbound.confirmed() => confirmed.extend(ids),
            () = shared.tasks.stopping() => return,
        }
        match shared.store.confirm_outbox(&confirmed).await {
            Ok(()) => {
                confirmed.clear();
                pause.reset();
            }
            // The rows stay and are sent again; the participants know the commands.
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    rows = confirmed.len(),
                    "confirmed outbox rows could not be deleted"
                );
                confirmed.truncate(shared.options.in_flight_max);
                if !pause.wait(&shared.tasks).await {
                    return;
                }
            }
        }
    }
}

/// Extends what is on its way, then claims and publishes what is due.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pause = PAUSE;
    while shared.tasks.sleep(shared.options.relay_every).await {
        match turn(&shared).await {
            Ok(()) => pause.reset(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the outbox could not be relayed");
                pause.wait(&shared.tasks).await;
            }
        }
    }
}

async fn turn(shared: &Shared) -> Result<(), saga_store::Error> {
    let in_flight = shared.outbound.in_flight();
    if !in_flight.is_empty() {
        shared.store.extend_outbox(&in_flight, PUSH_MS).await?;
    }
    loop {
        let room = CLAIM_MAX.min(shared.outbound.room() as u64);
        if room == 0 {
            return Ok(());
        }
        let rows = shared.store.claim_outbox(room, PUSH_MS).await?;
        metrics::counter!("bookend_outbox_relayed_total").increment(rows.len() as u64);
        shared.outbound.publish(&rows);
        if (rows.len() as u64) < room {
            return Ok(());
        }
    }
}
