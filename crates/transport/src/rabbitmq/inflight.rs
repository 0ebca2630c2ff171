//! What a publisher handed over and does not know the fate of.
//!
//! Not for talking to anybody. Must hold: a hand-over is settled exactly once, whatever arrives twice or late; a
//! returned message is found by its id, because the client library attaches it to any confirm; an acknowledgement is
//! believed only when no return can be on its way for it; what is handed over and not collected is bounded.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{Handed, Message, Settled};

/// Names a hand-over: one message may be handed over several times.
pub(super) type Number = u64;

#[derive(Clone, Copy, Debug)]
struct Open {
    id: Uuid,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct InFlight {
    max: usize,
    last: Number,
    /// Handed over and not written yet.
    waiting: VecDeque<(Number, Message)>,
    /// Handed over and not settled, written or not.
    open: BTreeMap<Number, Open>,
    /// Returned and not acknowledged: how often for each id.
    returned: BTreeMap<Uuid, usize>,
    /// Acknowledged and not believed yet.
    held: Vec<Number>,
    /// Settled and not collected.
    settled: Vec<Settled>,
}

impl InFlight {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            last: 0,
            waiting: VecDeque::new(),
            open: BTreeMap::new(),
            returned: BTreeMap::new(),
            held: Vec::new(),
            settled: Vec::new(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.open.len() + self.settled.len() < self.max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many have no fate yet.
    pub(super) fn in_flight(&self) -> usize {
        self.open.len()
    }

    pub(super) fn hand_over(&mut self, message: &Message, now: Instant) -> Handed {
        if !self.has_room() {
            return Handed::NoRoom;
        }
        self.last += 1;
        self.open.insert(self.last, Open { id: message.id, since: now });
        self.waiting.push_back((self.last, message.clone()));
        Handed::Over
    }

    /// What is to be written, in order; each once.
    pub(super) fn write(&mut self) -> VecDeque<(Number, Message)> {
        std::mem::take(&mut self.waiting)
    }

    /// When the oldest of those without a fate was handed over.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.open.first_key_value().map(|(_, open)| open.since)
    }

    /// The broker had nowhere to put a message of this id. False when none is on its way.
    pub(super) fn returned(&mut self, id: Uuid) -> bool {
        let known = self.open.values().any(|open| open.id == id);
        if known {
            *self.returned.entry(id).or_insert(0) += 1;
        }
        known
    }

    /// The broker acknowledged these hand-overs; which it had returned, and which are safe. The others are held.
    ///
    /// One acknowledgement of the broker's for many is resolved by the client library in any order, and each return is
    /// attached to whichever comes first. As long as a return has not met its own confirm, others may be under way for
    /// what was acknowledged; when all have, each of the confirms that carried one was returned itself.
    pub(super) fn acknowledged(&mut self, numbers: Vec<Number>) -> (Vec<Number>, Vec<Number>) {
        self.held.extend(numbers);
        let held = std::mem::take(&mut self.held);
        let (back, mut safe): (Vec<Number>, Vec<Number>) = held.into_iter().partition(|number| self.came_back(*number));
        if !self.returned.is_empty() {
            self.held = std::mem::take(&mut safe);
        }
        (back, safe)
    }

    /// The broker refused this hand-over; whether it had returned it, too, makes no difference.
    pub(super) fn refused(&mut self, number: Number) {
        self.came_back(number);
    }

    /// Whether this hand-over was one that was returned; tells so once per return.
    fn came_back(&mut self, number: Number) -> bool {
        let Some(open) = self.open.get(&number) else { return false };
        let Some(count) = self.returned.get_mut(&open.id) else { return false };
        *count -= 1;
        if *count == 0 {
            self.returned.remove(&open.id);
        }
        true
    }

    pub(super) fn settle(&mut self, number: Number, confirmed: bool) {
        if let Some(open) = self.open.remove(&number) {
            self.settled.push(Settled { id: open.id, confirmed });
        }
    }

