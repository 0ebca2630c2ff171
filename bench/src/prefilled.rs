//! With many finished sagas and with none, beside each other: rates, pages touched, and what still more would take.
//!
//! Must hold: the runs alternate, so that a slow minute of the machine falls on both; the side that does not run is idle;
//! which of the two begins a pair changes from pair to pair; pages are counted in the windows alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{Connection, query};
use serde_json::{Value, json};
use testkit::services::PrivateServices;

use crate::args::PrefilledArgs;
use crate::depth::median;
use crate::job::Made;
use crate::load::{Arrival, Entry, Load};
use crate::meter;
use crate::sizes::Sizes;
use crate::statements::{self, Statement};
use crate::world::{Setup, World};

/// What is wanted of the median ratio.
const RATIO: f64 = 0.9;
/// How far pages per saga may be from each other, of a statement that counts.
const DEVIATION: f64 = 0.05;
/// The share of all pages from which on a statement counts.
const HOT: f64 = 0.01;
/// Numbers between two runs, so that no start key comes twice.
const APART: u64 = 100_000_000;

pub(crate) async fn run(args: PrefilledArgs) -> anyhow::Result<()> {
    let setup = Setup { http: false, batch: true, workers: None };
    let (mut empty, mut full) =
        (Side::new(World::on_services(setup).await?), Side::new(World::on_services(setup).await?));
    let began = tokio::time::Instant::now();
    full.world.prefill(args.sagas).await?;
    full.made_before = full.world.made().await?;
    let filled_in = began.elapsed().as_secs_f64();
    eprintln!("{} finished sagas in {filled_in:.0} s", args.sagas);
    let (before, done_before) = (Sizes::read(full.services()?).await?, full.ended().await?);

    let load = args.load(args.seconds)?;
    let mut pairs = Vec::new();
    for pair in 0..args.pairs {
        let (one, other) = if pair % 2 == 0 { (&mut full, &mut empty) } else { (&mut empty, &mut full) };
        let (first, second) = (one.run(load).await?, other.run(load).await?);
        let (with, without) = if pair % 2 == 0 { (first, second) } else { (second, first) };
        eprintln!("{with:.0} sagas/s with, {without:.0} without, ratio {:.2}", with / without);
        pairs.push((with, without));
    }
    let (after, done) = (Sizes::read(full.services()?).await?, full.ended().await? - done_before);
    let empty_now = Sizes::read(empty.services()?).await?;
    let compared = Compared::new(&full, &empty);
    let sagas = args.sagas as f64;
    let times = args.computed_for as f64 / sagas;
    let more = after.more_pages(&before, done, sagas, times);
    let report = json!({
        "sagas": args.sagas,
        "filled_in_seconds": filled_in,
        "pairs": pairs.iter().map(|(with, without)| json!({
            "prefilled": with, "empty": without, "ratio": with / without
        })).collect::<Vec<_>>(),
        "median_ratio": median(pairs.iter().map(|(with, without)| with / without)),
        "median_ratio_wanted": RATIO,
        "statements": compared.statements(more),
        "greatest_deviation": compared.greatest(),
        "greatest_deviation_wanted": DEVIATION,
        "wal_bytes_per_saga": {"prefilled": full.wal_per_saga(0), "empty": empty.wal_per_saga(0)},
        "wal_page_images_per_saga": {"prefilled": full.wal_per_saga(1), "empty": empty.wal_per_saga(1)},
        "bytes_per_finished_saga": {
            "prefilled": before.bytes_per_saga(sagas),
            "empty_after_its_runs": empty_now.bytes_per_saga(empty.ended().await?),
        },
        "computed": {
            "sagas": args.computed_for,
            "bytes": before.bytes() * times,
            "bytes_as_runs_leave_them": empty_now.bytes() / empty.ended().await? * args.computed_for as f64,
            "levels_now_and_then": before.levels(sagas, times),
            "pages_more_per_saga": {"engine": more.0, "participants": more.1},
        },
        "snapshot": snapshot(&mut full, args.load(args.snapshot_seconds)?).await?,
        "sizes": before,
    });
    for side in [&full, &empty] {
        side.accounted().await?;
    }
    crate::say(&report.to_string());
    for side in [full, empty] {
        side.world.end().await;
    }
    Ok(())
}

