//! The end of a saga's rows: found by age, announced to the participants that they touched, then deleted.
//!
//! Not for deciding when that is: see the engine's `retention`. Must hold: only ended sagas leave, and none whose late
//! replies contradict it; a saga is deleted only when every message that announces it has been confirmed; who announces
//! and who deletes is settled by conditional writes, so that any number of instances may do both at once.

use std::collections::BTreeSet;

use async_trait::async_trait;
use saga_defs::Timestamp;
use uuid::Uuid;

use crate::{Error, LateReply};

/// A saga that is to be announced as ended, and who must hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The saga.
    pub saga_id: Uuid,
    /// Participants that have effects of it and understand announcements; may be none.
    pub participants: BTreeSet<String>,
}

/// What the store does about sagas that are over.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Sagas of this definition and version that ended at `ended_by` or before and were not announced yet, the longest
    /// ended first. Without those that a late reply contradicts, those in a newer format than this build's, and `passed`,
    /// which can't leave.
    async fn ended(
        &self,
        definition: (&str, u32),
        ended_by: Timestamp,
        passed: &[Uuid],
        limit: u64,
    ) -> Result<Vec<Uuid>, Error>;

    /// Announces those of these ended sagas that nobody has announced: marks them as leaving and puts the messages to
    /// their participants into the outbox, due at once, in one commit. `batch` is new and names that commit. The sagas
    /// that it is about.
    async fn announce_ended(&self, batch: Uuid, leaving: &[Leaving]) -> Result<Vec<Uuid>, Error>;

    /// Claims up to `limit` leaving sagas whose announcements are confirmed, by pushing them to `push_ms` from now.
    async fn claim_departures(&self, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error>;

    /// Late replies of a saga, oldest first: `limit` after the first `skip`.
    async fn late_page(&self, saga_id: Uuid, skip: u64, limit: u64) -> Result<Vec<LateReply>, Error>;

    /// Deletes all rows of those of these sagas that are leaving and whose announcements are confirmed, but not their
    /// start keys. How many sagas that were.
    async fn delete_departed(&self, ids: &[Uuid]) -> Result<u64, Error>;

    /// Deletes up to `limit` start keys that were taken at `created_by` or before and whose sagas are gone. How many.
    async fn delete_start_keys(&self, created_by: Timestamp, limit: u64) -> Result<u64, Error>;

    /// The latest end of any saga that was deleted: one that is younger than this may never have been. None as long as
    /// none was deleted.
    async fn deleted_ended_by(&self) -> Result<Option<Timestamp>, Error>;
}
