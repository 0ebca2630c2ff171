//! Measures now and then what no counter tells: open sagas by status, how full the outbox is, dead letters that wait, what
//! the process holds in memory.
//!
//! Not for what has ended, which is counted when it ends. Must hold: what is measured costs as much as is open or waits,
//! however many sagas have ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use saga_core::Status;

use crate::shared::Shared;

/// Measuring counts rows, each of which may be of a saga that sleeps: not too often.
const EVERY: Duration = Duration::from_secs(5);

pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        if let Err(error) = measure(&shared).await {
            tracing::debug!(error = %error, "the store could not be measured");
        }
        if !shared.tasks.sleep(EVERY).await {
            return;
        }
    }
}

/// What an engine holds in memory. A saga that sleeps is a row and nothing of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Sagas as they were committed last; at most [`crate::Options::hot_max`].
    pub hot: usize,
    /// Sagas that somebody waits for.
    pub waits: usize,
    /// Messages handed to the transport and not settled; at most [`crate::Options::in_flight_max`].
    pub on_their_way: usize,
}

impl Held {
    pub(crate) fn by(shared: &Shared) -> Self {
        Self { hot: shared.hot.len(), waits: shared.hints.len(), on_their_way: shared.outbound.len() }
    }
}

async fn measure(shared: &Shared) -> Result<(), saga_store::Error> {
    let held = Held::by(shared);
    metrics::gauge!("bookend_sagas_hot").set(held.hot as f64);
    metrics::gauge!("bookend_waits").set(held.waits as f64);
    let counts: BTreeMap<Status, u64> = shared.store.count_open().await?.into_iter().collect();
    // None is open in a status of which the store says nothing.
    for status in Status::ALL.into_iter().filter(|status| !status.is_ended()) {
        let count = counts.get(&status).copied().unwrap_or(0);
        metrics::gauge!("bookend_sagas", "status" => status.as_str()).set(count as f64);
    }
    let outbox = shared.store.outbox_load().await?;
    metrics::gauge!("bookend_outbox_pending").set(outbox.rows as f64);
    let waiting = shared.store.dead_letters_waiting().await?;
    metrics::gauge!("bookend_dead_letters_waiting").set(waiting as f64);
    metrics::gauge!("bookend_outbox_oldest_age_seconds").set(outbox.oldest_ms as f64 / 1_000.0);
    Ok(())
}