impl PrefilledArgs {
    fn load(&self, seconds: f64) -> anyhow::Result<Load> {
        let (warm_up, window) = (Duration::try_from_secs_f64(self.warm_up)?, Duration::try_from_secs_f64(seconds)?);
        Ok(Load { arrival: Arrival::Closed { in_flight: self.in_flight }, warm_up, window, refusals: 0.0 })
    }
}

/// A run without, then one beside a transaction that has read something and stays open, as a dump does.
async fn snapshot(side: &mut Side, load: Load) -> anyhow::Result<Value> {
    let without = side.run(load).await?;
    let mut dump = PgConnection::connect(side.services()?.postgres_url()).await?;
    query("begin isolation level repeatable read read only").execute(&mut dump).await?;
    query("select id from engine.sagas limit 1").execute(&mut dump).await?;
    let with = side.run(load).await?;
    query("rollback").execute(&mut dump).await?;
    Ok(json!({"open": with, "none": without, "ratio": with / without, "seconds": load.window.as_secs_f64()}))
}

/// A stack, and what its runs have come to.
struct Side {
    world: World,
    runs: u64,
    /// What was there before the first run.
    made_before: Made,
    begun: u64,
    sagas: f64,
    statements: BTreeMap<String, Statement>,
    /// Bytes of the log, and images of whole pages in it.
    wal: [f64; 2],
}

impl Side {
    fn new(world: World) -> Self {
        Self {
            world,
            runs: 0,
            made_before: Made::default(),
            begun: 0,
            sagas: 0.0,
            statements: BTreeMap::new(),
            wal: [0.0; 2],
        }
    }

    fn services(&self) -> anyhow::Result<&PrivateServices> {
        self.world.services.as_ref().map(|(services, _)| services).context("a stack without services")
    }

    /// One window; sagas per second. Ends when nothing is under way any more.
    async fn run(&mut self, load: Load) -> anyhow::Result<f64> {
        self.runs += 1;
        let entry = Arc::new(Numbered { entry: Arc::clone(&self.world.entry), first: self.runs * APART });
        let services = self.services()?;
        let (mut before, mut after) = (None, None);
        let begin = async || before = Some(reset(services).await);
        let end = async || after = Some(read(services).await);
        let measured = load.run(entry, begin, end).await?;
        let wal = before.context("the window never began")??;
        let (statements, wal_after) = after.context("the window never ended")??;
        for (sum, (after, before)) in self.wal.iter_mut().zip(wal_after.iter().zip(wal)) {
            *sum += after - before;
        }
        for (text, more) in statements {
            let sum = self.statements.entry(text).or_insert_with(|| Statement { calls: 0.0, ..more.clone() });
            if sum.calls == 0.0 {
                *sum = more;
            } else {
                (sum.calls, sum.ms) = (sum.calls + more.calls, sum.ms + more.ms);
                (sum.rows, sum.buffers) = (sum.rows + more.rows, sum.buffers + more.buffers);
            }
        }
        self.sagas += measured.sagas as f64;
        self.begun += measured.begun;
        Ok(measured.sagas as f64 / measured.seconds)
    }

    async fn ended(&self) -> anyhow::Result<f64> {
        self.count("select count(*) from engine.sagas;").await
    }

    async fn count(&self, sql: &str) -> anyhow::Result<f64> {
        Ok(self.services()?.query(sql).await?.trim().parse()?)
    }

    fn wal_per_saga(&self, which: usize) -> f64 {
        self.wal[which] / self.sagas.max(1.0)
    }

    /// Whether all its sagas made the effects they had to, and once.
    async fn accounted(&self) -> anyhow::Result<()> {
        self.world.accounted(self.made_before.and(Made::by(self.begun, 0))).await
    }
}

