//! Which outbox rows and which of their messages are on their way, and what of a row is safe.
//!
//! Not for sending: that is the outbound's. Must hold: a row is safe when all its messages are, in this try or an earlier one;
//! what waits for room waits behind a message of its row that is on its way, and is given up when one of them is lost, so
//! that the relay can claim the row.

use std::collections::{BTreeMap, VecDeque};

use transport::Message;
use uuid::Uuid;

/// Rows of which is remembered what of them is safe.
const PARTLY_MAX: usize = 256;

/// What is on its way.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    rows: BTreeMap<Uuid, Flying>,
    /// The row of each message.
    row_of: BTreeMap<Uuid, Uuid>,
    /// Rows of which there was not room for all.
    waiting: VecDeque<Uuid>,
    /// Messages that are safe of rows that lost others, in the order in which that was seen: of a long row every try
    /// brings more to its end.
    partly: VecDeque<(Uuid, Vec<Uuid>)>,
}

/// A row on its way.
#[derive(Debug)]
struct Flying {
    messages: usize,
    /// Sets out when there is room. None is left once one was lost.
    rest: VecDeque<Message>,
    safe: Vec<Uuid>,
    /// Whether none was lost.
    whole: bool,
}

impl Flight {
    /// Messages on their way.
    pub(crate) fn len(&self) -> usize {
        self.row_of.len()
    }

    /// Rows on their way.
    pub(crate) fn rows(&self) -> Vec<Uuid> {
        self.rows.keys().copied().collect()
    }

    /// Which of a row's messages set out now; the others wait for room, unless there is none at all.
    pub(crate) fn take_off(&mut self, row: Uuid, mut messages: Vec<Message>, max: usize) -> Vec<Message> {
        if self.row_of.len() >= max || self.rows.contains_key(&row) {
            return Vec::new();
        }
        let known = self.partly.iter().position(|(partly, _)| *partly == row);
        let safe = known.and_then(|position| self.partly.remove(position)).map(|(_, safe)| safe).unwrap_or_default();
        messages.retain(|message| !safe.contains(&message.id));
        self.rows.insert(row, Flying { messages: 0, rest: messages.into(), safe, whole: true });
        self.waiting.push_back(row);
        self.go_on(max)
    }

    /// What waited and finds room now.
    pub(crate) fn go_on(&mut self, max: usize) -> Vec<Message> {
        let mut leaving = Vec::new();
        while let Some(row) = self.waiting.front().copied() {
            let Some(flying) = self.rows.get_mut(&row).filter(|flying| !flying.rest.is_empty()) else {
                self.waiting.pop_front();
                continue;
            };
            let room = max.saturating_sub(self.row_of.len()).min(flying.rest.len());
            if room == 0 {
                break;
            }
            flying.messages += room;
            for message in flying.rest.drain(..room) {
                self.row_of.insert(message.id, row);
                leaving.push(message);
            }
        }
        leaving
    }

    /// A message came to its end. Returns its row when all of that is safe.
    pub(crate) fn land(&mut self, message: Uuid, confirmed: bool) -> Option<Uuid> {
        let row = self.row_of.remove(&message)?;
        let flying = self.rows.get_mut(&row)?;
        flying.messages -= 1;
        if confirmed {
            flying.safe.push(message);
        } else {
            flying.whole = false;
            flying.rest.clear();
        }
        if flying.messages > 0 || !flying.rest.is_empty() {
            return None;
        }
        let Flying { safe, whole, .. } = self.rows.remove(&row)?;
        if whole {
            return Some(row);
        }
        if !safe.is_empty() {
            self.partly.push_back((row, safe));
        }
        if self.partly.len() > PARTLY_MAX {
            // Should that row still be there, all of it is sent again, and its participant knows the commands.
            self.partly.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use transport::Queue;

    use super::*;

    fn messages(ids: &[u128]) -> Vec<Message> {
        let message = |id: &u128| Message::new(Uuid::from_u128(*id), Queue::Participant("till".to_owned()), "{}");
        ids.iter().map(message).collect()
    }

    #[test]
    fn a_row_is_safe_when_all_its_messages_are() {
        let [one, two, three, row] = [1, 2, 3, 9].map(Uuid::from_u128);
        let mut flight = Flight::default();
        assert_eq!(flight.take_off(row, messages(&[1, 2, 3]), 3).len(), 3);
        assert!(flight.take_off(row, messages(&[1]), 8).is_empty(), "it is on its way");
        assert!(flight.take_off(Uuid::from_u128(8), messages(&[4]), 3).is_empty(), "there is no room");
        assert_eq!((flight.land(one, true), flight.land(two, true), flight.land(two, true)), (None, None, None));
        assert_eq!(flight.land(three, true), Some(row));
        assert!(flight.rows.is_empty() && flight.row_of.is_empty() && flight.partly.is_empty());
    }

    #[test]
    fn of_a_row_that_lost_some_only_those_are_sent_again() {
        let [one, two, row] = [1, 2, 9].map(Uuid::from_u128);
        let mut flight = Flight::default();
        assert_eq!(flight.take_off(row, messages(&[1, 2]), 8).len(), 2);
        assert_eq!((flight.land(one, true), flight.land(two, false)), (None, None));
        assert_eq!(flight.take_off(row, messages(&[1, 2]), 8), messages(&[2]));
        assert_eq!(flight.land(two, true), Some(row));
    }

    #[test]
    fn a_row_that_is_longer_than_the_room_leaves_bit_by_bit() {
        let row = Uuid::from_u128(9);
        let mut flight = Flight::default();
        assert_eq!(flight.take_off(row, messages(&[1, 2, 3, 4, 5]), 2), messages(&[1, 2]));
        for (landing, leaving) in [(1, vec![3]), (2, vec![4]), (3, vec![5]), (4, vec![])] {
            assert_eq!(flight.land(Uuid::from_u128(landing), true), None, "there is more of it");
            assert_eq!(flight.go_on(2), messages(&leaving));
        }
        assert_eq!(flight.land(Uuid::from_u128(5), true), Some(row));
    }

    #[test]
    fn nothing_waits_for_room_behind_what_was_lost() {
        let [one, two, row] = [1, 2, 9].map(Uuid::from_u128);
        let mut flight = Flight::default();
        assert_eq!(flight.take_off(row, messages(&[1, 2, 3]), 2).len(), 2);
        assert_eq!((flight.land(one, true), flight.land(two, false)), (None, None));
        assert!(flight.rows.is_empty(), "the relay may claim it");
        assert!(flight.go_on(2).is_empty() && flight.waiting.is_empty());
        assert_eq!(flight.take_off(row, messages(&[1, 2, 3]), 2), messages(&[2, 3]));
    }

    #[test]
    fn what_was_seen_first_is_forgotten_first() {
        let mut flight = Flight::default();
        // The newest has the smallest id.
        let rows: Vec<Uuid> = (0..=PARTLY_MAX as u128).rev().map(|row| Uuid::from_u128(100 + row)).collect();
        for row in &rows {
            flight.take_off(*row, messages(&[1, 2]), 8);
            flight.land(Uuid::from_u128(1), true);
            flight.land(Uuid::from_u128(2), false);
        }
        let known: Vec<Uuid> = flight.partly.iter().map(|(row, _)| *row).collect();
        assert_eq!(known, rows[1..]);
    }
}
