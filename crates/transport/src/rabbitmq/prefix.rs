//! Acknowledges many deliveries with few frames.
//!
//! Not for sending anything. Must hold: no delivery is acknowledged that nobody asked to acknowledge, and each at
//! most once; tags are those of one channel, which grow by one.

use std::collections::BTreeSet;

/// One acknowledgement as the protocol knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    /// Everything up to the tag as well.
    pub(super) multiple: bool,
}

/// The deliveries of a channel that nobody acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    open: BTreeSet<u64>,
}

impl Prefix {
    pub(super) fn delivered(&mut self, tag: u64) {
        self.open.insert(tag);
    }

    /// Acknowledges: all before the first delivery that is still open at once, those behind it singly. Tags that
    /// are not open are ignored.
    pub(super) fn acknowledge(&mut self, tags: &[u64]) -> Vec<Ack> {
        let mut before: BTreeSet<u64> = tags.iter().copied().filter(|tag| self.open.remove(tag)).collect();
        let behind = before.split_off(&self.open.first().copied().unwrap_or(u64::MAX));
        let prefix = before.last().map(|tag| Ack { tag: *tag, multiple: before.len() > 1 });
        prefix.into_iter().chain(behind.into_iter().map(|tag| Ack { tag, multiple: false })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(tags: impl IntoIterator<Item = u64>) -> Prefix {
        let mut prefix = Prefix::default();
        tags.into_iter().for_each(|tag| prefix.delivered(tag));
        prefix
    }

    const fn one(tag: u64) -> Ack {
        Ack { tag, multiple: false }
    }

    const fn up_to(tag: u64) -> Ack {
        Ack { tag, multiple: true }
    }

    #[test]
    fn everything_is_one_frame() {
        assert_eq!(delivered(1..=5).acknowledge(&[3, 1, 2, 5, 4]), [up_to(5)]);
        assert_eq!(delivered(1..=1).acknowledge(&[1]), [one(1)]);
    }

    #[test]
    fn what_is_behind_a_gap_goes_singly_and_the_gap_is_never_covered() {
        let mut prefix = delivered(1..=6);
        assert_eq!(prefix.acknowledge(&[1, 2, 4, 6]), [up_to(2), one(4), one(6)]);
        assert_eq!(prefix.acknowledge(&[5]), [one(5)]);
        assert_eq!(prefix.acknowledge(&[3]), [one(3)]);
        prefix.delivered(7);
        prefix.delivered(8);
        assert_eq!(prefix.acknowledge(&[7]), [one(7)]);
    }

    #[test]
    fn what_is_not_open_is_ignored() {
        let mut prefix = delivered(1..=2);
        assert_eq!(prefix.acknowledge(&[9, 1, 1]), [one(1)]);
        assert!(prefix.acknowledge(&[1]).is_empty());
    }

    /// A broker that does what a frame says.
    fn apply(unacknowledged: &mut BTreeSet<u64>, ack: Ack) {
        if ack.multiple {
            *unacknowledged = unacknowledged.split_off(&(ack.tag + 1));
        } else {
            assert!(unacknowledged.remove(&ack.tag), "an acknowledgement of {} twice", ack.tag);
        }
    }

    #[test]
    fn a_broker_ends_up_with_exactly_what_was_not_acknowledged() {
        // A small generator of chances; equal seeds, equal runs.
        let mut state = 7_u64;
        let mut below = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        let (mut prefix, mut broker, mut open) = (Prefix::default(), BTreeSet::new(), Vec::new());
        for tag in 1..=2_000 {
            prefix.delivered(tag);
            broker.insert(tag);
            open.push(tag);
            if below(4) == 0 {
                let count = if open.is_empty() { 0 } else { below(8) };
                let mut tags: Vec<u64> = (0..count).map(|_| open[below(open.len() as u64) as usize]).collect();
                tags.sort_unstable();
                tags.dedup();
                open.retain(|tag| !tags.contains(tag));
                prefix.acknowledge(&tags).into_iter().for_each(|ack| apply(&mut broker, ack));
                assert_eq!(broker.iter().copied().collect::<Vec<_>>(), open);
            }
        }
        assert!(open.len() < 1_500, "many were acknowledged");
    }
}
