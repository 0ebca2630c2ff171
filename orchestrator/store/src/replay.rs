//! Checks that a stored state is the fold of its stored history.
//!
//! Must hold: reads only. A saga that changes between the two reads is read again, so that no live saga looks broken.

use std::sync::Arc;

use saga_core::{Corrupt, Event, Saga};
use uuid::Uuid;

use crate::{Error, State, Store};

/// Rows of history that are read at once.
const PAGE: u64 = 200;
/// How often a saga that keeps changing is read again.
const READS_MAX: u32 = 5;

/// Why a state is not the fold of its history, or why that can't be said.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// The store did not answer.
    #[error("the store did not answer")]
    Store(#[source] Error),
    /// There is no such saga.
    #[error("saga {0} does not exist")]
    Missing(Uuid),
    /// The saga was written by a build with another format, which has to check it.
    #[error("saga {saga_id} has format {format}, which this build does not know")]
    Foreign {
        /// The saga.
        saga_id: Uuid,
        /// The format of its state or of its events.
        format: u16,
    },
    /// The stored state can't be read.
    #[error("saga {saga_id} can't be read: {why}")]
    Unreadable {
        /// The saga.
        saga_id: Uuid,
        /// What is wrong with it.
        why: String,
    },
    /// Rows of history are not numbered 1, 2, 3 …
    #[error("history of saga {saga_id} has a gap before {seq}")]
    Gap {
        /// The saga.
        saga_id: Uuid,
        /// The number that follows the gap.
        seq: u64,
    },
    /// A row of history can't be read.
    #[error("row {seq} of the history of saga {saga_id} can't be read")]
    Events {
        /// The saga.
        saga_id: Uuid,
        /// The row.
        seq: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The history can't be one.
    #[error("history of saga {saga_id} can't be replayed")]
    History {
        /// The saga.
        saga_id: Uuid,
        /// What is wrong with it.
        source: Corrupt,
    },
    /// The stored state is another one.
    #[error("saga {saga_id} is stored at version {stored}, and its history leads to another state at {replayed}")]
    State {
        /// The saga.
        saga_id: Uuid,
        /// Version of the stored state.
        stored: u64,
        /// Version of the replayed state.
        replayed: u64,
    },
    /// The saga changed whenever it was read.
    #[error("saga {0} changes too often to be checked; try again")]
    Restless(Uuid),
}

impl From<Error> for Mismatch {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Replays the history of a saga and compares what comes out with the stored state.
///
/// # Errors
/// What differs, or why it can't be said.
pub async fn check_replay(store: &dyn Store, saga_id: Uuid) -> Result<(), Mismatch> {
    for _ in 0..READS_MAX {
        let stored = read_state(store, saga_id).await?;
        let history = read_history(store, saga_id).await?;
        // Longer than the state says: there was a transition between the two reads, or the state is behind.
        if history.len() as u64 > stored.version && read_state(store, saga_id).await?.version != stored.version {
            continue;
        }
        return compare(saga_id, &stored, &history);
    }
    Err(Mismatch::Restless(saga_id))
}

async fn read_state(store: &dyn Store, saga_id: Uuid) -> Result<Arc<Saga>, Mismatch> {
    let stored = store.load(&[saga_id]).await?.sagas.remove(&saga_id).ok_or(Mismatch::Missing(saga_id))?;
    match stored.state {
        State::Known(saga) => Ok(saga),
        State::Foreign(format) => Err(Mismatch::Foreign { saga_id, format }),
        State::Unreadable(unreadable) => Err(Mismatch::Unreadable { saga_id, why: unreadable.why }),
    }
}

async fn read_history(store: &dyn Store, saga_id: Uuid) -> Result<Vec<Vec<Event>>, Mismatch> {
    let mut transitions: Vec<Vec<Event>> = Vec::new();
    loop {
        let page = store.history(saga_id, transitions.len() as u64, PAGE).await?;
        let last = (page.len() as u64) < PAGE;
        for row in page {
            let seq = row.seq;
            if seq != transitions.len() as u64 + 1 {
                return Err(Mismatch::Gap { saga_id, seq });
            }
            if row.format != saga_core::FORMAT {
                return Err(Mismatch::Foreign { saga_id, format: row.format });
            }
            let events = serde_json::from_str(&row.events);
            transitions.push(events.map_err(|source| Mismatch::Events { saga_id, seq, source })?);
        }
        if last {
            return Ok(transitions);
        }
    }
}

fn compare(saga_id: Uuid, stored: &Saga, history: &[Vec<Event>]) -> Result<(), Mismatch> {
    let replayed =
        saga_core::replay(history.iter().map(Vec::as_slice)).map_err(|source| Mismatch::History { saga_id, source })?;
    if replayed == *stored {
        return Ok(());
    }
    Err(Mismatch::State { saga_id, stored: stored.version, replayed: replayed.version })
}
