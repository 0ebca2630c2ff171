//! The runs that `docs/benchmarks.md` is made of: each in a process of its own, repeated, the median told.
//!
//! Must hold: repeats of one case do not follow each other, so that a slow minute of the machine does not fall on one
//! case alone; a goal that is missed is written down as missed; what people wrote beside the tables stays.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::depth::median;

const BEGIN: &str = "<!-- begin of what scripts/bench writes -->";
const END: &str = "<!-- end of what scripts/bench writes -->";

/// A figure of a report, and what it should be.
#[derive(Clone, Copy, Debug)]
struct Goal {
    what: &'static str,
    figure: fn(&Value) -> Option<f64>,
    at_least: Option<f64>,
    at_most: Option<f64>,
}

impl Goal {
    const fn at_least(what: &'static str, figure: fn(&Value) -> Option<f64>, least: f64) -> Self {
        Self { what, figure, at_least: Some(least), at_most: None }
    }

    const fn at_most(what: &'static str, figure: fn(&Value) -> Option<f64>, most: f64) -> Self {
        Self { what, figure, at_least: None, at_most: Some(most) }
    }

    /// A figure that is told and has no goal.
    const fn told(what: &'static str, figure: fn(&Value) -> Option<f64>) -> Self {
        Self { what, figure, at_least: None, at_most: None }
    }

    fn met(&self, value: f64) -> bool {
        self.at_least.is_none_or(|least| value >= least) && self.at_most.is_none_or(|most| value <= most)
    }

    fn wanted(&self) -> String {
        match (self.at_least, self.at_most) {
            (Some(least), _) => format!("≥ {least}"),
            (None, Some(most)) => format!("≤ {most}"),
            (None, None) => String::new(),
        }
    }
}

fn ratio(report: &Value) -> Option<f64> {
    report["ratio"].as_f64()
}

fn p50_ratio(report: &Value) -> Option<f64> {
    Some(report["p50_ms"].as_f64()? / report["baseline"]["p50_ms"].as_f64()?)
}

fn p99_ratio(report: &Value) -> Option<f64> {
    Some(report["p99_ms"].as_f64()? / report["baseline"]["p99_ms"].as_f64()?)
}

fn rate(report: &Value) -> Option<f64> {
    report["sagas_per_second"].as_f64()
}

fn p50(report: &Value) -> Option<f64> {
    report["p50_ms"].as_f64()
}

fn p99(report: &Value) -> Option<f64> {
    report["p99_ms"].as_f64()
}

fn wal(report: &Value) -> Option<f64> {
    report["wal_bytes_per_saga"].as_f64()
}

fn fsyncs(report: &Value) -> Option<f64> {
    report["fsyncs_per_saga"].as_f64()
}

/// How much deeper a steady outbox may look at the end than at 10 s: what a commit or two write. A backlog that grows by
/// a hundredth of the arrivals is a multiple of it after a minute.
const OUTBOX_SWING: f64 = 16.0;
/// The same of messages in queues, whose figures are up to a second old.
const QUEUE_SWING: f64 = 16.0;

fn growth(report: &Value, at_10s: &str, at_end: &str) -> Option<f64> {
    Some(report[at_end].as_f64()? - report[at_10s].as_f64()?)
}

fn outbox_growth(report: &Value) -> Option<f64> {
    growth(report, "outbox_at_10s", "outbox_at_end")
}

fn queue_growth(report: &Value) -> Option<f64> {
    growth(report, "queued_at_10s", "queued_at_end")
}

/// One kind of run.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    /// What this program is asked to do.
    verb: &'static str,
    arguments: String,
    goals: Vec<Goal>,
}

impl Case {
    fn new(name: &str, arguments: &str, goals: &[Goal]) -> Self {
        Self { name: name.to_owned(), verb: "run", arguments: arguments.to_owned(), goals: goals.to_vec() }
    }

