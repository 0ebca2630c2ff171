//! The runs that `docs/benchmarks.md` is made of: each in a process of its own, repeated, the median told.
//!
//! Must hold: repeats of one case do not follow each other, so that a slow minute of the machine does not fall on one
//! case alone; a goal that is missed is written down as missed, a run that is void as void, and one that failed as failed;
//! what people wrote beside the tables stays.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cases::{Case, Goal, Told, cases, fsyncs, open_loop, other_cases, p50, p99, rate, ratio, wal};
use crate::depth::median;

const BEGIN: &str = "<!-- begin of what scripts/bench writes -->";
const END: &str = "<!-- end of what scripts/bench writes -->";

/// What came of all runs of a case.
#[derive(Debug)]
struct Row<'a> {
    case: &'a Case,
    told: Vec<Told>,
}

impl Row<'_> {
    /// The reports that are looked at: those that count, or the void ones where there are no others.
    fn reports(&self) -> impl Iterator<Item = &Value> {
        let void = self.is_void();
        self.told.iter().filter_map(move |told| match told {
            Told::Counts(report) => (!void).then_some(report),
            Told::Void(report) => void.then_some(report),
            Told::Failed => None,
        })
    }

    fn is_void(&self) -> bool {
        !self.told.iter().any(|told| matches!(told, Told::Counts(_)))
            && self.told.iter().any(|told| matches!(told, Told::Void(_)))
    }

    fn failed(&self) -> usize {
        self.told.iter().filter(|told| matches!(told, Told::Failed)).count()
    }

    fn median(&self, figure: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
        median(self.reports().filter_map(figure))
    }

    /// The case, and how many of its runs count where not all do.
    fn name(&self) -> String {
        let (all, counting) = (self.told.len(), self.reports().count());
        let name = &self.case.name;
        match (self.is_void(), self.failed()) {
            (true, 0) => format!("{name}; **void**"),
            (true, failed) => format!("{name}; **void**, {failed} of {all} failed"),
            (false, 0) if counting == all => name.clone(),
            (false, 0) => format!("{name}; {counting} of {all} runs, the others void"),
            (false, failed) => format!("{name}; {counting} of {all} runs, **{failed} failed**"),
        }
    }
}

