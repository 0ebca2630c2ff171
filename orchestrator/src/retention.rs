//! Ended sagas do not stay for ever: announces them to the participants that they touched, archives them, deletes them.
//!
//! Not for what is open or stuck, whatever its age. Must hold: a saga is announced only when no command of its can be
//! sent any more, neither by itself nor from the outbox nor as a dead letter; it is deleted only after that announcement
//! is confirmed, and after the archive has it on disk. Several instances may do all of this at once: what one does twice
//! does no harm, so claims save work and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use runtime::Pause;
use saga_core::Saga;
use saga_defs::catalog::Loaded;
use saga_defs::{Definition, Timestamp};
use saga_store::{Error as StoreError, HistoryRow, LateReply, Leaving, State, Stored};
use uuid::Uuid;

use crate::archive::{self, Archive};
use crate::shared::Shared;
use crate::unreadable;

/// How far a claimed departure is pushed: whoever dies with it delays it by this.
const PUSH_MS: u64 = 60_000;
/// Rows read at once.
const PAGE: u64 = 200;
/// Between two batches, so that a backlog of years holds nobody up.
const BREATH: Duration = Duration::from_millis(20);
/// While a message waits in the outbox for longer than this, nothing more is announced: somebody is out of reach, and
/// what can't be told must not pile up.
const OUTBOX_AGE_MAX_MS: u64 = 30_000;
/// Wait after a failure, doubled up to its bound.
const PAUSE: Pause = Pause::new(Duration::from_secs(1), Duration::from_secs(60));

/// How long ended sagas are kept, and what becomes of them.
#[derive(Clone, Debug)]
pub struct Retention {
    /// How long after its end a saga is kept, at least.
    pub after_ms: u64,
    /// How long after it was taken a start key is kept, at least, and never less long than its saga. None: for ever.
    pub keys_after_ms: Option<u64>,
    /// How often sagas are looked for.
    pub every: Duration,
    /// Sagas that are announced, archived or deleted at once.
    pub batch_max: usize,
    /// Participants that understand announcements. Others are not told.
    pub told: BTreeSet<String>,
    /// Where sagas go before they are deleted.
    pub archive: Option<Arc<dyn Archive>>,
}

/// Why a turn did not end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the archive can't be written")]
    Archive(#[from] std::io::Error),
}

pub(crate) async fn run(shared: Arc<Shared>, retention: Retention) {
    let mut pause = PAUSE;
    let turns = Turns { shared, retention };
    while turns.shared.tasks.sleep(turns.retention.every).await {
        match turns.turn().await {
            Ok(()) => pause.reset(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "ended sagas stay longer than they should");
                pause.wait(&turns.shared.tasks).await;
            }
        }
    }
}

struct Turns {
    shared: Arc<Shared>,
    retention: Retention,
}

impl Turns {
    fn batch_max(&self) -> u64 {
        self.retention.batch_max as u64
    }

    /// False when the engine stops.
    async fn goes_on(&self) -> bool {
        self.shared.tasks.sleep(BREATH).await
    }

    async fn turn(&self) -> Result<(), Failure> {
        // First those that earlier turns have announced.
        while self.delete().await? == self.batch_max() && self.goes_on().await {}
        self.shared.definitions.look_again(&*self.shared.store).await;
        let definitions: Vec<Arc<Loaded>> = self.shared.definitions.known().iter().cloned().collect();
        for loaded in definitions {
            let mut passed = Vec::new();
            while self.announce(&loaded.definition, &mut passed).await? {
                if !self.goes_on().await {
                    return Ok(());
                }
            }
        }
        while self.delete_keys().await? == self.batch_max() && self.goes_on().await {}
        Ok(())
    }

    /// Announces sagas of one definition, but for those that can't leave, which are passed over from then on. Whether there
    /// may be more.
    async fn announce(&self, definition: &Definition, passed: &mut Vec<Uuid>) -> Result<bool, Failure> {
        let store = &self.shared.store;
        let (now, outbox) = (store.load(&[]).await?.now, store.outbox_load().await?);
        if outbox.rows > 0 && outbox.oldest_ms > OUTBOX_AGE_MAX_MS {
            return Ok(false);
        }
        let ended_by = ended_by(now, outbox.oldest_ms, self.retention.after_ms, definition.dedupe_window_ms);
        let ids = store.ended((&definition.name, definition.version), ended_by, passed, self.batch_max()).await?;
        if ids.is_empty() {
            return Ok(false);
        }
        let sagas = store.load(&ids).await?.sagas;
        let before = passed.len();
        passed.extend(unreadable::staying(sagas.values()));
        let leaving = |stored: &Stored| match &stored.state {
            State::Known(saga) => Some(Leaving {
                saga_id: stored.header.id,
                participants: touched(definition, saga)
                    .filter(|name| self.retention.told.contains(*name))
                    .cloned()
                    .collect(),
            }),
            // For instances that can read it, or for a person.
            State::Foreign(_) | State::Unreadable(_) => None,
        };
        let leaving: Vec<Leaving> = sagas.values().filter_map(leaving).collect();
        let marked = store.announce_ended(self.shared.entropy.id(now), &leaving).await?;
        metrics::counter!("bookend_retention_announced_total").increment(marked.len() as u64);
        // Whether others announce the same ones meanwhile, or nobody can: what is not passed over comes again.
        let moved = !marked.is_empty() || passed.len() > before;
        Ok(moved && ids.len() as u64 == self.batch_max())
    }

