//! Many sagas asked for at once: how long until the last one has ended, and what they hold in memory meanwhile and after.
//!
//! Must hold: a start that is refused because the engine is at its limit is asked again, as a client does; who waits
//! holds nothing but a task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::time::Instant;

use crate::args::{BurstArgs, Stack};
use crate::job::Made;
use crate::load::Load;
use crate::meter::Meter;
use crate::say;
use crate::world::{Setup, World};

/// What the burst is compared with.
const USUAL_IN_FLIGHT: usize = 256;
/// When memory is looked at again.
const AFTER: Duration = Duration::from_secs(30);
/// Between two looks at how many are accepted and have not ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn run(args: BurstArgs) -> anyhow::Result<()> {
    let setup = Setup { http: false, batch: true, workers: None };
    let world = match args.stack {
        Stack::Embedded => World::embedded(setup).await?,
        Stack::Services => World::on_services(setup).await?,
    };
    let meter = Meter { groups: world.groups.clone() };
    let usual = Load {
        arrival: crate::load::Arrival::Closed { in_flight: USUAL_IN_FLIGHT },
        warm_up: Duration::from_secs(1),
        window: Duration::from_secs(5),
        refusals: 0.0,
    };
    let made_before = world.made().await?;
    let begun = usual.run(Arc::clone(&world.entry), async || {}, async || {}).await?.begun;
    let (usual_peak, usual_now) = (meter.peak_rss_mb(), meter.rss_mb());
    eprintln!("{} sagas at once", args.sagas);
    let began = Instant::now();
    let mut flights: FuturesUnordered<_> = (0..args.sagas)
        .map(|number| {
            let entry = Arc::clone(&world.entry);
            // Apart from the numbers of the load before.
            async move { entry.run(u64::MAX / 2 + number, false).await }
        })
        .collect();
    let mut open_at_most = 0;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let open = || world.engine.as_ref().map_or(0, |engine| engine.held().waits);
    loop {
        tokio::select! {
            ended = flights.next() => match ended {
                Some(ended) => ended?,
                None => break,
            },
            _ = looks.tick() => open_at_most = open_at_most.max(open()),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let peak = meter.peak_rss_mb();
    tokio::time::sleep(AFTER).await;
    let after = meter.rss_mb();
    world.accounted(made_before.and(Made::by(begun + args.sagas, 0))).await?;
    world.end().await;
    let times = |of: &BTreeMap<&'static str, f64>, to: &BTreeMap<&'static str, f64>| -> BTreeMap<&'static str, f64> {
        of.iter().filter_map(|(name, value)| Some((*name, value / to.get(name)?))).collect()
    };
    let report = json!({
        "sagas": args.sagas,
        "seconds": seconds,
        "open_at_most": open_at_most,
        "peak_rss_mb": peak,
        "peak_of_usual": times(&peak, &usual_peak),
        "rss_mb_after": after,
        "after_of_usual": times(&after, &usual_now),
    });
    say(&report.to_string());
    Ok(())
}
