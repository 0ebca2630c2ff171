//! The commit, as both dialects have it: what is to be written is laid out here, a dialect writes it and says who won, and
//! what the losers have met is read afterwards.
//!
//! Not for deciding. Must hold: transitions are given in the order of their ids; messages are laid out before anybody knows
//! who wins, so that a command that lost is neither published nor in the outbox; a batch is written whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use db::Db;
use saga_defs::Timestamp;
use uuid::Uuid;

use super::Writing;
use super::commit_rows::Stamp;
use super::dialect::Dialect;
use crate::messages::{self, Planned};
use crate::{Batch, Committed, Error, Guard, Outcome, Transition};

/// What is to be written.
pub(super) struct Plan<'a> {
    pub(super) commit_id: Uuid,
    pub(super) stamp: Stamp,
    pub(super) written_at: Timestamp,
    pub(super) in_order: Vec<&'a Transition>,
    pub(super) planned: Vec<Planned>,
    /// Outbox rows that are done with.
    pub(super) confirmed: &'a [Uuid],
    /// Whether what there is a shorter text for is written like any other batch, too.
    pub(super) longhand: bool,
    pub(super) trust: &'a Trust,
}

/// How many batches are written the long way once somebody has not won: requests that are repeated come in storms.
const CAREFUL: u32 = 15;

/// Whether everybody is counted on to win.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Batches to come that are written the long way.
    careful: AtomicU32,
}

impl Trust {
    fn is_there(&self) -> bool {
        self.careful.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    /// Somebody has not won.
    pub(super) fn lose(&self) {
        self.careful.store(CAREFUL, Ordering::Relaxed);
    }
}

impl Plan<'_> {
    /// Whether a new saga is among them.
    pub(super) fn starts(&self) -> bool {
        self.in_order.iter().any(|transition| is_start(transition))
    }

    /// Whether to try the text that counts on everybody to win, which must notice each loser: the index of business keys has
    /// open sagas only, and so tells nothing to a start that ends at once.
    pub(super) fn may_be_smooth(&self) -> bool {
        let ends_at_once = |transition: &&Transition| is_start(transition) && transition.saga.is_ended();
        !self.longhand && !self.in_order.iter().any(ends_at_once) && self.trust.is_there()
    }
}

/// How messages are handed to a statement.
#[derive(Clone, Copy)]
pub(super) enum Messages {
    /// Outbox rows as they are to be.
    Rows,
    /// Commands, of which those of losers are left out.
    Items,
}

fn is_start(transition: &Transition) -> bool {
    match transition.guard {
        Guard::Start { .. } => true,
        Guard::Version(_) => false,
    }
}

/// Commits a batch.
pub(super) async fn commit(
    db: &Db,
    dialect: &Dialect,
    trust: &Trust,
    batch: &Batch,
    writing: Writing,
) -> Result<Committed, Error> {
    let mut in_order: Vec<&Transition> = batch.transitions.iter().collect();
    in_order.sort_unstable_by_key(|transition| transition.header.id);
    let in_order = one_per_business_key(in_order);
    let commands = in_order.iter().flat_map(|transition| &transition.commands);
    let plan = Plan {
        commit_id: batch.commit_id,
        stamp: Stamp { now: batch.now, format: writing.format },
        written_at: db.now(),
        planned: messages::plan(batch.commit_id, batch.now, commands),
        in_order,
        confirmed: &batch.confirmed,
        longhand: writing.longhand,
        trust,
    };
    let won = dialect.write(db, &plan).await?;
    let messages = plan.planned.iter().filter_map(|planned| planned.message(|id| won.contains(&id))).collect();
    let mut met = met_by_losers(db, dialect, batch, &won).await;
    let outcome = |transition: &Transition| {
        let id = transition.header.id;
        if won.contains(&id) { Outcome::Committed } else { met.remove(&id).unwrap_or(Outcome::Lost) }
    };
    Ok(Committed { outcomes: batch.transitions.iter().map(outcome).collect(), messages })
}

/// Of several starts with one business key, the oldest. The others are told what they met.
fn one_per_business_key(mut in_order: Vec<&Transition>) -> Vec<&Transition> {
    let mut seen = BTreeSet::new();
    in_order.retain(|transition| match (&transition.guard, &transition.header.key) {
        (Guard::Start { .. }, Some(key)) => seen.insert((&transition.header.tenant, key)),
        (Guard::Start { .. }, None) | (Guard::Version(_), _) => true,
    });
    in_order
}

/// What starts that lost have met, read in later statements. The winners are durable by now: when it can't be read,
/// the starts count as lost, are decided again, and meet it again.
async fn met_by_losers(db: &Db, dialect: &Dialect, batch: &Batch, won: &BTreeSet<Uuid>) -> BTreeMap<Uuid, Outcome> {
    let lost = |transition: &&Transition| is_start(transition) && !won.contains(&transition.header.id);
    let starts: Vec<&Transition> = batch.transitions.iter().filter(lost).collect();
    if starts.is_empty() {
        return BTreeMap::new();
    }
    dialect.met(db, &starts).await.unwrap_or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "what starts have met could not be read; they are decided again"
        );
        BTreeMap::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_loss_some_batches_go_the_long_way_and_then_trust_is_back() {
        let trust = Trust::default();
        assert!(trust.is_there() && trust.is_there());
        trust.lose();
        assert!((0..CAREFUL).all(|_| !trust.is_there()));
        assert!(trust.is_there());
    }
}