/// Runs everything `repeats` times and writes the tables into `page`.
///
/// # Errors
/// When a run failed, or the page can't be written.
pub(crate) fn full(repeats: usize, page: &Path) -> anyhow::Result<()> {
    let cases = cases();
    let mut told: Vec<Vec<Told>> = vec![Vec::new(); cases.len()];
    for repeat in 1..=repeats {
        for (case, told) in cases.iter().zip(&mut told) {
            eprintln!("{repeat} of {repeats}: {}", case.name);
            told.push(case.told());
        }
    }
    let mut rows: Vec<Row<'_>> = cases.iter().zip(told).map(|(case, told)| Row { case, told }).collect();
    let peak = rows[0].median(rate).context("no peak")?;
    let once: Vec<Case> = [open_loop(peak, 60)].into_iter().chain(other_cases()).collect();
    for case in &once {
        eprintln!("{}", case.name);
        let told = case.told();
        eprintln!("{told:?}");
        rows.push(Row { case, told: vec![told] });
    }
    let text = format!("{BEGIN}\n\n{}\n{}\n{END}", speeds(&rows), goals(&rows));
    let before = std::fs::read_to_string(page).with_context(|| format!("{} can't be read", page.display()))?;
    std::fs::write(page, replaced(&before, &text)?)?;
    eprintln!("written into {}", page.display());
    match rows.iter().map(Row::failed).sum() {
        0 => Ok(()),
        failed => bail!("{failed} runs failed"),
    }
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
        // How fast the machine is says nothing of a change.
        let (Told::Counts(report) | Told::Void(report)) = case.run()? else { bail!("{} told nothing", case.name) };
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

fn speeds(rows: &[Row<'_>]) -> String {
    let mut text = String::from(
        "| run | sagas/s | p50, p99 ms | baseline sagas/s | ratio | CPU ms per saga | rows | transactions | WAL bytes | \
         fsyncs | messages | peak MB of the engine |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows.iter().filter(|row| row.case.verb == "run") {
        let of = |figure: &dyn Fn(&Value) -> Option<f64>, digits: usize| {
            row.median(figure).map_or_else(String::new, |found| format!("{found:.digits$}"))
        };
        let cpu = |report: &Value| {
            let parts = report["cpu_seconds_per_1000"].as_object()?;
            Some(parts.values().filter_map(Value::as_f64).sum())
        };
        let memory = |report: &Value| {
            let peaks = &report["peak_rss_mb"];
            peaks["orchestrator"].as_f64().or_else(|| peaks["all"].as_f64())
        };
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {} | {} | {}, {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name(),
            of(&rate, 0),
            of(&p50, 1),
            of(&p99, 1),
            of(&|report| report["baseline"]["sagas_per_second"].as_f64(), 0),
            of(&ratio, 2),
            of(&cpu, 3),
            of(&|report| report["rows_per_saga"].as_f64(), 1),
            of(&|report| report["transactions_per_saga"].as_f64(), 2),
            of(&wal, 0),
            of(&fsyncs, 3),
            of(&|report| report["messages_per_saga"].as_f64(), 3),
            of(&memory, 0),
        );
    }
    text
}

fn goals(rows: &[Row<'_>]) -> String {
    let mut text = String::from("| run | figure | wanted | seen | |\n|---|---|---|---|---|\n");
    for row in rows {
        for goal in &row.case.goals {
            let (name, what, wanted) = (row.name(), goal.what, goal.wanted());
            let Some(value) = row.median(goal.figure) else {
                let _ = writeln!(text, "| {name} | {what} | {wanted} | | **not measured** |");
                continue;
            };
            let met = match (wanted.as_str(), row.failed() > 0, row.is_void(), goal.met(value)) {
                ("", _, _, _) => "told",
                (_, true, _, _) => "**failed**",
                (_, _, true, _) => "**void**",
                (_, _, _, true) => "met",
                (_, _, _, false) => "**missed**",
            };
            let _ = writeln!(text, "| {name} | {what} | {wanted} | {value:.2} | {met} |");
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
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_wrote_stays() {
        let page = format!("one\n{BEGIN}\nold\n{END}\ntwo\n");
        let again = replaced(&page, &format!("{BEGIN}\nnew\n{END}")).unwrap();
        assert_eq!(again, format!("one\n{BEGIN}\nnew\n{END}\ntwo\n"));
        assert!(replaced("no place", "").is_err());
    }

    #[test]
    fn what_is_void_or_failed_is_written_down_as_such() {
        let case = Case::new("case", "", &[Goal::at_least("rate", rate, 2.0)]);
        let report = |rate: f64| json!({"sagas_per_second": rate});
        let written = |told: &[Told]| {
            let text = goals(&[Row { case: &case, told: told.to_vec() }]);
            text.lines().last().unwrap().to_owned()
        };
        let (good, slow, void) = (Told::Counts(report(3.0)), Told::Counts(report(1.0)), Told::Void(report(9.0)));
        assert_eq!(written(std::slice::from_ref(&good)), "| case | rate | ≥ 2 | 3.00 | met |");
        assert_eq!(
            written(&[slow, void.clone()]),
            "| case; 1 of 2 runs, the others void | rate | ≥ 2 | 1.00 | **missed** |"
        );
        assert_eq!(written(&[void]), "| case; **void** | rate | ≥ 2 | 9.00 | **void** |");
        assert_eq!(
            written(&[good, Told::Failed]),
            "| case; 1 of 2 runs, **1 failed** | rate | ≥ 2 | 3.00 | **failed** |"
        );
        assert_eq!(written(&[Told::Failed]), "| case; 0 of 1 runs, **1 failed** | rate | ≥ 2 | | **not measured** |");
    }

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([].into_iter()), None);
    }
}
