//! What `scripts/bench` runs, and what each run should come to.
//!
//! Not for tables. Must hold: a goal is what the page says that it is; a run that failed has no figures.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

/// A figure of a report, and what it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) figure: fn(&Value) -> Option<f64>,
    at_least: Option<f64>,
    at_most: Option<f64>,
}

impl Goal {
    pub(crate) const fn at_least(what: &'static str, figure: fn(&Value) -> Option<f64>, least: f64) -> Self {
        Self { what, figure, at_least: Some(least), at_most: None }
    }

    pub(crate) const fn at_most(what: &'static str, figure: fn(&Value) -> Option<f64>, most: f64) -> Self {
        Self { what, figure, at_least: None, at_most: Some(most) }
    }

    /// A figure that is told and has no goal.
    pub(crate) const fn told(what: &'static str, figure: fn(&Value) -> Option<f64>) -> Self {
        Self { what, figure, at_least: None, at_most: None }
    }

    pub(crate) fn met(&self, value: f64) -> bool {
        self.at_least.is_none_or(|least| value >= least) && self.at_most.is_none_or(|most| value <= most)
    }

    pub(crate) fn wanted(&self) -> String {
        match (self.at_least, self.at_most) {
            (Some(least), _) => format!("≥ {least}"),
            (None, Some(most)) => format!("≤ {most}"),
            (None, None) => String::new(),
        }
    }
}

pub(crate) fn ratio(report: &Value) -> Option<f64> {
    report["ratio"].as_f64()
}

pub(crate) fn p50_ratio(report: &Value) -> Option<f64> {
    Some(report["p50_ms"].as_f64()? / report["baseline"]["p50_ms"].as_f64()?)
}

pub(crate) fn p99_ratio(report: &Value) -> Option<f64> {
    Some(report["p99_ms"].as_f64()? / report["baseline"]["p99_ms"].as_f64()?)
}

pub(crate) fn rate(report: &Value) -> Option<f64> {
    report["sagas_per_second"].as_f64()
}

pub(crate) fn p50(report: &Value) -> Option<f64> {
    report["p50_ms"].as_f64()
}

pub(crate) fn p99(report: &Value) -> Option<f64> {
    report["p99_ms"].as_f64()
}

pub(crate) fn wal(report: &Value) -> Option<f64> {
    report["wal_bytes_per_saga"].as_f64()
}

pub(crate) fn fsyncs(report: &Value) -> Option<f64> {
    report["fsyncs_per_saga"].as_f64()
}

pub(crate) fn growth(report: &Value, at_10s: &str, at_end: &str) -> Option<f64> {
    Some(report[at_end].as_f64()? - report[at_10s].as_f64()?)
}

pub(crate) fn outbox_growth(report: &Value) -> Option<f64> {
    growth(report, "outbox_at_10s", "outbox_at_end")
}

pub(crate) fn queue_growth(report: &Value) -> Option<f64> {
    growth(report, "queued_at_10s", "queued_at_end")
}

/// One kind of run.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// What this program is asked to do.
    pub(crate) verb: &'static str,
    arguments: String,
    pub(crate) goals: Vec<Goal>,
}

impl Case {
    pub(crate) fn new(name: &str, arguments: &str, goals: &[Goal]) -> Self {
        Self { name: name.to_owned(), verb: "run", arguments: arguments.to_owned(), goals: goals.to_vec() }
    }

    /// Something else than sagas one after another; its verb prints JSON anyway.
    fn other(verb: &'static str, name: &str, arguments: &str, goals: &[Goal]) -> Self {
        Self { verb, ..Self::new(name, arguments, goals) }
    }

    /// Runs it once, in a process of its own.
    pub(crate) fn run(&self) -> anyhow::Result<Told> {
        let here = std::env::current_exe().context("this program has no path")?;
        let mut command = Command::new(here);
        command.arg(self.verb).args(self.arguments.split_whitespace()).stderr(Stdio::piped());
        if self.verb == "run" {
            command.args(["-o", "json"]);
        }
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report = text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        match report {
            Some(report) if output.status.success() => Ok(Told::Counts(report)),
            Some(report) if report["void"].is_string() => Ok(Told::Void(report)),
            Some(_) | None => {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("`{} {}` failed ({})\n{said}", self.verb, self.arguments, output.status)
            }
        }
    }

    /// Runs it once; a failure costs the others nothing.
    pub(crate) fn told(&self) -> Told {
        self.run().unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Told::Failed
        })
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Counts(Value),
    /// The machine was not in its usual state.
    Void(Value),
    Failed,
}

