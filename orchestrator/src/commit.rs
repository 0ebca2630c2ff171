//! Commits a batch and finds out what became of it.
//!
//! Not for choosing what is tried next: that is the worker's. Must hold: a lost answer is asked for, never guessed; what
//! was committed is handed to the publisher before anybody is told; a batch that the store refuses is halved until the
//! guilty input stands alone.

use std::time::Duration;

use runtime::Pause;
use saga_defs::Timestamp;
use saga_store::{Batch, Committed, Error as StoreError, Outcome};
use uuid::Uuid;

use crate::decided::Decided;
use crate::fold::{self, Group, Split, StartGroup};
use crate::settle;
use crate::shared::Shared;
use crate::work::Work;

/// Wait after the store failed, doubled up to its bound.
pub(crate) const PAUSE: Pause = Pause::new(Duration::from_millis(20), Duration::from_secs(1));
/// How often an input that the store refuses is tried alone.
const TRIES_MAX: u32 = 3;

/// What came of a commit.
pub(crate) enum Attempt {
    /// Durable, and published; nobody was told yet.
    Committed(Box<Landed>),
    /// Nothing was changed.
    Not(Kept),
}

/// Inputs that changed nothing.
pub(crate) enum Kept {
    /// The store is out of reach.
    Failed(Vec<Work>),
    /// The store refuses these, or one of them.
    Poisoned(Vec<Work>),
}

/// A commit that is over.
#[derive(Default)]
pub(crate) struct Landed {
    groups: Vec<Group>,
    starting: Vec<StartGroup>,
    /// Of the groups, then of what is starting.
    outcomes: Vec<Outcome>,
    now: Timestamp,
}

impl Landed {
    /// Tells everyone. Returns the inputs that lost a compare-and-swap and must be decided again.
    pub(crate) async fn tell(self, shared: &Shared) -> Vec<Work> {
        let (for_groups, for_starts) = self.outcomes.split_at(self.groups.len());
        settle::committed(shared, self.groups, for_groups, self.starting, for_starts, self.now).await
    }
}

/// Commits a batch, and publishes what it sends.
pub(crate) async fn commit(shared: &Shared, decided: Decided) -> Attempt {
    let Decided { mut groups, mut starting, now, .. } = decided;
    let moving = groups.iter_mut().filter_map(|group| group.transition.take());
    let transitions: Vec<_> = moving.chain(starting.iter_mut().filter_map(|group| group.transition.take())).collect();
    let ids: Vec<Uuid> = transitions.iter().map(|transition| transition.header.id).collect();
    let commit_id = shared.entropy.id(now);
    metrics::histogram!("bookend_commit_transitions").record(transitions.len() as f64);
    let confirmed = shared.outbound.take_safe();
    let batch = Batch { commit_id, now, transitions, confirmed: confirmed.clone() };
    let answer = shared.store.commit(batch).await;
    if answer.is_err() {
        // Whether they are gone or not: deleting them again does no harm.
        shared.outbound.give_safe_back(confirmed);
    }
    let take_back = |groups, starting| Decided { groups, starting, ..Decided::default() }.into_works();
    let committed = match answer {
        Ok(committed) => committed,
        Err(StoreError::UnknownCommit(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the answer of a commit was lost and is asked for"
            );
            match ask(shared, commit_id, &ids).await {
                // It never happened: what kept it from happening may still be there, so the next try is not at once.
                Some(asked) if !asked.outcomes.contains(&Outcome::Committed) => {
                    return Attempt::Not(Kept::Failed(take_back(groups, starting)));
                }
                Some(asked) => asked,
                None => return Attempt::Not(Kept::Failed(take_back(groups, starting))),
            }
        }
        Err(error) => return Attempt::Not(failed(&error, take_back(groups, starting))),
    };
    shared.outbound.publish(&committed.messages);
    let stored = groups.iter().map(Group::stored).chain(starting.iter().map(StartGroup::stored));
    let won = stored.zip(&committed.outcomes).filter(|(_, outcome)| **outcome == Outcome::Committed);
    shared.hot.keep(won.filter_map(|(stored, _)| stored));
    Attempt::Committed(Box::new(Landed { groups, starting, outcomes: committed.outcomes, now }))
}

