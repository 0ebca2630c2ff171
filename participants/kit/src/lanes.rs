//! How many calls are made at a time, and for whom.
//!
//! Must hold: a part is kept for what the sweep finds, so that commands that keep coming never keep it waiting for ever,
//! be it a refund that was postponed or the work of a run that died.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For whom a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// For a command that has just come.
    Commands,
    /// For a row that nobody had under way.
    Swept,
}

/// Room for calls.
#[derive(Debug)]
pub(crate) struct Lanes {
    open: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// Room for one call, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room(#[allow(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Lanes {
    /// Room for `calls` at a time, of which a quarter is kept; one at least of each.
    pub(crate) fn new(calls: usize) -> Self {
        let kept = (calls / 4).max(1);
        let open = calls.saturating_sub(kept).max(1);
        Self { open: Arc::new(Semaphore::new(open)), kept: Arc::new(Semaphore::new(kept)) }
    }

    /// Waits for room. Cancel-safe.
    pub(crate) async fn enter(&self, lane: Lane) -> Room {
        let (open, kept) = (Arc::clone(&self.open).acquire_owned(), Arc::clone(&self.kept).acquire_owned());
        let permit = match lane {
            Lane::Commands => open.await,
            Lane::Swept => tokio::select! {
                biased;
                permit = kept => permit,
                permit = open => permit,
            },
        };
        Room(permit.expect("nobody closes it"))
    }

    /// Room for a row that is swept up, where there is some now.
    pub(crate) fn try_enter_swept(&self) -> Option<Room> {
        let permit = |lane: &Arc<Semaphore>| Arc::clone(lane).try_acquire_owned().ok();
        permit(&self.kept).or_else(|| permit(&self.open)).map(Room)
    }

    /// How many more rows the sweep may begin with now.
    pub(crate) fn room_for_swept(&self) -> usize {
        self.kept.available_permits() + self.open.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn commands_leave_room_for_what_is_swept_up_and_not_the_other_way_round() {
        let lanes = Lanes::new(8);
        let enter = |lane| lanes.enter(lane).now_or_never();
        let commands: Vec<Room> = std::iter::from_fn(|| enter(Lane::Commands)).collect();
        assert_eq!((commands.len(), lanes.room_for_swept()), (6, 2));
        drop(commands);
        let swept: Vec<Room> = std::iter::from_fn(|| lanes.try_enter_swept()).collect();
        assert_eq!((swept.len(), lanes.room_for_swept()), (8, 0));
        assert!(enter(Lane::Swept).is_none());
    }

    #[test]
    fn the_least_is_one_of_each() {
        let lanes = Lanes::new(0);
        let both = [Lane::Commands, Lane::Swept].map(|lane| lanes.enter(lane).now_or_never());
        assert!(both.iter().all(Option::is_some));
    }
}
