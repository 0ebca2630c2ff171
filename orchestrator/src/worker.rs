//! A worker's turn: take what has arrived, load, decide, commit, then tell.
//!
//! Must hold: a batch is what arrived while the last commit ran, and who is alone waits for nobody; a worker never waits
//! for a publisher, a client or another worker; a lost answer of a commit is asked for, never guessed; a batch that the
//! store refuses is halved until the guilty input stands alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::Pause;
use saga_defs::Timestamp;
use saga_store::{Batch, Committed, Error as StoreError, Loaded, Outcome};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::backlog::{Backlog, Next};
use crate::fold::{self, Group, Split, StartGroup};
use crate::gather::Gather;
use crate::settle;
use crate::shared::Shared;
use crate::work::{StartWork, Work};

/// How often an input that the store refuses is tried alone.
const TRIES_MAX: u32 = 3;
/// Wait after the store failed, doubled up to its bound.
const PAUSE: Pause = Pause::new(Duration::from_millis(20), Duration::from_secs(1));

pub(crate) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Work>) {
    let mut backlog = Backlog::new(shared.options.batch_max);
    let (mut pause, mut gather) = (PAUSE, Gather::default());
    while let Some(next) = take(&shared, &mut queue, &mut backlog, &gather).await {
        let (batch, wait) = next.into_parts();
        let (inputs, began) = (batch.len(), Instant::now());
        let turned = turn(&shared, batch).await;
        gather.turned(inputs, began.elapsed());
        match turned {
            Turn::Done(losers) => {
                backlog.done(losers);
                pause.reset();
            }
            Turn::Failed(batch) => {
                backlog.failed(batch, wait, Instant::now());
                // While stopping, nothing is waited for: what is not committed was not acknowledged either.
                if !pause.wait(&shared.tasks).await {
                    return;
                }
            }
        }
    }
}

/// Waits for something to try, and takes along what is there; none when there will be nothing.
async fn take(
    shared: &Shared,
    queue: &mut mpsc::Receiver<Work>,
    backlog: &mut Backlog<Work>,
    gather: &Gather,
) -> Option<Next<Work>> {
    loop {
        let mut next = backlog.next(Instant::now());
        if next.inputs.is_empty() {
            tokio::select! {
                biased;
                work = queue.recv() => next.inputs.push(work?),
                () = until(backlog.due()) => continue,
                () = shared.tasks.stopping() => {
                    queue.close();
                    next.inputs.push(queue.recv().await?);
                }
            }
            next.room -= 1;
        }
        fill(queue, &mut next);
        let (goal, patience) = gather.goal();
        let until = Instant::now() + patience;
        while next.room > 0 && next.inputs.len() < goal {
            let Ok(Some(work)) = tokio::time::timeout_at(until, queue.recv()).await else { break };
            next.inputs.push(work);
            next.room -= 1;
            fill(queue, &mut next);
        }
        return Some(next);
    }
}