/// Reads back what became of a commit, as long as it takes. None when the engine is stopping.
async fn ask(shared: &Shared, commit_id: Uuid, ids: &[Uuid]) -> Option<Committed> {
    let mut pause = PAUSE;
    loop {
        match shared.store.committed(commit_id, ids).await {
            Ok(found) => {
                metrics::counter!("bookend_commits_asked_total").increment(1);
                let fate = |id: &Uuid| if found.contains(id) { Outcome::Committed } else { Outcome::Lost };
                // The messages lie in the outbox and are left to the relay.
                return Some(Committed { outcomes: ids.iter().map(fate).collect(), messages: Vec::new() });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the fate of a commit could not be read")
            }
        }
        if !pause.wait(&shared.tasks).await {
            return None;
        }
    }
}

/// What an error of the store means for the inputs that met it.
pub(crate) fn failed(error: &StoreError, inputs: Vec<Work>) -> Kept {
    match error {
        StoreError::Unavailable(_) | StoreError::UnknownCommit(_) => {
            tracing::warn!(
                error = error as &(dyn std::error::Error + 'static),
                inputs = inputs.len(),
                "the store is out of reach; inputs are kept"
            );
            Kept::Failed(inputs)
        }
        StoreError::Bug(_) | StoreError::Corrupt(_) | StoreError::DefinitionChanged(_) => {
            tracing::error!(
                error = error as &(dyn std::error::Error + 'static),
                inputs = inputs.len(),
                "the store refused a batch"
            );
            Kept::Poisoned(inputs)
        }
    }
}

/// Inputs that are to be tried again.
pub(crate) enum Again {
    /// They lost a compare-and-swap.
    Lost(Vec<Work>),
    /// The store is out of reach.
    Failed(Vec<Work>),
}

/// Tries inputs that the store refuses in ever smaller parts, one after the other, so that only the guilty are lost.
pub(crate) async fn in_parts(shared: &Shared, refused: Vec<Work>) -> Again {
    let mut refused = Some((refused, 1));
    let (mut open, mut again) = (Vec::new(), Vec::new());
    loop {
        match refused.take().map(|(part, tries)| (halve(part), tries)) {
            Some((Ok(halves), _)) => open.extend(halves.map(|half| (half, 1))),
            Some((Err(guilty), tries)) if tries < TRIES_MAX => open.push((guilty, tries + 1)),
            Some((Err(guilty), tries)) => settle::poison(shared, guilty, tries).await,
            None => {}
        }
        let Some((part, tries)) = open.pop() else { return Again::Lost(again) };
        match attempt(shared, part).await {
            Attempt::Committed(landed) => again.extend(landed.tell(shared).await),
            Attempt::Not(Kept::Poisoned(part)) => refused = Some((part, tries)),
            Attempt::Not(Kept::Failed(part)) => {
                again.extend(part);
                again.extend(open.into_iter().flat_map(|(part, _)| part));
                return Again::Failed(again);
            }
        }
    }
}

/// Decides inputs and commits them, one after the other.
pub(crate) async fn attempt(shared: &Shared, works: Vec<Work>) -> Attempt {
    let mut decided = Decided::default();
    if let Err((error, mut works)) = decided.join(shared, works).await {
        works.extend(decided.into_works());
        return Attempt::Not(failed(&error, works));
    }
    if decided.is_empty() {
        return Attempt::Committed(Box::default());
    }
    commit(shared, decided).await
}

/// Halves a batch: between sagas and start keys where there are several, else between the inputs of the one saga, the
/// later half first, because the last half is tried first. What can't be parted comes back.
fn halve(batch: Vec<Work>) -> Result<[Vec<Work>; 2], Vec<Work>> {
    let Split { sagas, starts } = fold::split(batch);
    let mut parts: Vec<Vec<Work>> = sagas.into_values().collect();
    let of_one = parts.len() == 1 && starts.is_empty();
    parts.extend(
        starts.into_values().map(|starts| starts.into_iter().map(|start| Work::Start(Box::new(start))).collect()),
    );
    if parts.len() < 2 {
        let mut inputs: Vec<Work> = parts.into_iter().flatten().collect();
        if !of_one || inputs.len() < 2 {
            return Err(inputs);
        }
        let later = inputs.split_off(inputs.len() / 2);
        return Ok([later, inputs]);
    }
    let second = parts.split_off(parts.len() / 2);
    Ok([parts.into_iter().flatten().collect(), second.into_iter().flatten().collect()])
}
