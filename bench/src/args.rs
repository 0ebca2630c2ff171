//! The command line: what can be measured, and how.
//!
//! Not for what the words do. Must hold: each word and its defaults are told by `--help`.

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(about = "Measures the engine")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs sagas and prints one report.
    Run(RunArgs),
    /// Asks for many sagas at once and waits until all have ended; prints times and memory.
    Burst(BurstArgs),
    /// Measures beside each other with many finished sagas and with none; prints ratios and what the database touched.
    Prefilled(PrefilledArgs),
    /// Kills one of two orchestrators with sagas in flight and waits until the other has ended all; prints times.
    Kill(KillArgs),
    /// Starts the embedded product; prints the time until it is ready, its memory and its size.
    Footprint(FootprintArgs),
    /// Lets many sagas sleep; prints what that costs memory and those that are awake.
    Sleepers(SleepersArgs),
    /// Writes a saga's rows to SQLite and does nothing else; prints what that takes.
    Floor(FloorArgs),
    /// Makes all the runs of `docs/benchmarks.md` and writes its tables.
    Suite {
        /// Only a short look, with floors, and nothing is written.
        #[arg(long)]
        quick: bool,
        /// How often each run is made; the median is told.
        #[arg(long, default_value_t = 3)]
        repeats: usize,
    },
    /// The participants of a run, as a process of their own.
    #[command(hide = true)]
    Participants {
        #[arg(long)]
        postgres: String,
        #[arg(long)]
        amqp: String,
        #[arg(long, value_enum)]
        of: Side,
        #[arg(long, value_enum, default_value_t = Batch::On)]
        batch: Batch,
    },
    /// An orchestrator with clients of its own, as a process of its own.
    #[command(hide = true)]
    Orchestrator {
        #[arg(long)]
        postgres: String,
        #[arg(long)]
        amqp: String,
        #[arg(long)]
        in_flight: usize,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// What to run on.
    #[arg(long, value_enum)]
    pub(crate) stack: Stack,
    /// Where sagas enter.
    #[arg(long, value_enum, default_value_t = Entrance::Engine)]
    pub(crate) entry: Entrance,
    /// Whether many commands and replies share a message.
    #[arg(long, value_enum, default_value_t = Batch::On)]
    pub(crate) batch: Batch,
    /// So many sagas at a time.
    #[arg(long, conflicts_with = "rate", required_unless_present = "rate")]
    pub(crate) in_flight: Option<usize>,
    /// So many new sagas per second.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Length of the window.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Time before the window.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) warm_up: f64,
    /// Share of sagas whose third step refuses.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) refusals: f64,
    /// Runs the baseline, too, and compares.
    #[arg(long)]
    pub(crate) baseline: bool,
    /// Instead of the engine a program that writes the rows and sends the messages of a saga and does nothing else.
    #[arg(long, value_enum, conflicts_with = "workers")]
    pub(crate) bare: Option<BareKind>,
    /// Workers of the engine; as many as the product has, unless given.
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// Writes so many finished sagas first.
    #[arg(long, default_value_t = 0)]
    pub(crate) prefill: u64,
    /// Tells what each statement costs the database.
    #[arg(long)]
    pub(crate) statements: bool,
    /// Counts the broker's fsyncs with strace, which makes it slow: times of such a run are no figures.
    #[arg(long)]
    pub(crate) trace_broker: bool,
    /// How to print the report.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct BurstArgs {
    /// What to run on.
    #[arg(long, value_enum)]
    pub(crate) stack: Stack,
    /// How many.
    #[arg(long, default_value_t = 25_000)]
    pub(crate) sagas: u64,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct PrefilledArgs {
    /// Finished sagas on the side that has some.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) sagas: u64,
    /// Runs of each side.
    #[arg(long, default_value_t = 5)]
    pub(crate) pairs: usize,
    /// Length of each window.
    #[arg(long, default_value_t = 8.0)]
    pub(crate) seconds: f64,
    /// Time before each window.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) warm_up: f64,
    /// So many sagas at a time.
    #[arg(long, default_value_t = 256)]
    pub(crate) in_flight: usize,
    /// Length of the two windows with and without an open snapshot.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) snapshot_seconds: f64,
    /// Finished sagas of which is computed what they would take.
    #[arg(long, default_value_t = 100_000_000)]
    pub(crate) computed_for: u64,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct KillArgs {
    /// Sagas in flight at the kill, at least.
    #[arg(long, default_value_t = 256)]
    pub(crate) in_flight: usize,
    /// Time under load before each kill.
    #[arg(long, default_value_t = 4.0)]
    pub(crate) warm_up: f64,
    /// How often; the worst is told.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FootprintArgs {
    /// The product; by default the one beside this program.
    #[arg(long)]
    pub(crate) binary: Option<std::path::PathBuf>,
    /// How often; the median is told.
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// Seconds of idling before memory is read.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) idle: f64,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct SleepersArgs {
    /// What to run on.
    #[arg(long, value_enum)]
    pub(crate) stack: Stack,
    /// How many.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) sagas: u64,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct FloorArgs {
    /// Sagas that move together, each transaction of all of them at once.
    #[arg(long)]
    pub(crate) sagas: usize,
    /// How many such groups move beside each other.
    #[arg(long, default_value_t = 1)]
    pub(crate) cohorts: usize,
    /// Length of the window.
    #[arg(long, default_value_t = 8.0)]
    pub(crate) seconds: f64,
    /// Time before the window.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) warm_up: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stack {
    /// One process, SQLite, queues in memory.
    Embedded,
    /// PostgreSQL and RabbitMQ, started for the run.
    Services,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Entrance {
    /// In the engine's own process. A saga counts when it has ended.
    Engine,
    /// `POST /v1/sagas` over loopback. A saga counts when it is answered.
    Http,
}

impl Entrance {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Http => "http",
        }
    }
}

/// What shares a transaction of the bare job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BareKind {
    /// What came meanwhile.
    AtOnce,
    /// Every saga in flight, for which it waits.
    Together,
}

/// Who does the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Engine,
    Baseline,
    Bare,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Baseline => "baseline",
            Self::Bare => "bare",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Batch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Command {
    /// Whether it measures what runs beside services. It has as many threads then as the product would, whichever side is
    /// measured.
    pub(crate) fn is_beside_services(&self) -> bool {
        match self {
            Self::Run(RunArgs { stack, .. })
            | Self::Burst(BurstArgs { stack, .. })
            | Self::Sleepers(SleepersArgs { stack, .. }) => *stack == Stack::Services,
            Self::Prefilled(_) | Self::Kill(_) | Self::Participants { .. } | Self::Orchestrator { .. } => true,
            Self::Footprint(_) | Self::Floor(_) | Self::Suite { .. } => false,
        }
    }
}