    /// Archives and deletes sagas whose announcements are confirmed; how many were claimed.
    async fn delete(&self) -> Result<u64, Failure> {
        let store = &self.shared.store;
        let ids = store.claim_departures(self.batch_max(), PUSH_MS).await?;
        let leaving = match &self.retention.archive {
            Some(archive) => self.archive(&**archive, &ids).await?,
            None => self.spared(&ids).await?,
        };
        let deleted = store.delete_departed(&leaving).await?;
        if deleted > 0 {
            metrics::counter!("bookend_retention_deleted_total").increment(deleted);
            tracing::info!(sagas = deleted, "ended sagas are deleted");
        }
        Ok(ids.len() as u64)
    }

    /// Those that may go although nobody keeps them: what can't be read may be mended.
    async fn spared(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, Failure> {
        let sagas = if ids.is_empty() { BTreeMap::new() } else { self.shared.store.load(ids).await?.sagas };
        let staying = unreadable::staying(sagas.values());
        Ok(ids.iter().filter(|id| !staying.contains(id)).copied().collect())
    }

    /// Writes sagas to the archive, one after the other, and waits until they are on disk. Those that may go.
    async fn archive(&self, archive: &dyn Archive, ids: &[Uuid]) -> Result<Vec<Uuid>, Failure> {
        let mut archived = Vec::new();
        for id in ids {
            let Some(stored) = self.shared.store.load(&[*id]).await?.sagas.remove(id) else {
                // Gone already: another instance was faster.
                archived.push(*id);
                continue;
            };
            unreadable::staying(std::iter::once(&stored));
            let saga = match stored.state {
                State::Known(saga) => saga,
                // For instances that can read it, or for a person.
                State::Foreign(_) | State::Unreadable(_) => continue,
            };
            let line = archive::line(&stored.header, &saga, &self.history(*id).await?, &self.late(*id).await?);
            archive.append(line).await?;
            archived.push(*id);
        }
        if !archived.is_empty() {
            archive.sync().await?;
        }
        Ok(archived)
    }

    async fn history(&self, id: Uuid) -> Result<Vec<HistoryRow>, Failure> {
        let mut all: Vec<HistoryRow> = Vec::new();
        loop {
            let after = all.last().map_or(0, |row| row.seq);
            let page = self.shared.store.history(id, after, PAGE).await?;
            let last = (page.len() as u64) < PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    async fn late(&self, id: Uuid) -> Result<Vec<LateReply>, Failure> {
        let mut all: Vec<LateReply> = Vec::new();
        loop {
            let page = self.shared.store.late_page(id, all.len() as u64, PAGE).await?;
            let last = (page.len() as u64) < PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    /// Deletes old start keys; how many.
    async fn delete_keys(&self) -> Result<u64, Failure> {
        let Some(after_ms) = self.retention.keys_after_ms else { return Ok(0) };
        // Those of sagas that can't be gone yet would be looked at in each turn, and stay.
        let known = self.shared.definitions.known();
        let windows = known.iter().map(|loaded| loaded.definition.dedupe_window_ms);
        let after_ms = windows.fold(after_ms, u64::max);
        let created_by = before(self.shared.store.load(&[]).await?.now, after_ms);
        let deleted = self.shared.store.delete_start_keys(created_by, self.batch_max()).await?;
        metrics::counter!("bookend_retention_keys_deleted_total").increment(deleted);
        Ok(deleted)
    }
}

fn before(now: Timestamp, ms: u64) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX)))
}

/// The latest end of sagas that may be announced now. No command of theirs was written later than their window after
/// their end, by the saga itself or as a replayed dead letter; so it lies in no outbox row that is younger than that.
fn ended_by(now: Timestamp, oldest_ms: u64, after_ms: u64, window_ms: u64) -> Timestamp {
    // A row that was written in the very instant in which the window ended counts as older.
    let oldest = before(now, oldest_ms.saturating_add(1));
    before(now, after_ms).min(before(oldest, window_ms))
}

/// The participants that were ever sent a command of this saga.
fn touched<'a>(definition: &'a Definition, saga: &'a Saga) -> impl Iterator<Item = &'a String> {
    let was_sent = |name: &str| {
        // A later generation begins without a command of its own.
        saga.step(name).is_some_and(|state| state.first_sent_at.is_some() || state.generation > 0)
    };
    definition.steps.iter().filter(move |step| was_sent(&step.name)).map(|step| &step.participant)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_253_400_000_000);

    #[test]
    fn a_saga_is_announced_when_it_is_old_and_its_window_is_over() {
        assert_eq!(ended_by(NOW, 0, 10_000, 500), before(NOW, 10_000));
        assert_eq!(ended_by(NOW, 0, 500, 10_000), before(NOW, 10_001));
        assert_eq!(ended_by(NOW, 2_000, 500, 10_000), before(NOW, 12_001), "a command may lie in the outbox");
        assert!(ended_by(NOW, 0, u64::MAX, u64::MAX) < Timestamp(0), "never");
    }

    #[test]
    fn those_are_told_who_were_sent_a_command() {
        let text = serde_json::json!({
            "version": 3, "seed": 1, "phase": {"ended": "compensated"},
            "steps": {
                "booking": {"first_sent_at": 1, "execute": {"sent": 1}},
                "payment": {"first_sent_at": 2, "compensate": {"sent": 1}},
                "notify": {"effect": {"skipped": {}}}
            }
        });
        let saga: Saga = serde_json::from_value(text).unwrap();
        let booking = saga_defs::catalog::booking();
        assert_eq!(touched(&booking, &saga).collect::<Vec<_>>(), ["booking", "payment"]);
    }
}
