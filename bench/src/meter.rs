//! What a window costs: processor time by process, memory, and what the database wrote.
//!
//! Not for latencies. Read from /proc, as Linux alone has it; a process that is gone counts for nothing.

use std::collections::BTreeMap;
use std::path::Path;

use testkit::services::{PrivateServices, Vhost};

/// Clock ticks per second of `/proc`, which Linux fixes for programs at 100 (proc(5)).
const TICKS: f64 = 100.0;

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
    pub(crate) messages: f64,
}

/// Reads counters of groups and, where there is one, of the database.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) groups: Vec<Group>,
}

impl Meter {
    pub(crate) async fn read(&self, services: Option<&(PrivateServices, Vhost)>) -> anyhow::Result<Reading> {
        let mut reading = Reading::default();
        if let Some((services, vhost)) = services {
            let sql = "select wal_bytes, wal_sync, (select sum(n_tup_ins + n_tup_upd + n_tup_del) from \
                       pg_stat_user_tables) from pg_stat_wal;";
            let line = services.query(sql).await?;
            let mut numbers = line.trim().split('|').map(|number| number.parse::<f64>().unwrap_or(0.0));
            let mut next = || numbers.next().unwrap_or(0.0);
            (reading.wal_bytes, reading.fsyncs, reading.rows) = (next(), next(), next());
            reading.messages = vhost.published().await? as f64;
        }
        reading.cpu_seconds = self.groups.iter().map(|group| (group.name, group.cpu_seconds())).collect();
        Ok(reading)
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
