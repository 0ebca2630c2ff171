//! Everything that the providers know, in memory and, where there is a journal, in a file as well.
//!
//! Not for deciding: intents and messages do. Must hold: memory is never ahead of the journal; a replayed change goes
//! the way of a live one.

use std::path::Path;

use crate::Error;
use crate::accepted::{Accepted, Kind};
use crate::intents::{Intents, Misfit};
use crate::journal::{Change, Journal};
use crate::refusal::Refusal;

/// The providers' memory.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) intents: Intents,
    pub(crate) accepted: Accepted,
    pub(crate) sms_down: bool,
    journal: Option<Journal>,
}

impl World {
    /// A world in which nothing has happened, and which ends with the process.
    pub(crate) fn in_memory(records_max: usize) -> Self {
        let (intents, accepted) = (Intents::new(records_max), Accepted::new(records_max));
        Self { intents, accepted, sms_down: false, journal: None }
    }

    /// The world of a journal. What it holds beyond `records_max` is kept; nothing is added to it.
    pub(crate) fn open(records_max: usize, path: &Path) -> Result<Self, Error> {
        let mut world = Self::in_memory(records_max);
        let journal = Journal::open(path, |change| world.apply(change))?;
        world.journal = Some(journal);
        Ok(world)
    }

    /// Writes a change down and makes it. It must have been decided on this very state.
    ///
    /// The caller holds the world's lock, and the write is a synchronous one on purpose: a line of some hundred bytes
    /// goes to the page cache within microseconds, and the lock keeps the order of the lines that of the changes.
    pub(crate) fn commit(&mut self, change: Change) -> Result<(), Refusal> {
        if let Some(journal) = &mut self.journal {
            journal.append(&change)?;
        }
        self.apply(change).expect("a change that was decided on this state fits it");
        Ok(())
    }

    fn apply(&mut self, change: Change) -> Result<(), Misfit> {
        match change {
            Change::Created(wish) => self.intents.add(wish),
            Change::Intent { id, became } => self.intents.apply(&id, became, &mut self.accepted),
            Change::Sms(message) => {
                self.accepted.message(Kind::Sms, message);
                Ok(())
            }
            Change::Mail(message) => {
                self.accepted.message(Kind::Mail, message);
                Ok(())
            }
        }
    }
}
