//! The queues' state, changed only under one lock and without waiting.
//!
//! Not for waking anybody but publishers: the callers know which queue they touched. Must hold: a message that was
//! handed over is settled exactly once for as long as its publisher lives; a queue holds at most `capacity` such
//! messages, waiting or unacknowledged, and at most one copy of each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;
use uuid::Uuid;

use super::faults::{Bites, Dice, Faults};
use crate::{Delivery, Handed, Message, Queue, Settled};

#[derive(Debug)]
struct Envelope {
    body: Arc<str>,
    /// Whom to tell about its fate. A redelivered copy has nobody to tell.
    origin: Option<Origin>,
}

#[derive(Clone, Copy, Debug)]
struct Origin {
    publisher: u64,
    id: Uuid,
    /// Redelivered already: once is trouble enough, and keeps memory bounded.
    copied: bool,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Envelope>,
    /// Messages, waiting or unacknowledged, without copies.
    occupied: usize,
}

#[derive(Debug)]
struct Holder {
    queue: Queue,
    prefetch: usize,
    unacknowledged: BTreeMap<u64, Envelope>,
}

#[derive(Debug, Default)]
struct Mailbox {
    /// Handed over and not yet collected by [`State::collect`].
    outstanding: usize,
    settled: Vec<Settled>,
    wake: Arc<Notify>,
}

/// What a consumer finds.
#[derive(Debug)]
pub(super) enum Taken {
    Some(Vec<Delivery>),
    Nothing,
    Closed,
}

#[derive(Debug)]
pub(super) struct State {
    capacity: usize,
    outstanding_max: usize,
    lanes: BTreeMap<Queue, Lane>,
    holders: BTreeMap<u64, Holder>,
    mailboxes: BTreeMap<u64, Mailbox>,
    dice: Option<Dice>,
    last_number: u64,
    closed: bool,
}

impl State {
    pub(super) fn new(queues: &[Queue], capacity: usize, faults: Option<Faults>) -> Self {
        let lanes: BTreeMap<_, _> = queues.iter().map(|queue| (queue.clone(), Lane::default())).collect();
        Self {
            capacity,
            outstanding_max: capacity.saturating_mul(lanes.len()),
            lanes,
            holders: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            dice: faults.map(Dice::new),
            last_number: 0,
            closed: false,
        }
    }

    /// Numbers publishers, consumers and deliveries alike.
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn add_publisher(&mut self, wake: Arc<Notify>) -> u64 {
        let publisher = self.number();
        self.mailboxes.insert(publisher, Mailbox { wake, ..Mailbox::default() });
        publisher
    }

    pub(super) fn remove_publisher(&mut self, publisher: u64) {
        self.mailboxes.remove(&publisher);
    }

    /// `None` when the queue is unknown.
    pub(super) fn add_consumer(&mut self, queue: &Queue, prefetch: usize) -> Option<u64> {
        if !self.lanes.contains_key(queue) {
            return None;
        }
        let consumer = self.number();
        let holder = Holder { queue: queue.clone(), prefetch, unacknowledged: BTreeMap::new() };
        self.holders.insert(consumer, holder);
        Some(consumer)
    }

    /// Puts what the consumer did not acknowledge back to the front, in the order it was delivered.
    pub(super) fn remove_consumer(&mut self, consumer: u64) {
        let Some(holder) = self.holders.remove(&consumer) else { return };
        let Some(lane) = self.lanes.get_mut(&holder.queue) else { return };
        for envelope in holder.unacknowledged.into_values().rev() {
            lane.waiting.push_front(envelope);
        }
    }

    pub(super) fn has_room(&self, publisher: u64, queue: &Queue) -> bool {
        let lane = self.lanes.get(queue).is_some_and(|lane| lane.occupied < self.capacity);
        let mailbox = self.mailboxes.get(&publisher).is_some_and(|mailbox| mailbox.outstanding < self.outstanding_max);
        lane && mailbox && !self.closed
    }

    pub(super) fn is_open(&self) -> bool {
        !self.closed
    }