    /// Something else than sagas one after another; its verb prints JSON anyway.
    fn other(verb: &'static str, name: &str, arguments: &str, goals: &[Goal]) -> Self {
        Self { verb, ..Self::new(name, arguments, goals) }
    }

    /// Runs it once, in a process of its own.
    fn run(&self) -> anyhow::Result<Value> {
        let here = std::env::current_exe().context("this program has no path")?;
        let mut command = Command::new(here);
        command.arg(self.verb).args(self.arguments.split_whitespace()).stderr(Stdio::piped());
        if self.verb == "run" {
            command.args(["-o", "json"]);
        }
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        // A void run has a report all the same, which says so.
        text.lines().find_map(|line| serde_json::from_str(line).ok()).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("`{} {}` told nothing (exit code {:?})\n{said}", self.verb, self.arguments, output.status.code())
        })
    }

    /// Runs it once; none when it failed, which costs the others nothing.
    fn told(&self) -> Option<Value> {
        self.run().inspect_err(|error| eprintln!("{error:#}")).ok()
    }
}

fn cases() -> Vec<Case> {
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
            "256 in flight, through HTTP",
            &format!("{against} --in-flight 256 --entry http"),
            &[Goal::at_least("rate against the baseline's", ratio, 6.0)],
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
            "embedded, 256 in flight, through HTTP",
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
fn open_loop(peak: f64, seconds: u32) -> Case {
    let rate = (peak * 0.7).floor();
    Case::new(
        &format!("open loop at 70 % of the peak, {rate} sagas/s for {seconds} s"),
        &format!("--stack services --seconds {seconds} --rate {rate}"),
        &[
            Goal::at_most("p99, ms", p99, 100.0),
            Goal::at_most("rows of the outbox at the end, more than at 10 s", outbox_growth, OUTBOX_SWING),
            Goal::at_most("messages in queues at the end, more than at 10 s", queue_growth, QUEUE_SWING),
        ],
    )
}

/// What is looked at once: each is made of several looks of its own.
fn other_cases() -> Vec<Case> {
    vec![
        Case::other(
            "burst",
            "25,000 sagas accepted at once",
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
                Goal::at_least("in flight", |report| report["in_flight"].as_f64(), 200.0),
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

/// Runs everything `repeats` times and writes the tables into `page`.
pub(crate) fn full(repeats: usize, page: &Path) -> anyhow::Result<()> {
    let cases = cases();
    let mut reports: Vec<Vec<Value>> = vec![Vec::new(); cases.len()];
    for repeat in 1..=repeats {
        for (case, reports) in cases.iter().zip(&mut reports) {
            eprintln!("{repeat} of {repeats}: {}", case.name);
            reports.extend(case.told());
        }
    }
    let peak = median(reports[0].iter().filter_map(rate)).context("no peak")?;
    let open = open_loop(peak, 60);
    eprintln!("{}", open.name);
    let of_open: Vec<Value> = open.told().into_iter().collect();
    let others = other_cases();
    let of_others = once_each(&others);
    let told: Vec<_> =
        cases.iter().zip(&reports).chain([(&open, &of_open)]).chain(others.iter().zip(&of_others)).collect();
    let text = format!("{BEGIN}\n\n{}\n{}\n{END}", speeds(&told), goals(&told));
    let before = std::fs::read_to_string(page).with_context(|| format!("{} can't be read", page.display()))?;
    std::fs::write(page, replaced(&before, &text)?)?;
    eprintln!("written into {}", page.display());
    Ok(())
}

fn once_each(cases: &[Case]) -> Vec<Vec<Value>> {
    let once = |case: &Case| {
        eprintln!("{}", case.name);
        let told: Vec<Value> = case.told().into_iter().collect();
        told.iter().for_each(|report| eprintln!("{report}"));
        told
    };
    cases.iter().map(once).collect()
}

/// A short look for a change that made it much slower. The floors are loose: the build may be one for tests.
pub(crate) fn quick() -> anyhow::Result<()> {
    let short = "--warm-up 1 --seconds 3";
    let cases = [
        Case::new(
            "services, 256 in flight",
            &format!("--stack services --in-flight 256 --baseline {short}"),
            &[Goal::at_least("rate against the baseline's", ratio, 1.2)],
        ),
        Case::new(
            "embedded, 256 in flight",
            &format!("--stack embedded --in-flight 256 {short}"),
            &[Goal::at_least("sagas per second", rate, 50.0)],
        ),
    ];
    for case in &cases {
        let report = case.run()?;
        for goal in &case.goals {
            let value = (goal.figure)(&report).context("a figure is missing")?;
            crate::say(&format!("{}: {} {value:.2}, wanted {}", case.name, goal.what, goal.wanted()));
            if !goal.met(value) {
                bail!("{} is too slow", case.name);
            }
        }
    }
    Ok(())
}

type Told<'a> = (&'a Case, &'a Vec<Value>);

fn speeds(told: &[Told<'_>]) -> String {
    let mut text = String::from(
        "| run | sagas/s | p50, p99 ms | baseline sagas/s | ratio | CPU ms per saga | rows | WAL bytes | fsyncs | \
         messages | peak MB |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (case, reports) in told.iter().filter(|(case, _)| case.verb == "run") {
        let of = |figure: &dyn Fn(&Value) -> Option<f64>, digits: usize| {
            let found = median(reports.iter().filter_map(figure));
            found.map_or_else(String::new, |found| format!("{found:.digits$}"))
        };
        let cpu = |report: &Value| {
            let parts = report["cpu_seconds_per_1000"].as_object()?;
            Some(parts.values().filter_map(Value::as_f64).sum())
        };
        let own =
            |report: &Value| report["peak_rss_mb"].as_object()?.values().filter_map(Value::as_f64).reduce(f64::max);
        let messages = |report: &Value| report["messages_per_saga"].as_f64();
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {} | {} | {}, {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            case.name,
            of(&rate, 0),
            of(&p50, 1),
            of(&p99, 1),
            of(&|report| report["baseline"]["sagas_per_second"].as_f64(), 0),
            of(&ratio, 2),
            of(&cpu, 3),
            of(&|report| report["rows_per_saga"].as_f64(), 1),
            of(&wal, 0),
            of(&fsyncs, 3),
            of(&messages, 3),
            of(&own, 0),
        );
    }
    text
}

fn goals(told: &[Told<'_>]) -> String {
    let mut text = String::from("| run | figure | wanted | seen | |\n|---|---|---|---|---|\n");
    for (case, reports) in told {
        for goal in &case.goals {
            let Some(value) = median(reports.iter().filter_map(|report| (goal.figure)(report))) else {
                let _ = writeln!(text, "| {} | {} | {} | | **not measured** |", case.name, goal.what, goal.wanted());
                continue;
            };
            let met = match (goal.wanted().as_str(), goal.met(value)) {
                ("", _) => "told",
                (_, true) => "met",
                (_, false) => "**missed**",
            };
            let _ = writeln!(text, "| {} | {} | {} | {value:.2} | {met} |", case.name, goal.what, goal.wanted());
        }
    }
    text
}

/// The page with its tables replaced.
fn replaced(page: &str, tables: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for tables")?;
    let (_, after) = rest.split_once(END).context("the page's tables have no end")?;
    Ok(format!("{before}{tables}{after}"))
}

/// Where the tables go, from the repository's root.
pub(crate) fn page() -> PathBuf {
    PathBuf::from("docs/benchmarks.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays() {
        let page = format!("one\n{BEGIN}\nold\n{END}\ntwo\n");
        let again = replaced(&page, &format!("{BEGIN}\nnew\n{END}")).unwrap();
        assert_eq!(again, format!("one\n{BEGIN}\nnew\n{END}\ntwo\n"));
        assert!(replaced("no place", "").is_err());
    }

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([].into_iter()), None);
    }
}
