//! How often the broker makes its files safe, counted by `strace` from outside: the broker itself does not tell.
//!
//! Must hold: a traced broker is slow, so times of such a run are no figures; without `strace` the run says so and goes
//! on.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use testkit::process::{Process, Program};

use crate::meter::Group;

/// How long the tool may take to attach, and to tell what it counted.
const WITHIN: Duration = Duration::from_secs(20);
/// The calls that are counted.
const CALLS: [&str; 2] = ["fsync", "fdatasync"];

/// A count under way.
#[derive(Debug)]
pub(crate) struct Trace {
    process: Process,
}

impl Trace {
    /// Begins to count; none where the tool is missing or may not.
    pub(crate) async fn begin(groups: &[Group]) -> anyhow::Result<Option<Self>> {
        let broker = groups.iter().find(|group| group.name == "rabbitmq").context("there is no broker to trace")?;
        let there = std::process::Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            eprintln!("strace is not at hand: the broker's fsyncs are not counted");
            return Ok(None);
        }
        let (calls, id) = (format!("trace={}", CALLS.join(",")), broker.root().to_string());
        let process = Process::start(Program::new("strace", ["-f", "-c", "-e", &calls, "-p", &id]))?;
        process.line(WITHIN, "strace is attached", |line| line.contains("attached").then_some(())).await;
        Ok(Some(Self { process }))
    }

    /// Ends it; how many there were.
    pub(crate) async fn end(mut self) -> f64 {
        // As Ctrl-C: it lets go of the broker and prints its table.
        let _ = self.process.interrupt();
        self.process.ended(WITHIN).await;
        calls(&self.process.output())
    }
}

/// Calls in the tool's table: share, seconds, microseconds per call, calls, perhaps errors, and the name.
fn calls(table: &str) -> f64 {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let counted = rows.filter(|row| row.last().is_some_and(|name| CALLS.contains(name)));
    counted.filter_map(|row| row.get(3)?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_the_table() {
        let table = "strace: Process 7 attached with 21 threads\n\
                     % time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     99.31    0.123456         123      1003           fdatasync\n\
                     0.69    0.000861          86        10         1 fsync\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.124317         122      1013         1 total\n";
        assert!((calls(table) - 1_013.0).abs() < f64::EPSILON);
        assert!(calls("").abs() < f64::EPSILON);
    }
}