    /// Nothing more will be heard of all that is on its way.
    pub(super) fn lose_all(&mut self) {
        self.waiting.clear();
        self.returned.clear();
        self.held.clear();
        let open = std::mem::take(&mut self.open);
        self.settled.extend(open.into_values().map(|open| Settled { id: open.id, confirmed: false }));
    }

    pub(super) fn collect(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::message;

    fn flying(max: usize, messages: &[&Message]) -> InFlight {
        let mut flight = InFlight::new(max);
        for message in messages {
            assert_eq!(flight.hand_over(message, Instant::now()), Handed::Over);
        }
        flight
    }

    fn fates(flight: &mut InFlight) -> Vec<(Uuid, bool)> {
        flight.collect().into_iter().map(|fate| (fate.id, fate.confirmed)).collect()
    }

    #[test]
    fn a_return_is_told_to_its_own_message_whichever_confirm_carried_it() {
        let (one, two) = (message("1"), message("2"));
        let mut flight = flying(8, &[&one, &two]);
        assert!(flight.returned(two.id), "it came with the confirm of the other");
        assert_eq!(flight.acknowledged(vec![1]), (vec![], vec![]), "the other's is still to come");
        assert_eq!(flight.acknowledged(vec![2]), (vec![2], vec![1]));
    }

    #[test]
    fn a_confirm_that_carried_another_return_is_not_believed() {
        let [one, two, three] = ["1", "2", "3"].map(message);
        let mut flight = flying(8, &[&one, &two, &three]);
        assert!(flight.returned(one.id));
        assert_eq!(flight.acknowledged(vec![3]), (vec![], vec![]), "its own return may come with a later one");
        assert!(flight.returned(three.id));
        assert_eq!(flight.acknowledged(vec![1]), (vec![3, 1], vec![]));
        assert_eq!(flight.acknowledged(vec![2]), (vec![], vec![2]), "nothing is owed any more");
    }

    #[test]
    fn what_was_returned_and_refused_holds_up_nobody() {
        let (one, two) = (message("1"), message("2"));
        let mut flight = flying(8, &[&one, &two]);
        assert!(flight.returned(one.id));
        flight.refused(1);
        assert_eq!(flight.acknowledged(vec![2]), (vec![], vec![2]));
    }

    #[test]
    fn of_one_id_handed_over_twice_as_many_are_refused_as_came_back() {
        let twice = message("x");
        let mut flight = flying(8, &[&twice, &twice]);
        assert!(flight.returned(twice.id));
        assert_eq!(flight.acknowledged(vec![1, 2]), (vec![1], vec![2]));
        flight.settle(1, false);
        flight.settle(2, true);
        assert_eq!(fates(&mut flight), [(twice.id, false), (twice.id, true)]);
    }

    #[test]
    fn a_hand_over_is_settled_once() {
        let (one, two) = (message("1"), message("2"));
        let mut flight = flying(8, &[&one, &two]);
        flight.settle(1, true);
        flight.settle(1, false);
        flight.lose_all();
        flight.lose_all();
        flight.settle(2, true);
        assert_eq!(fates(&mut flight), [(one.id, true), (two.id, false)]);
        assert!(fates(&mut flight).is_empty());
        assert!(!flight.returned(one.id), "too late");
    }

    #[test]
    fn what_was_lost_before_it_was_written_is_not_written() {
        let one = message("1");
        let mut flight = flying(8, &[&one]);
        flight.lose_all();
        assert!(flight.write().is_empty());
        assert!(flight.is_empty() && flight.oldest().is_none());
    }

    #[test]
    fn room_is_free_again_once_fates_are_collected() {
        let one = message("1");
        let mut flight = flying(2, &[&one, &one]);
        assert_eq!(flight.hand_over(&one, Instant::now()), Handed::NoRoom);
        flight.settle(1, true);
        assert_eq!(flight.hand_over(&one, Instant::now()), Handed::NoRoom);
        assert_eq!(flight.collect().len(), 1);
        assert_eq!(flight.hand_over(&one, Instant::now()), Handed::Over);
        assert_eq!(flight.write().len(), 3);
    }
}
