//! How much waits in the outbox and in the broker's queues while sagas arrive at a rate.
//!
//! A backlog that grows is an engine that does not keep up, however good its latencies look at first. Must hold: a depth
//! is the median of many looks, because single ones swing by what a commit writes; looking costs next to nothing.

use std::time::Duration;

use testkit::services::Vhost;
use tokio::time::Instant;

use crate::world::World;

/// When the first figure is taken.
const FIRST_AT: Duration = Duration::from_secs(10);
/// How long before an instant looks are taken, and how often.
const SPAN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Rows and messages that wait; a queue's messages are ready or unacknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Depth {
    pub(crate) outbox: Option<f64>,
    pub(crate) queued: Option<f64>,
}

/// The depths of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Depths {
    pub(crate) at_10s: Depth,
    pub(crate) at_end: Depth,
}

/// Watches a window that begins now; the last looks are over when it is. A window that is too short has no depths.
pub(crate) async fn watch(world: &World, opened: Instant, window: Duration) -> anyhow::Result<Depths> {
    if window < FIRST_AT + SPAN {
        return Ok(Depths::default());
    }
    let at_10s = around(world, opened + FIRST_AT).await?;
    let at_end = around(world, opened + window).await?;
    Ok(Depths { at_10s, at_end })
}

async fn around(world: &World, until: Instant) -> anyhow::Result<Depth> {
    tokio::time::sleep_until(until - SPAN).await;
    let (mut outbox, mut queued) = (Vec::new(), Vec::new());
    // The last look begins early enough to be over in time.
    while Instant::now() + LOOK_EVERY < until {
        if let Some(engine) = &world.engine {
            outbox.push(engine.store().outbox_load().await?.rows as f64);
        }
        if let Some((_, vhost)) = &world.services {
            queued.push(messages(vhost).await?);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(Depth { outbox: median(outbox), queued: median(queued) })
}

async fn messages(vhost: &Vhost) -> anyhow::Result<f64> {
    Ok(vhost.messages().await? as f64)
}

/// The upper of the two in the middle, where there are two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}