async fn reset(services: &PrivateServices) -> anyhow::Result<[f64; 2]> {
    statements::reset(services).await?;
    written(services).await
}

async fn read(services: &PrivateServices) -> anyhow::Result<(BTreeMap<String, Statement>, [f64; 2])> {
    Ok((statements::all(services).await?, written(services).await?))
}

async fn written(services: &PrivateServices) -> anyhow::Result<[f64; 2]> {
    meter::numbers(services, "select wal_bytes, wal_fpi from pg_stat_wal;").await
}

/// An entry whose sagas are numbered from somewhere on.
struct Numbered {
    entry: Arc<dyn Entry>,
    first: u64,
}

#[async_trait]
impl Entry for Numbered {
    async fn run(&self, number: u64, refuse: bool) -> anyhow::Result<()> {
        self.entry.run(self.first + number, refuse).await
    }
}

/// Statements of both sides.
struct Compared<'a> {
    full: &'a Side,
    empty: &'a Side,
}

impl<'a> Compared<'a> {
    fn new(full: &'a Side, empty: &'a Side) -> Self {
        Self { full, empty }
    }

    fn hot(&self, text: &str) -> bool {
        [self.full, self.empty].into_iter().any(|side| {
            let all: f64 = side.statements.values().map(|statement| statement.buffers).sum();
            side.statements.get(text).is_some_and(|statement| statement.buffers > all * HOT)
        })
    }

    /// The dearest first; `more` are pages per saga that deeper indexes would add, for the engine and the participants,
    /// shared out in proportion to what each statement touches now.
    fn statements(&self, more: (f64, f64)) -> Vec<Value> {
        let ours = |text: &str| text.contains("inbox") || text.contains("effects");
        let pages = |participants: bool| -> f64 {
            let of_these = self.full.statements.iter().filter(|(text, _)| ours(text) == participants);
            of_these.map(|(_, statement)| statement.buffers).sum::<f64>() / self.full.sagas
        };
        let (engine, participants) = (pages(false), pages(true));
        let mut told: Vec<(&String, &Statement)> = self.full.statements.iter().collect();
        told.sort_by(|(_, one), (_, other)| other.buffers.total_cmp(&one.buffers));
        let tell = |(text, with): (&String, &Statement)| {
            let without = self.empty.statements.get(text);
            let share = if ours(text) { more.1 / participants } else { more.0 / engine };
            let per = |statement: &Statement, by: f64| statement.buffers / by.max(1.0);
            json!({
                "statement": text,
                "hot": self.hot(text),
                "pages_per_call": {
                    "prefilled": per(with, with.calls), "empty": without.map(|without| per(without, without.calls)),
                    "computed": per(with, with.calls) * (1.0 + share),
                },
                "pages_per_saga": {
                    "prefilled": per(with, self.full.sagas), "empty": without.map(|without| per(without, self.empty.sagas)),
                    "computed": per(with, self.full.sagas) * (1.0 + share),
                },
                "calls": {"prefilled": with.calls, "empty": without.map(|without| without.calls)},
                "us_per_saga": {
                    "prefilled": with.ms * 1_000.0 / self.full.sagas,
                    "empty": without.map(|without| without.ms * 1_000.0 / self.empty.sagas),
                },
            })
        };
        told.into_iter().map(tell).collect()
    }

    /// Of pages per saga, of a statement that counts.
    fn greatest(&self) -> Option<Value> {
        let deviation = |(text, with): (&String, &Statement)| {
            let without = self.empty.statements.get(text)?;
            let (with, without) = (with.buffers / self.full.sagas, without.buffers / self.empty.sagas);
            Some((text.clone(), with / without - 1.0))
        };
        let hot = self.full.statements.iter().filter(|(text, _)| self.hot(text)).filter_map(deviation);
        let greatest = hot.max_by(|(_, one), (_, other)| one.abs().total_cmp(&other.abs()))?;
        Some(json!({"statement": greatest.0, "share": greatest.1}))
    }
}
