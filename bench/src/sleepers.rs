//! Many sagas that sleep: what they cost the memory of the engine's process, and the sagas that are awake.
//!
//! Must hold: every sleeper has been asked and put off before anything is measured, so that it waits for a timer and not
//! for a message; memory is compared after equal work, so that what any load leaves behind is not blamed on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt};
use orchestrator::Engine;
use serde_json::json;
use tokio::time::Instant;

use crate::args::{SleepersArgs, Stack};
use crate::entry::nap;
use crate::load::{Arrival, Load};
use crate::meter::Meter;
use crate::say;
use crate::world::{Setup, World};

/// Sleepers started at a time.
const AT_ONCE: usize = 512;
/// Longest wait for the last of them to fall asleep.
const ASLEEP_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Idle time before memory is read.
const CALM: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: SleepersArgs) -> anyhow::Result<()> {
    let setup = Setup { http: false, batch: true, workers: None };
    let world = match args.stack {
        Stack::Embedded => World::embedded(setup).await?,
        Stack::Services => World::on_services(setup).await?,
    };
    let engine = world.engine.clone().context("there is an engine")?;
    let meter = Meter { groups: world.groups.clone() };
    let awake = Load {
        arrival: Arrival::Closed { in_flight: 256 },
        warm_up: Duration::from_secs(2),
        window: Duration::from_secs(6),
        refusals: 0.0,
    };
    let rate_before = rate(&awake, &world).await?;
    tokio::time::sleep(CALM).await;
    let (before, held_before) = (meter.rss_mb(), engine.held());
    eprintln!("{} sagas fall asleep", args.sagas);
    let began = Instant::now();
    let naps = futures_util::stream::iter(0..args.sagas).map(|number| nap(&engine, number));
    naps.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    until_asleep(&engine, args.sagas).await?;
    let seconds = began.elapsed().as_secs_f64();
    tokio::time::sleep(CALM).await;
    let (asleep, held) = (meter.rss_mb(), engine.held());
    let rate_after = rate(&awake, &world).await?;
    let doubled = world.doubled().await?;
    world.end().await;
    if doubled > 0 {
        bail!("{doubled} effects were made more than once");
    }
    let grown = asleep.iter().filter_map(|(name, value)| Some((*name, value - before.get(name)?)));
    let report = json!({
        "sleepers": args.sagas,
        "seconds_to_fall_asleep": seconds,
        "rss_mb_before": before,
        "rss_mb_asleep": asleep,
        "grown_mb": grown.collect::<BTreeMap<&str, f64>>(),
        "hot_sagas": [held_before.hot, held.hot],
        "waits": [held_before.waits, held.waits],
        "sagas_per_second_before": rate_before,
        "sagas_per_second_asleep": rate_after,
    });
    say(&report.to_string());
    Ok(())
}

async fn rate(load: &Load, world: &World) -> anyhow::Result<f64> {
    let measured = load.run(Arc::clone(&world.entry), async || {}, async || {}).await?;
    Ok(measured.sagas as f64 / measured.seconds)
}

/// Waits until no message is under way any more: each sleeper was put off, or its answer is still being committed, which
/// the pause before the measurement covers.
async fn until_asleep(engine: &Engine, sagas: u64) -> anyhow::Result<()> {
    let limit = Instant::now() + ASLEEP_MAX;
    while engine.store().outbox_load().await?.rows > 0 || engine.held().on_their_way > 0 {
        if Instant::now() > limit {
            bail!("{sagas} sagas are not asleep after {} s", ASLEEP_MAX.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
