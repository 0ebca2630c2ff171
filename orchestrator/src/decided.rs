//! A batch in the making: what the inputs of the next commit come to, decided while the last one is under way.
//!
//! Must hold: no saga and no start key is in two batches at once, so that a batch never waits for what another one will
//! find; what moves nothing is settled at once and is no part of a batch; inputs are kept beside what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use saga_defs::Timestamp;
use saga_store::{Error as StoreError, Loaded, StartKey};
use tokio::time::Instant;
use uuid::Uuid;

use crate::fold::{self, Group, Split, StartGroup, Unfolded};
use crate::settle;
use crate::shared::Shared;
use crate::unreadable;
use crate::work::{StartWork, Work};

/// Which sagas and start keys a batch is about.
#[derive(Debug, Default)]
pub(crate) struct About {
    sagas: BTreeSet<Uuid>,
    keys: BTreeSet<StartKey>,
}

impl About {
    fn has(&self, work: &Work) -> bool {
        match work {
            Work::Start(start) => self.keys.contains(&start.start_key),
            Work::Reply { reply, .. } => self.sagas.contains(&reply.saga_id),
            Work::Tick { saga_id } => self.sagas.contains(saga_id),
            Work::Operate(work) => self.sagas.contains(&work.saga_id),
        }
    }
}

/// Transitions that are decided and not committed.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    pub(crate) groups: Vec<Group>,
    pub(crate) starting: Vec<StartGroup>,
    /// The database's time when the newest of them was decided.
    pub(crate) now: Timestamp,
    /// When the first of them were decided. What reading their sagas took is not counted: deciding them again would take as
    /// long.
    pub(crate) since: Option<Instant>,
    pub(crate) about: About,
}

impl Decided {
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.starting.is_empty()
    }

    /// How long ago the oldest of them was decided.
    pub(crate) fn age(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Parts inputs: those that can join, and those whose saga or start key is in this batch or in `under_way`.
    pub(crate) fn part(&self, works: Vec<Work>, under_way: Option<&About>) -> (Vec<Work>, Vec<Work>) {
        works.into_iter().partition(|work| !self.about.has(work) && !under_way.is_some_and(|about| about.has(work)))
    }

    /// Decides inputs that can join. `Err` gives back those that no state could be read for.
    pub(crate) async fn join(&mut self, shared: &Shared, works: Vec<Work>) -> Result<(), (StoreError, Vec<Work>)> {
        let joined = self.decide(shared, works).await;
        if !self.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
        joined
    }

    async fn decide(&mut self, shared: &Shared, works: Vec<Work>) -> Result<(), (StoreError, Vec<Work>)> {
        let Split { mut sagas, starts } = fold::split(works);
        let now = match shared.store.load(&[]).await {
            Ok(loaded) => loaded.now,
            Err(error) => return Err((error, regroup(sagas.into_values().flatten(), starts.into_values().flatten()))),
        };
        self.now = self.now.max(now);
        for group in fold_hot(shared, &mut sagas, now) {
            self.add(group);
        }
        for starts in starts.into_values() {
            let group = fold::start(starts, &*shared.entropy, &shared.hints, now);
            self.about.keys.extend(group.starts.first().map(|start| start.start_key.clone()));
            self.starting.push(group);
        }
        if sagas.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = sagas.keys().copied().collect();
        match shared.store.load(&ids).await {
            Ok(loaded) => {
                for group in fold_loaded(shared, sagas, loaded).await {
                    self.add(group);
                }
                Ok(())
            }
            Err(error) => Err((error, sagas.into_values().flatten().collect())),
        }
    }

    fn add(&mut self, group: Group) {
        self.about.sagas.insert(group.snapshot.header.id);
        self.groups.push(group);
    }

    /// The inputs, to be decided again.
    pub(crate) fn into_works(self) -> Vec<Work> {
        let works = self.groups.into_iter().flat_map(Group::into_works);
        regroup(works, self.starting.into_iter().flat_map(|group| group.starts))
    }
}

/// Takes out those sagas that are hot and move: a commit will say whether that was so.
fn fold_hot(shared: &Shared, sagas: &mut BTreeMap<Uuid, Vec<Work>>, now: Timestamp) -> Vec<Group> {
    let mut moving = Vec::new();
    for (id, stored) in shared.hot.take(sagas.keys()) {
        let Some(works) = sagas.remove(&id) else { continue };
        match fold::fold(stored, |header| shared.definition(header), works, now) {
            Ok(group) if group.moved_by_all() => moving.push(group),
            Ok(group) => drop(sagas.insert(id, group.into_works().collect())),
            Err(unfolded) => drop(sagas.insert(id, unfolded.into_works())),
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
    let (mut orphans, mut foreign, mut torn) = (Vec::new(), Vec::new(), Vec::new());
    for (id, works) in sagas {
        match loaded.sagas.remove(&id) {
            None => orphans.extend(works),
            Some(stored) => match fold::fold(stored, |header| shared.definition(header), works, loaded.now) {
                Ok(group) => groups.push(group),
                Err(Unfolded::Foreign(works)) => foreign.extend(works),
                Err(Unfolded::Unreadable(met)) => torn.push(met),
            },
        }
    }
    settle::orphans(shared, orphans, loaded.now).await;
    settle::foreign(shared, foreign, loaded.now).await;
    unreadable::settle(shared, torn, loaded.now).await;
    let (idle, moving): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(|group| group.transition.is_none());
    settle::groups(shared, idle, loaded.now).await;
    moving
}

fn regroup(works: impl Iterator<Item = Work>, starts: impl Iterator<Item = StartWork>) -> Vec<Work> {
    works.chain(starts.map(|start| Work::Start(Box::new(start)))).collect()
}
