//! Sends what nobody sent: due outbox rows, left by a full queue, a lost message or a dead instance.
//!
//! Two tasks: one hears which messages are safe and deletes their rows where no commit did, one keeps rows on their way
//! from falling due and claims those that are. Must hold: a row is deleted only after its confirmation; nothing is claimed
//! while the transport is out of reach, because each claim of a row puts off the next, and what waited through an outage
//! must leave at its end.

use std::sync::Arc;
use std::time::Duration;

use runtime::Pause;
use tokio::time::Instant;

use crate::shared::Shared;

/// How far a claimed or travelling row's `due_at` is pushed.
const PUSH_MS: u64 = 1_000;
/// Rows claimed at once.
const CLAIM_MAX: u64 = 256;
/// How often rows are deleted that no commit took along.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// How long a shutdown waits for the fates of messages on their way.
const DRAIN: Duration = Duration::from_secs(1);
/// Wait after the store failed, doubled up to its bound.
const PAUSE: Pause = Pause::new(Duration::from_millis(200), Duration::from_secs(2));

/// Hears which messages are safe, and deletes the rows of those that no commit took along: a busy engine leaves none.
pub(crate) async fn confirm(shared: Arc<Shared>) {
    let mut pause = PAUSE;
    let mut sweep_at = Instant::now() + SWEEP_EVERY;
    loop {
        tokio::select! {
            biased;
            () = shared.tasks.stopping() => break,
            () = tokio::time::sleep_until(sweep_at) => {
                if sweep(&shared).await {
                    pause.reset();
                } else {
                    pause.wait(&shared.tasks).await;
                }
                sweep_at = Instant::now() + SWEEP_EVERY;
            }
            () = shared.outbound.hear() => {}
        }
    }
    // What was done is not left behind as if it was not: the next start would send it again.
    let drained = async {
        while !shared.outbound.rows_in_flight().is_empty() {
            shared.outbound.hear().await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, drained).await;
    sweep(&shared).await;
}

/// Deletes what is safe. False when the store failed.
async fn sweep(shared: &Shared) -> bool {
    let safe = shared.outbound.take_safe();
    if safe.is_empty() {
        return true;
    }
    match shared.store.confirm_outbox(&safe).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                rows = safe.len(),
                "confirmed outbox rows could not be deleted"
            );
            shared.outbound.give_safe_back(safe);
            false
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
    let in_flight = shared.outbound.rows_in_flight();
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
        let all = shared.outbound.publish(&rows);
        if !all || (rows.len() as u64) < room {
            return Ok(());
        }
    }
}
