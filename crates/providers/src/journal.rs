//! The journal: every change of the providers' world, one JSON object a line, so that a simulator that was killed
//! remembers as a real provider does.
//!
//! Not for durability against power loss: lines are written but not synced, because what a killed process wrote is
//! in the page cache. Must hold: a change is written before it is made and before anybody is told; a line without
//! its end was told to nobody, so it is dropped at the start; any other line that makes no sense stops the start,
//! since a gateway that guesses its books is worse than none; only one process at a time has the file.
//!
//! It grows with what was accepted, at most four lines per intent and one per message, and is never rewritten.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::accepted::Message;
use crate::intents::{Became, Misfit, Wish};
use crate::refusal::Refusal;

/// Something that happened in the providers' world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// An intent was created.
    Created(Wish),
    /// An intent moved on.
    Intent { id: String, became: Became },
    /// A text message went out.
    Sms(Message),
    /// A mail went out.
    Mail(Message),
}

/// The open file, at its end.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// A write failed and may have left half a line, which only the next start can clear away.
    failed: bool,
}

impl Journal {
    /// Opens the file, creating it where it is missing, and hands over what it holds, oldest first.
    pub(crate) fn open(path: &Path, mut apply: impl FnMut(Change) -> Result<(), Misfit>) -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(Error::Journal)?;
        let mut reader = BufReader::new(&file);
        let (mut text, mut line, mut whole_bytes) = (Vec::new(), 0, 0);
        loop {
            text.clear();
            let bytes = reader.read_until(b'\n', &mut text).map_err(Error::Journal)?;
            if !text.ends_with(b"\n") {
                break;
            }
            line += 1;
            whole_bytes += bytes as u64;
            let change = serde_json::from_slice(&text).map_err(|source| Error::JournalLine { line, source })?;
            apply(change).map_err(|Misfit| Error::JournalOrder { line })?;
        }
        if !text.is_empty() {
            tracing::warn!(bytes = text.len(), "the last line of the simulators' journal was torn and is dropped");
            file.set_len(whole_bytes).map_err(Error::Journal)?;
        }
        Ok(Self { file, failed: false })
    }

    /// Writes one change. On a refusal it must not be made.
    pub(crate) fn append(&mut self, change: &Change) -> Result<(), Refusal> {
        if self.failed {
            return Err(Refusal::Unwritable);
        }
        let mut text = serde_json::to_vec(change).expect("changes have string keys and no failing serializers");
        text.push(b'\n');
        self.file.write_all(&text).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the simulators' journal can't be written");
            self.failed = true;
            Refusal::Unwritable
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failed_write_nothing_more_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("providers.jsonl");
        let change = Change::Intent { id: "pi".to_owned(), became: Became::Declined };
        // Opened for reading only, so that writing fails.
        let mut journal = Journal { file: File::create(&path).and_then(|_| File::open(&path)).unwrap(), failed: false };
        assert_eq!(journal.append(&change), Err(Refusal::Unwritable));
        journal.file = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(journal.append(&change), Err(Refusal::Unwritable), "a line after half a line would be lost");
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}