pub(crate) fn cases() -> Vec<Case> {
    let against = "--stack services --seconds 8 --baseline";
    vec![
        Case::new(
            "256 in flight, batch messages",
            &format!("{against} --in-flight 256"),
            &[
                Goal::at_least("rate against the baseline's", ratio, 12.0),
                Goal::at_most("p99 against the baseline's", p99_ratio, 1.0),
                Goal::at_most("WAL bytes per saga", wal, 8_000.0),
                Goal::at_most("fsyncs per saga", fsyncs, 0.2),
            ],
        ),
        Case::new(
            "256 in flight, single messages",
            &format!("{against} --in-flight 256 --batch off"),
            &[
                Goal::at_least("rate against the baseline's", ratio, 3.5),
                Goal::at_most("p99 against the baseline's", p99_ratio, 1.0),
            ],
        ),
        Case::new(
            "256 in flight, through HTTP, until decided",
            &format!("{against} --in-flight 256 --entry http"),
            &[
                Goal::at_least("rate against the baseline's", ratio, 6.0),
                Goal::at_most("p99 against the baseline's", p99_ratio, 1.0),
            ],
        ),
        Case::new(
            "1 in flight",
            &format!("{against} --in-flight 1"),
            &[Goal::at_most("p50 against the baseline's", p50_ratio, 0.8)],
        ),
        Case::new(
            "32 in flight, all refused at the third step, batch messages",
            &format!("{against} --in-flight 32 --refusals 1"),
            &[Goal::at_least("rate against the baseline's", ratio, 6.0)],
        ),
        Case::new(
            "32 in flight, all refused at the third step, single messages",
            &format!("{against} --in-flight 32 --refusals 1 --batch off"),
            &[Goal::at_least("rate against the baseline's", ratio, 2.5)],
        ),
        Case::new(
            "embedded, 256 in flight",
            "--stack embedded --seconds 8 --in-flight 256",
            &[Goal::at_least("sagas per second", rate, 8_000.0)],
        ),
        Case::new(
            "embedded, 256 in flight, through HTTP, until decided",
            "--stack embedded --seconds 8 --in-flight 256 --entry http",
            &[],
        ),
        Case::new(
            "embedded, 1 in flight",
            "--stack embedded --seconds 8 --in-flight 1",
            &[Goal::at_most("p50, ms", p50, 2.0)],
        ),
    ]
}

/// Arrivals at random are not modelled: they come evenly, at a share of what the closed loop reached.
pub(crate) fn open_loop(peak: f64, seconds: u32) -> Case {
    let rate = (peak * 0.7).floor();
    Case::new(
        &format!("open loop at 70 % of the peak, {rate} sagas/s for {seconds} s"),
        &format!("--stack services --seconds {seconds} --rate {rate}"),
        &[
            Goal::at_most("p99, ms", p99, 100.0),
            Goal::at_most("rows of the outbox at the end, more than at 10 s", outbox_growth, 0.0),
            Goal::at_most("messages in queues at the end, more than at 10 s", queue_growth, 0.0),
        ],
    )
}

/// What is looked at once: each is made of several looks of its own.
pub(crate) fn other_cases() -> Vec<Case> {
    vec![
        Case::other(
            "burst",
            "25,000 sagas asked for at once",
            "--stack services",
            &[
                Goal::at_most("seconds until the last has ended", |report| report["seconds"].as_f64(), 60.0),
                Goal::at_most(
                    "peak memory of the engine against that at 256 in flight",
                    |report| report["peak_of_usual"]["orchestrator"].as_f64(),
                    2.0,
                ),
                Goal::at_most(
                    "memory 30 s later against that before, of the engine",
                    |report| report["after_of_usual"]["orchestrator"].as_f64(),
                    1.2,
                ),
                Goal::at_most(
                    "memory 30 s later against that before, of the participants",
                    |report| report["after_of_usual"]["participants"].as_f64(),
                    1.2,
                ),
                Goal::told("the same of PostgreSQL, whose cache fills", |report| {
                    report["after_of_usual"]["postgres"].as_f64()
                }),
                Goal::told("accepted and not ended, at most", |report| report["open_at_most"].as_f64()),
                Goal::told("the same of RabbitMQ", |report| report["after_of_usual"]["rabbitmq"].as_f64()),
            ],
        ),
        Case::other(
            "kill",
            "kill -9 of one of two orchestrators, 256 in flight, the worst of three",
            "",
            &[
                Goal::at_most(
                    "seconds until the last is decided",
                    |report| report["seconds_until_decided"].as_f64(),
                    2.0,
                ),
                Goal::told("seconds until the last has ended", |report| report["seconds_until_ended"].as_f64()),
                Goal::at_least("in flight", |report| report["in_flight"].as_f64(), 256.0),
                Goal::at_most("effects made twice", |report| report["doubled"].as_f64(), 0.0),
            ],
        ),
        Case::other(
            "prefilled",
            "a million finished sagas beside none, five pairs, 256 in flight",
            "--sagas 1000000 --pairs 5 --seconds 8",
            &[
                Goal::at_least("median of the ratios", |report| report["median_ratio"].as_f64(), 0.9),
                Goal::at_most(
                    "pages per hot statement, greatest deviation",
                    |report| report["greatest_deviation"]["share"].as_f64().map(f64::abs),
                    0.05,
                ),
            ],
        ),
        Case::other(
            "footprint",
            "the embedded product, idle",
            "",
            &[
                Goal::at_most("ms until it is ready", |report| report["ready_ms"].as_f64(), 300.0),
                Goal::at_most("MB of memory after 10 s", |report| report["idle_rss_mb"].as_f64(), 50.0),
                Goal::told("MB of the binary", |report| report["binary_mb"].as_f64()),
            ],
        ),
    ]
}
