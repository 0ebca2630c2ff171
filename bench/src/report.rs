//! A run's figures, for people and for scripts.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::args::{Batch, RunArgs, Stack};
use crate::depth::Depths;
use crate::load::Measured;
use crate::meter::Reading;
use crate::statements::Statement;

/// One run. Times in milliseconds; costs are per saga that ended in the window, or per thousand where the name says so.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    stack: &'static str,
    entry: &'static str,
    /// Whether many commands and replies share a message.
    batch: bool,
    in_flight: Option<usize>,
    rate: Option<f64>,
    refusals: f64,
    /// Finished sagas that were there before.
    prefill: u64,
    sagas: u64,
    sagas_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    cpu_seconds_per_1000: BTreeMap<&'static str, f64>,
    rows_per_saga: Option<f64>,
    wal_bytes_per_saga: Option<f64>,
    fsyncs_per_saga: Option<f64>,
    transactions_per_saga: Option<f64>,
    /// Of all sagas of the run, warm-up included.
    messages_per_saga: Option<f64>,
    peak_rss_mb: BTreeMap<&'static str, f64>,
    /// With a rate and a window of more than 12 seconds.
    #[serde(flatten)]
    waiting: Option<Waiting>,
    /// Of a traced run, whose times are no figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_fsyncs_per_saga: Option<f64>,
    /// The dearest statements of the database, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statements: Vec<Statement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Box<Report>>,
    /// Sagas per second, divided by the baseline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    /// Why the figures don't count, where they don't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) void: Option<String>,
}

/// What was counted at both ends of a window.
pub(crate) struct Window {
    pub(crate) before: Reading,
    pub(crate) after: Reading,
    pub(crate) statements: Vec<Statement>,
    /// Of a traced run.
    pub(crate) broker_fsyncs: Option<f64>,
}

/// What waited: rows of the outbox, and messages of the broker's queues.
#[derive(Debug, Serialize)]
struct Waiting {
    outbox_at_10s: Option<f64>,
    outbox_at_end: Option<f64>,
    queued_at_10s: Option<f64>,
    queued_at_end: Option<f64>,
}

/// Where the baseline must lie at 256 in flight for a run to count, on two cores.
const BASELINE: std::ops::RangeInclusive<f64> = 350.0..=700.0;

impl Report {
    pub(crate) fn new(
        args: &RunArgs,
        measured: &Measured,
        Window { before, after, statements, broker_fsyncs }: Window,
        peak_rss_mb: BTreeMap<&'static str, f64>,
    ) -> Self {
        let sagas = measured.sagas.max(1) as f64;
        let at = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1_000.0;
        let cpu = |(name, now): (&&'static str, &f64)| {
            let then = before.cpu_seconds.get(name).copied().unwrap_or(0.0);
            (*name, (now - then) / sagas * 1_000.0)
        };
        let database = |after: f64, before: f64| (args.stack == Stack::Services).then_some((after - before) / sagas);
        Self {
            stack: match args.stack {
                Stack::Embedded => "embedded",
                Stack::Services => "services",
            },
            entry: args.entry.name(),
            batch: args.batch == Batch::On,
            in_flight: args.in_flight,
            rate: args.rate,
            refusals: args.refusals,
            prefill: args.prefill,
            sagas: measured.sagas,
            sagas_per_second: measured.sagas as f64 / measured.seconds,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: measured.latency.max() as f64 / 1_000.0,
            cpu_seconds_per_1000: after.cpu_seconds.iter().map(cpu).collect(),
            rows_per_saga: database(after.rows, before.rows),
            wal_bytes_per_saga: database(after.wal_bytes, before.wal_bytes),
            fsyncs_per_saga: database(after.fsyncs, before.fsyncs),
            transactions_per_saga: database(after.transactions, before.transactions),
            messages_per_saga: None,
            peak_rss_mb,
            waiting: None,
            broker_fsyncs_per_saga: broker_fsyncs.map(|calls| calls / sagas),
            statements,
            baseline: None,
            ratio: None,
            void: None,
        }
    }

    /// Adds what was counted when all had ended.
    pub(crate) fn sent(&mut self, messages: u64, sagas: u64) {
        self.messages_per_saga = Some(messages as f64 / sagas.max(1) as f64);
    }

    /// Adds what was seen beside the load.
    pub(crate) fn watched(&mut self, Depths { at_10s, at_end }: Depths) {
        self.waiting = at_10s.outbox.is_some().then_some(Waiting {
            outbox_at_10s: at_10s.outbox,
            outbox_at_end: at_end.outbox,
            queued_at_10s: at_10s.queued,
            queued_at_end: at_end.queued,
        });
    }

    /// Puts the baseline's figures beside these.
    pub(crate) fn compare(&mut self, baseline: Self) {
        self.ratio = Some(self.sagas_per_second / baseline.sagas_per_second);
        // The baseline shows a machine that is not in its usual state.
        let speed = baseline.sagas_per_second;
        let judged = baseline.in_flight == Some(256) && baseline.refusals == 0.0;
        let void = || format!("void: the baseline ran at {speed:.0} sagas/s, not 350 to 700");
        self.void = (judged && !BASELINE.contains(&speed)).then(void);
        self.baseline = Some(Box::new(baseline));
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{:.0} sagas/s   p50 {:.1} ms   p99 {:.1} ms   max {:.1} ms   ({} sagas)",
            self.sagas_per_second, self.p50_ms, self.p99_ms, self.max_ms, self.sagas
        );
        let mut line = |name: &str, value: f64, unit: &str| {
            // Writing to a string can't fail.
            let _ = write!(text, "\n  {name:<24} {value:>10.3} {unit}");
        };
        for (name, seconds) in &self.cpu_seconds_per_1000 {
            line(name, *seconds, "CPU s per 1000 sagas");
        }
        for (name, megabytes) in &self.peak_rss_mb {
            line(name, *megabytes, "MB at the peak");
        }
        let database = [
            ("rows", self.rows_per_saga),
            ("WAL bytes", self.wal_bytes_per_saga),
            ("fsyncs", self.fsyncs_per_saga),
            ("transactions", self.transactions_per_saga),
            ("messages", self.messages_per_saga),
            ("fsyncs of the broker", self.broker_fsyncs_per_saga),
        ];
        for (name, value) in database {
            if let Some(value) = value {
                line(name, value, "per saga");
            }
        }
        if let Some(Waiting { outbox_at_10s, outbox_at_end, queued_at_10s, queued_at_end }) = &self.waiting {
            let depths = [("outbox rows", outbox_at_10s, outbox_at_end), ("messages", queued_at_10s, queued_at_end)];
            for (name, at_10s, at_end) in depths {
                let _ = write!(text, "\n  {name} waiting: {at_10s:.0?} at 10 s, {at_end:.0?} at the end");
            }
        }
        for Statement { text: what, calls, ms, rows, buffers } in &self.statements {
            let (per, sagas) = (calls.max(1.0), self.sagas.max(1) as f64);
            let _ = write!(
                text,
                "\n  {:>8.1} us/saga {:>7.3} ms/call {:>7.1} rows/call {:>8.1} pages/call  {what}",
                ms * 1_000.0 / sagas,
                ms / per,
                rows / per,
                buffers / per
            );
        }
        if let (Some(baseline), Some(ratio)) = (&self.baseline, self.ratio) {
            let _ = write!(text, "\n\nbaseline: {}\n\nratio {ratio:.2}", baseline.text());
        }
        text
    }
}
