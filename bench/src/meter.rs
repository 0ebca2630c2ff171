//! What a window costs: processor time by process, memory, and what the database wrote.
//!
//! Not for latencies. Read from /proc, as Linux alone has it; a process that is gone counts for nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use testkit::services::{PrivateServices, Vhost};
use tokio::time::Instant;

/// Clock ticks per second of `/proc`, which Linux fixes for programs at 100 (proc(5)).
const TICKS: f64 = 100.0;
/// The broker tells of messages this late at the most (`collect_statistics_interval`, 5 s).
const STANDSTILL: Duration = Duration::from_secs(6);
const STANDSTILL_MAX: Duration = Duration::from_secs(60);

/// Processes that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    root: u32,
    alone: bool,
}

impl Group {
    /// A process and all its descendants.
    pub(crate) fn of(name: &'static str, root: u32) -> Self {
        Self { name, root, alone: false }
    }

    /// A process without its descendants.
    pub(crate) fn of_one(name: &'static str, root: u32) -> Self {
        Self { name, root, alone: true }
    }

    /// The process whose arguments name `directory` and contain `program`, and all its descendants.
    pub(crate) fn found(name: &'static str, program: &str, directory: &Path) -> Option<Self> {
        let directory = directory.to_string_lossy();
        let mut found: Vec<u32> = processes()
            .into_keys()
            .filter(|id| {
                let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                line.contains(program) && line.contains(&*directory)
            })
            .collect();
        found.sort_unstable();
        found.first().map(|root| Self::of(name, *root))
    }

    /// The process that it began with.
    pub(crate) fn root(&self) -> u32 {
        self.root
    }

    fn members(&self) -> Vec<u32> {
        let mut members = vec![self.root];
        if self.alone {
            return members;
        }
        let parents = processes();
        let mut next = 0;
        while next < members.len() {
            let parent = members[next];
            members.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(id, _)| *id));
            next += 1;
        }
        members
    }

    fn cpu_seconds(&self) -> f64 {
        // Times of children that ended and were waited for are their parent's, too.
        self.members()
            .iter()
            .filter_map(|id| stat(*id))
            .map(|fields| {
                fields[11..if self.alone { 13 } else { 15 }]
                    .iter()
                    .filter_map(|field| field.parse::<f64>().ok())
                    .sum::<f64>()
                    / TICKS
            })
            .sum()
    }

    /// Megabytes; what processes share counts for each.
    fn memory_mb(&self, name: &str) -> f64 {
        let kilobytes = |id: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        self.members().iter().filter_map(kilobytes).sum::<f64>() / 1_024.0
    }
}

/// Fields of `/proc/ID/stat` from the third on: state, parent, …; 11 to 14 are the times.
fn stat(id: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(ToOwned::to_owned).collect())
}

/// The parent of every process.
fn processes() -> BTreeMap<u32, u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    ids.filter_map(|id| Some((id, stat(id)?.get(1)?.parse().ok()?))).collect()
}

/// Counters at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) cpu_seconds: BTreeMap<&'static str, f64>,
    pub(crate) wal_bytes: f64,
    pub(crate) fsyncs: f64,
    pub(crate) rows: f64,
    pub(crate) transactions: f64,
}

const COUNTERS: &str = "select wal_bytes, wal_sync,
    (select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables),
    (select sum(xact_commit) from pg_stat_database where datname = current_database())
    from pg_stat_wal;";

/// The numbers in the one row of an answer.
///
/// # Errors
/// When the server refuses, or says anything else.
pub(crate) async fn numbers<const N: usize>(services: &PrivateServices, sql: &str) -> anyhow::Result<[f64; N]> {
    let line = services.query(sql).await?;
    let numbers: Result<Vec<f64>, _> = line.trim().split('|').map(str::parse).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.with_context(|| format!("the database answered {line:?}"))
}

/// Messages that the broker has counted once nothing is under way: it tells of them seconds later.
pub(crate) async fn messages(vhost: &Vhost) -> anyhow::Result<u64> {
    let (mut seen, mut since) = (vhost.published().await?, Instant::now());
    let limit = since + STANDSTILL_MAX;
    while since.elapsed() < STANDSTILL {
        if Instant::now() > limit {
            bail!("messages go on when all sagas have ended");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = vhost.published().await?;
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    Ok(seen)
}

/// Reads counters of groups and, where there is one, of the database.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) groups: Vec<Group>,
}

impl Meter {
    pub(crate) async fn read(&self, services: Option<&(PrivateServices, Vhost)>) -> anyhow::Result<Reading> {
        let mut reading = Reading::default();
        if let Some((services, _)) = services {
            let [wal_bytes, fsyncs, rows, transactions] = numbers(services, COUNTERS).await?;
            reading = Reading { wal_bytes, fsyncs, rows, transactions, ..reading };
        }
        reading.cpu_seconds = self.groups.iter().map(|group| (group.name, group.cpu_seconds())).collect();
        Ok(reading)
    }

    /// Forgets what this process has had in use at the most: another stack may have lived in it.
    pub(crate) fn forget_peak() -> anyhow::Result<()> {
        // proc_pid_clear_refs(5)
        std::fs::write("/proc/self/clear_refs", "5").context("the peak of memory can't be reset")
    }

    /// Memory in use at the most.
    pub(crate) fn peak_rss_mb(&self) -> BTreeMap<&'static str, f64> {
        self.groups.iter().map(|group| (group.name, group.memory_mb("VmHWM:"))).collect()
    }

    /// Memory in use now.
    pub(crate) fn rss_mb(&self) -> BTreeMap<&'static str, f64> {
        self.groups.iter().map(|group| (group.name, group.memory_mb("VmRSS:"))).collect()
    }
}