/// Takes along what is there.
fn fill(queue: &mut mpsc::Receiver<Work>, next: &mut Next<Work>) {
    while next.room > 0 {
        let Ok(work) = queue.try_recv() else { return };
        next.inputs.push(work);
        next.room -= 1;
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What came of a turn.
enum Turn {
    /// Inputs that lost a compare-and-swap and must be decided again.
    Done(Vec<Work>),
    /// The store is out of reach; nothing was changed by these inputs.
    Failed(Vec<Work>),
}

async fn turn(shared: &Shared, batch: Vec<Work>) -> Turn {
    let mut open = vec![(batch, 1)];
    let mut again = Vec::new();
    while let Some((batch, tries)) = open.pop() {
        match attempt(shared, batch).await {
            Attempt::Done(losers) => again.extend(losers),
            Attempt::Failed(batch) => {
                again.extend(batch);
                again.extend(open.into_iter().flat_map(|(batch, _)| batch));
                return Turn::Failed(again);
            }
            Attempt::Poisoned(batch) => match halve(batch) {
                Ok(halves) => open.extend(halves.map(|half| (half, 1))),
                Err(guilty) if tries < TRIES_MAX => open.push((guilty, tries + 1)),
                Err(guilty) => settle::poison(shared, guilty, tries).await,
            },
        }
    }
    Turn::Done(again)
}

enum Attempt {
    Done(Vec<Work>),
    Failed(Vec<Work>),
    Poisoned(Vec<Work>),
}

async fn attempt(shared: &Shared, batch: Vec<Work>) -> Attempt {
    let Split { mut sagas, starts } = fold::split(batch);
    let now = match shared.store.load(&[]).await {
        Ok(loaded) => loaded.now,
        Err(error) => return failed(&error, regroup(sagas.into_values().flatten(), starts.into_values().flatten())),
    };
    let mut moving = fold_hot(shared, &mut sagas, now);
    let ids: Vec<Uuid> = sagas.keys().copied().collect();
    let loaded = match shared.store.load(&ids).await {
        Ok(loaded) => loaded,
        Err(error) => {
            let works = sagas.into_values().flatten().chain(moving.into_iter().flat_map(Group::into_works));
            return failed(&error, regroup(works, starts.into_values().flatten()));
        }
    };
    moving.extend(fold_loaded(shared, sagas, loaded).await);
    let begin = |starts| fold::start(starts, &*shared.entropy, &shared.hints, now);
    let starting = starts.into_values().map(begin).collect();
    commit(shared, moving, starting, now).await
}

/// Takes out those sagas that are hot and move: a commit will say whether that was so.
fn fold_hot(shared: &Shared, sagas: &mut BTreeMap<Uuid, Vec<Work>>, now: Timestamp) -> Vec<Group> {
    let mut moving = Vec::new();
    for (id, stored) in shared.hot.take(sagas.keys()) {
        let Some(works) = sagas.remove(&id) else { continue };
        match fold::fold(stored, |header| shared.definition(header), works, now) {
            Ok(group) if group.moved_by_all() => moving.push(group),
            Ok(group) => drop(sagas.insert(id, group.into_works().collect())),
            Err(works) => drop(sagas.insert(id, works)),
        }
    }
    moving
}

/// Settles what moves nothing, and returns what does.
async fn fold_loaded(shared: &Shared, sagas: BTreeMap<Uuid, Vec<Work>>, mut loaded: Loaded) -> Vec<Group> {
    if loaded.sagas.values().any(|stored| shared.definition(&stored.header).is_none()) {
        shared.definitions.look_again(&*shared.store).await;
    }
    let mut groups = Vec::new();
    let (mut orphans, mut foreign) = (Vec::new(), Vec::new());
    for (id, works) in sagas {
        match loaded.sagas.remove(&id) {
            None => orphans.extend(works),
            Some(stored) => match fold::fold(stored, |header| shared.definition(header), works, loaded.now) {
                Ok(group) => groups.push(group),
                Err(works) => foreign.extend(works),
            },
        }
    }
    settle::orphans(shared, orphans, loaded.now).await;
    settle::foreign(shared, foreign, loaded.now).await;
    let (idle, moving): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(|group| group.transition.is_none());
    settle::groups(shared, idle, loaded.now).await;
    moving
}

async fn commit(shared: &Shared, mut groups: Vec<Group>, starting: Vec<StartGroup>, now: Timestamp) -> Attempt {
    if groups.is_empty() && starting.is_empty() {
        return Attempt::Done(Vec::new());
    }
    let moving = groups.iter_mut().filter_map(|group| group.transition.take());
    let transitions: Vec<_> = moving.chain(starting.iter().map(|group| group.transition.clone())).collect();
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
                    return Attempt::Failed(take_back(groups, starting));
                }
                Some(asked) => asked,
                None => return Attempt::Failed(take_back(groups, starting)),
            }
        }
        Err(error) => return failed(&error, take_back(groups, starting)),
    };
    shared.outbound.publish(&committed.messages);
    let (for_groups, for_starts) = committed.outcomes.split_at(groups.len());
    let moved = groups.iter().zip(for_groups).map(|(group, outcome)| (group.stored(), outcome));
    let born = starting.iter().zip(for_starts).map(|(group, outcome)| (group.stored(), outcome));
    shared
        .hot
        .keep(moved.chain(born).filter_map(|(stored, outcome)| stored.filter(|_| *outcome == Outcome::Committed)));
    Attempt::Done(settle::committed(shared, groups, for_groups, starting, for_starts, now).await)
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

fn failed(error: &StoreError, batch: Vec<Work>) -> Attempt {
    match error {
        StoreError::Unavailable(_) | StoreError::UnknownCommit(_) => {
            tracing::warn!(
                error = error as &(dyn std::error::Error + 'static),
                inputs = batch.len(),
                "the store is out of reach; inputs are kept"
            );
            Attempt::Failed(batch)
        }
        StoreError::Bug(_) | StoreError::Corrupt(_) | StoreError::DefinitionChanged(_) => {
            tracing::error!(
                error = error as &(dyn std::error::Error + 'static),
                inputs = batch.len(),
                "the store refused a batch"
            );
            Attempt::Poisoned(batch)
        }
    }
}

fn take_back(groups: Vec<Group>, starting: Vec<StartGroup>) -> Vec<Work> {
    let works = groups.into_iter().flat_map(Group::into_works);
    regroup(works, starting.into_iter().flat_map(|group| group.starts))
}

fn regroup(works: impl Iterator<Item = Work>, starts: impl Iterator<Item = StartWork>) -> Vec<Work> {
    works.chain(starts.map(|start| Work::Start(Box::new(start)))).collect()
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
