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

mod suite;

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use args::{Batch, Cli, Command, Entrance, Output, RunArgs, Stack};
use clap::Parser;
use depth::Depths;
use load::{Arrival, Load};
use meter::Meter;
use mimalloc::MiMalloc;
use report::Report;
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
    if let Some(why) = report.void() {
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
    let meter = Meter { groups: world.groups.clone() };
    let (mut before, mut first, mut trace) = (None, None, None);
    let (opened, opens) = tokio::sync::oneshot::channel();
    let mut opened = Some(opened);
    eprintln!("{} s of warm-up, {} s of measuring", args.warm_up, args.seconds);
    let counted = world.services.as_ref().filter(|_| args.statements).map(|(services, _)| services);
    let begin = async || {
        before = Some(match counted {
            Some(services) => statements::reset(services).await,
            None => Ok(()),
        });
        if let Some(Ok(())) = before {
            first = Some(meter.read(world.services.as_ref()).await);
        }
        if args.trace_broker {
            trace = Some(Trace::begin(&world.groups).await);
        }
        // Whoever watches has gone only when the run has failed.
        let _ = opened.take().map(|opened| opened.send(Instant::now()));
    };
    let watching = async {
        match (load.arrival, opens.await) {
            (Arrival::Open { .. }, Ok(opened)) => depth::watch(&world, opened, load.window).await,
            (Arrival::Open { .. } | Arrival::Closed { .. }, _) => Ok(Depths::default()),
        }
    };
    let (measured, depths) = tokio::join!(load.run(Arc::clone(&world.entry), begin), watching);
    let (measured, depths) = (measured?, depths?);
    before.transpose()?;
    let broker_fsyncs = match trace.transpose()?.flatten() {
        Some(trace) => Some(trace.end().await),
        None => None,
    };
    let after = meter.read(world.services.as_ref()).await?;
    let mut report = Report::new(args, &measured, &first.transpose()?.unwrap_or_default(), &after, meter.peak_rss_mb());
    if let Some(services) = counted {
        report.statements = statements::read(services).await?;
    }
    report.watched(depths, broker_fsyncs);
    let doubled = world.doubled().await?;
    world.end().await;
    if doubled > 0 {
        bail!("{doubled} effects were made more than once");
    }
    Ok(report)
}

fn say(line: &str) {
    println!("{line}");
}