    pub(super) fn publish(&mut self, publisher: u64, message: &Message) -> Handed {
        if !self.has_room(publisher, &message.queue) {
            return Handed::NoRoom;
        }
        let (Some(lane), Some(mailbox)) = (self.lanes.get_mut(&message.queue), self.mailboxes.get_mut(&publisher))
        else {
            return Handed::NoRoom;
        };
        let origin = Origin { publisher, id: message.id, copied: false };
        lane.waiting.push_back(Envelope { body: Arc::clone(&message.body), origin: Some(origin) });
        lane.occupied += 1;
        mailbox.outstanding += 1;
        Handed::Over
    }

    /// Everything that is known about a publisher's messages, once.
    pub(super) fn collect(&mut self, publisher: u64) -> Vec<Settled> {
        let Some(mailbox) = self.mailboxes.get_mut(&publisher) else { return Vec::new() };
        mailbox.outstanding -= mailbox.settled.len();
        std::mem::take(&mut mailbox.settled)
    }

    pub(super) fn take(&mut self, consumer: u64, max: usize) -> Taken {
        if self.closed {
            return Taken::Closed;
        }
        let mut taken = Vec::new();
        while taken.len() < max.max(1) {
            match self.take_one(consumer) {
                Some(delivery) => taken.push(delivery),
                None => break,
            }
        }
        if taken.is_empty() { Taken::Nothing } else { Taken::Some(taken) }
    }

    fn take_one(&mut self, consumer: u64) -> Option<Delivery> {
        let holder = self.holders.get(&consumer)?;
        if holder.unacknowledged.len() >= holder.prefetch {
            return None;
        }
        let queue = holder.queue.clone();
        let envelope = loop {
            let lane = self.lanes.get_mut(&queue)?;
            let position = self.dice.as_mut().map_or(0, |dice| dice.position(lane.waiting.len()));
            let mut envelope = lane.waiting.remove(position)?;
            let (Some(dice), Some(origin)) = (self.dice.as_mut(), envelope.origin.as_mut()) else { break envelope };
            if dice.loses() {
                let origin = *origin;
                self.settle(&queue, origin, false);
                continue;
            }
            if !origin.copied
                && let Some(at_once) = dice.redelivers()
            {
                origin.copied = true;
                let copy = Envelope { body: Arc::clone(&envelope.body), origin: None };
                if at_once { lane.waiting.push_front(copy) } else { lane.waiting.push_back(copy) }
            }
            break envelope;
        };
        let tag = self.number();
        let delivery = Delivery { tag, body: Arc::from(envelope.body.as_bytes()), died: None };
        self.holders.get_mut(&consumer)?.unacknowledged.insert(tag, envelope);
        Some(delivery)
    }

    pub(super) fn acknowledge(&mut self, consumer: u64, tags: &[u64]) {
        for tag in tags {
            let Some(holder) = self.holders.get_mut(&consumer) else { return };
            let queue = holder.queue.clone();
            if let Some(Envelope { origin: Some(origin), .. }) = holder.unacknowledged.remove(tag) {
                self.settle(&queue, origin, true);
            }
        }
    }

    fn settle(&mut self, queue: &Queue, origin: Origin, confirmed: bool) {
        if let Some(lane) = self.lanes.get_mut(queue) {
            lane.occupied -= 1;
        }
        if let Some(mailbox) = self.mailboxes.get_mut(&origin.publisher) {
            mailbox.settled.push(Settled { id: origin.id, confirmed });
            mailbox.wake.notify_waiters();
        }
    }

    /// Ends everything: what nobody acknowledged is not confirmed.
    pub(super) fn close(&mut self) {
        self.closed = true;
        let mut left: Vec<(Queue, Envelope)> = Vec::new();
        for holder in self.holders.values_mut() {
            let held = std::mem::take(&mut holder.unacknowledged);
            left.extend(held.into_values().map(|envelope| (holder.queue.clone(), envelope)));
        }
        for (queue, lane) in &mut self.lanes {
            left.extend(lane.waiting.drain(..).map(|envelope| (queue.clone(), envelope)));
        }
        for (queue, envelope) in left {
            if let Some(origin) = envelope.origin {
                self.settle(&queue, origin, false);
            }
        }
    }

    pub(super) fn bites(&self) -> Bites {
        self.dice.as_ref().map(|dice| dice.bites).unwrap_or_default()
    }
}
