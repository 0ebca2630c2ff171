//! The sections that say how long ended sagas are kept, and what participants understand.
//!
//! Not for the rest of the configuration. Must hold: an unknown key of `[participants]` is an error, although a table
//! there may have any name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use orchestrator::archive::{Archive, Folder};
use serde::Deserialize;
use uuid::Uuid;

use super::Settings;
use crate::hosted::Participant;

/// A section of `config.default.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "config.default.toml is the manual of every key")]
pub struct Retention {
    pub after_ms: u64,
    pub keys_after_ms: u64,
    pub every_ms: u64,
    pub batch_max: usize,
    pub archive_dir: String,
}

/// A section of `config.default.toml`, and in it a table for each participant that has one.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
#[allow(missing_docs, reason = "config.default.toml is the manual of every key")]
pub struct Participants {
    pub listen: SocketAddr,
    pub prefetch: usize,
    pub batch_max: usize,
    pub calls_max: usize,
    pub lease_ms: u64,
    pub named: BTreeMap<String, Named>,
}

/// What all who consume one participant's queue understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "config.default.toml is the manual of every key")]
pub struct Named {
    #[serde(default = "yes")]
    pub batch: bool,
    #[serde(default = "yes")]
    pub ended: bool,
}

fn yes() -> bool {
    true
}

/// The section as it is written: what is no key of it must be a table.
#[derive(Deserialize)]
struct Written {
    listen: SocketAddr,
    prefetch: usize,
    batch_max: usize,
    calls_max: usize,
    lease_ms: u64,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

impl TryFrom<Written> for Participants {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { listen, prefetch, batch_max, calls_max, lease_ms, others } = written;
        let mut named = BTreeMap::new();
        for (name, value) in others {
            if !value.is_object() {
                return Err(format!("unknown key `participants.{name}`, which is no table of a participant either"));
            }
            let table = serde_json::from_value(value).map_err(|error| format!("participants.{name}: {error}"))?;
            named.insert(name, table);
        }
        Ok(Self { listen, prefetch, batch_max, calls_max, lease_ms, named })
    }
}

impl Settings {
    /// Participants that must get each command in a message of its own.
    #[must_use]
    pub fn one_at_a_time(&self) -> BTreeSet<String> {
        let single = self.participants.named.iter().filter(|(_, named)| !named.batch);
        single.map(|(name, _)| name.clone()).collect()
    }

    /// Participants that understand announcements of ended sagas: those of this build and those of which the settings
    /// say so.
    #[must_use]
    pub fn told_of_ended(&self) -> BTreeSet<String> {
        let ours = Participant::ALL.map(|participant| participant.as_str().to_owned());
        let named = &self.participants.named;
        let all = ours.into_iter().chain(named.keys().cloned());
        all.filter(|name| named.get(name).is_none_or(|named| named.ended)).collect()
    }

    /// How long ended sagas are kept; none: for ever.
    ///
    /// # Errors
    /// When the archive's folder can't be used.
    pub fn retention(&self) -> anyhow::Result<Option<orchestrator::Retention>> {
        let Retention { after_ms, keys_after_ms, every_ms, batch_max, ref archive_dir } = self.retention;
        if after_ms == 0 {
            return Ok(None);
        }
        let archive = || -> anyhow::Result<Arc<dyn Archive>> {
            let folder = Folder::new(Path::new(archive_dir), &Uuid::now_v7().simple().to_string());
            let folder = folder.with_context(|| format!("retention.archive_dir {archive_dir} can't be used"))?;
            Ok(Arc::new(folder))
        };
        Ok(Some(orchestrator::Retention {
            after_ms,
            keys_after_ms: (keys_after_ms > 0).then_some(keys_after_ms),
            every: Duration::from_millis(every_ms),
            batch_max,
            told: self.told_of_ended(),
            archive: if archive_dir.is_empty() { None } else { Some(archive()?) },
        }))
    }

    /// What is wrong with these sections beside ranges.
    pub(super) fn wrong_retention(&self) -> Option<String> {
        let Retention { after_ms, keys_after_ms, .. } = self.retention;
        let short = keys_after_ms > 0 && keys_after_ms < after_ms;
        short.then(|| {
            format!("retention.keys_after_ms is {keys_after_ms}; accepted is 0, or at least retention.after_ms, which is {after_ms}")
        })
    }
}
