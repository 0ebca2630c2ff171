//! `bench`: how fast the engine is, what a saga costs, and how that compares with what somebody writes who has none.
//!
//! Outside the product: nothing depends on it. Must hold: a figure is printed with all that is needed to repeat it; a
//! run in which an effect was doubled, or a saga did not end as it had to, is no figure but a failure.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people and scripts")]

mod args;

mod effects_sql;

mod job;

mod load;

mod meter;

mod baseline;

mod bare_sql;

mod bare;

mod world;

mod entry;

mod statements;

mod prefill_sql;

mod prefilled;

mod sizes;

mod report;

mod burst;

mod kill;

mod depth;

mod trace;

mod footprint;

mod sleepers;

mod floor_sql;

mod cases;

mod suite;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use args::{Batch, Cli, Command, Entrance, Output, RunArgs, Stack};
use clap::Parser;
use depth::Depths;
use job::Made;
use load::{Arrival, Load};
use meter::{Meter, Reading};
use mimalloc::MiMalloc;
use report::{Report, Window};
use testkit::services::PrivateServices;
use tokio::time::Instant;
use trace::Trace;
use world::{Setup, World};

/// As the product.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> anyhow::Result<()> {
    let command = Cli::parse().command;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if command.is_beside_services() {
        runtime.worker_threads(runtime::threads::beside_services());
    }
    runtime.enable_all().build()?.block_on(dispatch(command))
}

async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run(&args).await,
        Command::Burst(args) => burst::run(args).await,
        Command::Prefilled(args) => prefilled::run(args).await,
        Command::Kill(args) => kill::run(args).await,
        Command::Footprint(args) => footprint::run(args).await,
        Command::Sleepers(args) => sleepers::run(args).await,
        Command::Floor(args) => floor_sql::run(args).await,
        Command::Suite { quick: true, .. } => suite::quick(),
        Command::Suite { quick: false, repeats } => suite::full(repeats, &suite::page()),
        Command::Participants { postgres, amqp, of, batch } => {
            let setup = Setup { http: false, batch: batch == Batch::On, workers: None };
            world::participants(&postgres, &amqp, of, setup).await
        }
        Command::Orchestrator { postgres, amqp, in_flight } => kill::orchestrator(&postgres, &amqp, in_flight).await,
    }
}

async fn run(args: &RunArgs) -> anyhow::Result<()> {
    let load = load(args)?;
    if args.baseline && args.stack == Stack::Embedded {
        bail!("the baseline needs --stack services");
    }
    if args.trace_broker && args.stack == Stack::Embedded {
        bail!("there is a broker with --stack services only");
    }
    if args.bare.is_some() && (args.stack == Stack::Embedded || args.entry == Entrance::Http || args.prefill > 0) {
        bail!("--bare is for --stack services and --entry engine, and has nothing that could be prefilled");
    }
    let setup = Setup { http: args.entry == Entrance::Http, batch: args.batch == Batch::On, workers: args.workers };
    let world = match (args.stack, args.bare) {
        (Stack::Embedded, _) => World::embedded(setup).await?,
        (Stack::Services, Some(kind)) => World::bare(setup.batch, kind).await?,
        (Stack::Services, None) => World::on_services(setup).await?,
    };
    if args.prefill > 0 {
        world.prefill(args.prefill).await?;
    }
    let mut report = measure(args, load, world).await?;
    if args.baseline {
        report.compare(measure(args, load, World::baseline().await?).await?);
    }
    match args.output {
        Output::Text => say(&report.text()),
        Output::Json => say(&serde_json::to_string(&report)?),
    }
    if let Some(why) = report.void {
        bail!(why);
    }
    Ok(())
}

fn load(args: &RunArgs) -> anyhow::Result<Load> {
    let arrival = match (args.in_flight, args.rate) {
        (Some(in_flight), _) if in_flight > 0 => Arrival::Closed { in_flight },
        (None, Some(rate)) if rate > 0.0 => Arrival::Open { rate },
        (_, _) => bail!("give --in-flight N or --rate R, more than zero"),
    };
    if !(0.0..=1.0).contains(&args.refusals) {
        bail!("--refusals is a share from 0 to 1");
    }
    let (warm_up, window) = (Duration::try_from_secs_f64(args.warm_up)?, Duration::try_from_secs_f64(args.seconds)?);
    Ok(Load { arrival, warm_up, window, refusals: args.refusals })
}

/// Runs the load on a stack and ends the stack.
async fn measure(args: &RunArgs, load: Load, world: World) -> anyhow::Result<Report> {
    Meter::forget_peak()?;
    let look = Look { args, meter: Meter { groups: world.groups.clone() }, world: &world };
    let made_before = world.made().await?;
    let (first, last) = (RefCell::new(None), RefCell::new(None));
    let (opened, opens) = tokio::sync::oneshot::channel();
    eprintln!("{} s of warm-up, {} s of measuring", args.warm_up, args.seconds);
    let begin = async || {
        let read = look.begin().await;
        first.replace(Some(read));
        // Whoever watches has gone only when the run has failed.
        let _ = opened.send(Instant::now());
    };
    let end = async || {
        let read = look.end(first.take()).await;
        last.replace(Some(read));
    };
    let watching = async {
        match (load.arrival, opens.await) {
            (Arrival::Open { .. }, Ok(opened)) => depth::watch(&world, opened, load.window).await,
            (Arrival::Open { .. } | Arrival::Closed { .. }, _) => Ok(Depths::default()),
        }
    };
    let (measured, depths) = tokio::join!(load.run(Arc::clone(&world.entry), begin, end), watching);
    let (measured, depths) = (measured?, depths?);
    let window = last.take().context("the window never ended")??;
    let mut report = Report::new(args, &measured, window, look.meter.peak_rss_mb());
    report.watched(depths);
    let wanted = Made::by(measured.begun, load.refused(measured.begun));
    world.accounted(made_before.and(wanted)).await?;
    if let Some((_, vhost)) = &world.services {
        report.sent(meter::messages(vhost).await?, measured.begun);
    }
    world.end().await;
    Ok(report)
}

/// Reads what is counted at both ends of a window.
struct Look<'a> {
    args: &'a RunArgs,
    meter: Meter,
    world: &'a World,
}

/// What a window began with.
struct Begun {
    counters: Reading,
    trace: Option<Trace>,
}

impl Look<'_> {
    /// The database, where its statements are counted.
    fn counted(&self) -> Option<&PrivateServices> {
        self.world.services.as_ref().filter(|_| self.args.statements).map(|(services, _)| services)
    }

    async fn begin(&self) -> anyhow::Result<Begun> {
        if let Some(services) = self.counted() {
            statements::reset(services).await?;
        }
        let counters = self.meter.read(self.world.services.as_ref()).await?;
        let trace = if self.args.trace_broker { Trace::begin(&self.world.groups).await? } else { None };
        Ok(Begun { counters, trace })
    }

    async fn end(&self, begun: Option<anyhow::Result<Begun>>) -> anyhow::Result<Window> {
        let Begun { counters: before, trace } = begun.context("the window never began")??;
        let broker_fsyncs = match trace {
            Some(trace) => Some(trace.end().await),
            None => None,
        };
        let after = self.meter.read(self.world.services.as_ref()).await?;
        let statements = match self.counted() {
            Some(services) => statements::read(services).await?,
            None => Vec::new(),
        };
        Ok(Window { before, after, statements, broker_fsyncs })
    }
}

fn say(line: &str) {
    println!("{line}");
}
