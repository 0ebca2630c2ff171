//! Who is still at work: what shutdown waits for, and which consumers do not consume.
//!
//! Must hold: every count goes up once and down once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Messages without a fate and consumers with an owner.
#[derive(Debug, Default)]
pub(super) struct Activity {
    counts: watch::Sender<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    flying: usize,
    consumers: usize,
}

impl Counts {
    fn quiet(&self) -> bool {
        self.flying == 0 && self.consumers == 0
    }
}

impl Activity {
    pub(super) fn flying(&self, messages: usize) {
        self.change(|counts| counts.flying += messages);
    }

    pub(super) fn landed(&self, messages: usize) {
        self.change(|counts| counts.flying = counts.flying.saturating_sub(messages));
    }

    pub(super) fn consumer_came(&self) {
        self.change(|counts| counts.consumers += 1);
    }

    pub(super) fn consumer_left(&self) {
        self.change(|counts| counts.consumers = counts.consumers.saturating_sub(1));
    }

    /// Waits until nothing goes on.
    pub(super) async fn quiet(&self) {
        // It only fails when the sender is gone, which this struct owns.
        let _ = self.counts.subscribe().wait_for(Counts::quiet).await;
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_if_modified(|counts| {
            change(counts);
            counts.quiet()
        });
    }
}

/// The consumers that were asked for.
#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    /// For each the queue's name and why it is not consumed.
    taken: BTreeMap<u64, (String, Option<String>)>,
}

impl Seats {
    /// No call panics half-way through a change, so a poisoned lock still guards a sound state.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, queue: String) -> u64 {
        let mut table = self.table();
        table.last += 1;
        let seat = table.last;
        table.taken.insert(seat, (queue, Some("it has not begun yet".to_owned())));
        seat
    }

    pub(super) fn leave(&self, seat: u64) {
        self.table().taken.remove(&seat);
    }

    pub(super) fn consuming(&self, seat: u64) {
        if let Some((_, why)) = self.table().taken.get_mut(&seat) {
            *why = None;
        }
    }

    /// True when that is news.
    pub(super) fn not_consuming(&self, seat: u64, reason: &str) -> bool {
        let mut table = self.table();
        let Some((_, why)) = table.taken.get_mut(&seat) else { return false };
        let news = why.as_deref() != Some(reason);
        *why = Some(reason.to_owned());
        news
    }

    pub(super) fn trouble(&self) -> Option<String> {
        let table = self.table();
        let mut idle = table.taken.values().filter_map(|(queue, why)| Some((queue, why.as_ref()?)));
        idle.next().map(|(queue, why)| format!("the queue {queue} is not consumed: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn quiet_is_when_all_has_landed_and_all_consumers_have_left() {
        let activity = Activity::default();
        assert!(activity.quiet().now_or_never().is_some());
        activity.flying(3);
        activity.consumer_came();
        activity.landed(3);
        assert!(activity.quiet().now_or_never().is_none());
        activity.flying(1);
        activity.consumer_left();
        assert!(activity.quiet().now_or_never().is_none());
        activity.landed(1);
        assert!(activity.quiet().now_or_never().is_some());
    }

    #[test]
    fn a_consumer_that_does_not_consume_is_named_until_it_does_or_leaves() {
        let seats = Seats::default();
        let (one, two) = (seats.take("bookend.one".to_owned()), seats.take("bookend.two".to_owned()));
        seats.consuming(one);
        assert!(seats.trouble().is_some_and(|trouble| trouble.contains("bookend.two")));
        assert!(seats.not_consuming(two, "gone"));
        assert!(!seats.not_consuming(two, "gone"), "no news");
        seats.leave(two);
        assert_eq!(seats.trouble(), None);
    }
}
