//! What a consumer got and what its owner holds of it.
//!
//! Not for waiting or sending. Must hold: the owner never holds more than its prefetch; what an earlier channel
//! delivered is acknowledged to nobody, and given to nobody any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::prefix::{Ack, Prefix};
use crate::Delivery;

/// The part of the prefetch that may be untold.
const PRESSING: usize = 8;

#[derive(Debug)]
pub(super) struct Held {
    prefetch: usize,
    /// Delivered by the broker and not received yet.
    ready: VecDeque<Delivery>,
    /// The channel's tags of what it delivered, by ours.
    live: BTreeMap<u64, u64>,
    /// Received and not acknowledged, whichever channel delivered it.
    held: BTreeSet<u64>,
    prefix: Prefix,
    /// The channel's tags that the owner acknowledged and the broker was not told of.
    untold: Vec<u64>,
}

impl Held {
    pub(super) fn new(prefetch: usize) -> Self {
        Self {
            prefetch,
            ready: VecDeque::new(),
            live: BTreeMap::new(),
            held: BTreeSet::new(),
            prefix: Prefix::default(),
            untold: Vec::new(),
        }
    }

    /// The broker delivered on the present channel; our tag is one that nobody had before.
    pub(super) fn deliver(&mut self, channel_tag: u64, delivery: Delivery) {
        self.prefix.delivered(channel_tag);
        self.live.insert(delivery.tag, channel_tag);
        self.ready.push_back(delivery);
    }

    /// What the owner gets now.
    pub(super) fn receive(&mut self, max: usize) -> Vec<Delivery> {
        let room = self.prefetch.saturating_sub(self.held.len());
        let count = max.max(1).min(room).min(self.ready.len());
        let received: Vec<Delivery> = self.ready.drain(..count).collect();
        self.held.extend(received.iter().map(|delivery| delivery.tag));
        received
    }

    /// True when there is something to tell the broker.
    pub(super) fn acknowledge(&mut self, tags: &[u64]) -> bool {
        let held = tags.iter().filter(|tag| self.held.remove(tag));
        self.untold.extend(held.filter_map(|tag| self.live.remove(tag)));
        !self.untold.is_empty()
    }

    /// Whether the broker delivers nothing more, or might soon, for want of what is untold: it counts that as held.
    pub(super) fn is_pressing(&self) -> bool {
        let (untold, counted) = (self.untold.len(), self.live.len() + self.untold.len());
        untold >= self.prefetch.div_ceil(PRESSING) || (untold > 0 && counted >= self.prefetch)
    }

    /// What to tell the broker, once.
    pub(super) fn acks(&mut self) -> Vec<Ack> {
        self.prefix.acknowledge(&std::mem::take(&mut self.untold))
    }

    /// The channel is gone: the broker delivers again what it did not hear of.
    pub(super) fn reset(&mut self) {
        self.ready.clear();
        self.live.clear();
        self.untold.clear();
        self.prefix = Prefix::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn delivered(prefetch: usize, tags: impl IntoIterator<Item = u64>) -> Held {
        let mut held = Held::new(prefetch);
        deliver(&mut held, tags);
        held
    }

    fn deliver(held: &mut Held, tags: impl IntoIterator<Item = u64>) {
        static LAST: AtomicU64 = AtomicU64::new(100);
        for tag in tags {
            let ours = LAST.fetch_add(1, Ordering::Relaxed);
            held.deliver(tag, Delivery { tag: ours, body: Arc::from(&b"{}"[..]), died: None });
        }
    }

    fn received(held: &mut Held, max: usize) -> Vec<u64> {
        held.receive(max).iter().map(|delivery| delivery.tag).collect()
    }

    #[test]
    fn an_earlier_channels_deliveries_are_neither_given_nor_acknowledged() {
        let mut held = delivered(4, 1..=4);
        let before = received(&mut held, 2);
        held.reset();
        assert!(received(&mut held, 4).is_empty());
        deliver(&mut held, 1..=2);
        assert!(!held.acknowledge(&before), "the new channel's tags 1 and 2 name other deliveries");
        let after = received(&mut held, 4);
        assert!(after.iter().all(|tag| !before.contains(tag)));
        assert!(held.acknowledge(&after));
        assert_eq!(held.acks(), [Ack { tag: 2, multiple: true }]);
    }

    #[test]
    fn nobody_holds_more_than_the_prefetch_even_across_channels() {
        let mut held = delivered(2, 1..=2);
        let before = received(&mut held, 9);
        assert_eq!(before.len(), 2);
        held.reset();
        deliver(&mut held, 1..=2);
        assert!(received(&mut held, 9).is_empty());
        held.acknowledge(&before[..1]);
        assert_eq!(received(&mut held, 9).len(), 1);
    }

    #[test]
    fn what_was_acknowledged_meanwhile_is_told_at_once() {
        let mut held = delivered(24, 1..=20);
        let tags = received(&mut held, 20);
        for (count, pressing) in [(1, false), (2, false), (3, true)] {
            assert!(held.acknowledge(&tags[count - 1..count]));
            assert_eq!(held.is_pressing(), pressing, "{count} of 24 are untold");
        }
        assert_eq!(held.acks(), [Ack { tag: 3, multiple: true }]);
        assert!(!held.is_pressing() && held.acks().is_empty(), "once");
    }

    #[test]
    fn when_all_of_the_prefetch_is_out_everything_is_pressing() {
        for prefetch in [1, 24] {
            let mut held = delivered(prefetch, 1..=prefetch as u64);
            assert!(!held.is_pressing());
            let tags = received(&mut held, 1);
            held.acknowledge(&tags);
            assert!(held.is_pressing(), "nothing comes otherwise for as long as the others are in hand");
        }
    }

    #[test]
    fn what_was_not_received_is_not_acknowledged() {
        let mut held = delivered(4, 1..=4);
        let tags = received(&mut held, 1);
        assert!(!held.acknowledge(&[tags[0] + 1]));
        assert!(held.acknowledge(&tags));
        assert_eq!(held.acks(), [Ack { tag: 1, multiple: false }]);
        assert!(!held.acknowledge(&tags), "once");
    }
}
