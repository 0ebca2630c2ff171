//! Hands outbox messages to the transport without ever waiting, and remembers which are on their way.
//!
//! Must hold: a message that is not taken is simply dropped here, because its outbox row is still there; the number
//! of messages on their way is bounded.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use saga_store::OutboxMessage;
use transport::{Handed, Message, Publisher, Queue, Settled};
use uuid::Uuid;

/// Rows that one commit deletes at most.
const SAFE_MAX: usize = 1_024;

pub(crate) struct Outbound {
    publisher: Arc<dyn Publisher>,
    in_flight: Mutex<BTreeSet<Uuid>>,
    in_flight_max: usize,
    /// Rows whose messages are safe, to be deleted with the next commit.
    safe: Mutex<Vec<Uuid>>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbound")
    }
}

impl Outbound {
    pub(crate) fn new(publisher: Arc<dyn Publisher>, in_flight_max: usize) -> Self {
        Self { publisher, in_flight: Mutex::default(), in_flight_max, safe: Mutex::default() }
    }

    /// Hands over what is taken; the rest is left to the relay.
    pub(crate) fn publish(&self, rows: &[OutboxMessage]) {
        let messages: Vec<Message> = {
            let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = rows.iter().filter(|row| {
                let room = in_flight.len() < self.in_flight_max;
                room && in_flight.insert(row.id)
            });
            fresh.map(message).collect()
        };
        let handed = self.publisher.publish(&messages);
        let refused: Vec<Uuid> = messages
            .iter()
            .zip(handed)
            .filter(|(_, handed)| *handed == Handed::NoRoom)
            .map(|(message, _)| message.id)
            .collect();
        metrics::counter!("bookend_outbox_published_total", "result" => "no_room").increment(refused.len() as u64);
        self.forget(&refused);
    }

    /// Waits for fates, and remembers which messages are safe at the other side.
    pub(crate) async fn hear(&self) {
        let settled = self.publisher.settled().await;
        let ids: Vec<Uuid> = settled.iter().map(|settled| settled.id).collect();
        self.forget(&ids);
        let (confirmed, lost): (Vec<Settled>, Vec<Settled>) =
            settled.into_iter().partition(|settled| settled.confirmed);
        metrics::counter!("bookend_outbox_published_total", "result" => "confirmed").increment(confirmed.len() as u64);
        metrics::counter!("bookend_outbox_published_total", "result" => "lost").increment(lost.len() as u64);
        self.safe().extend(confirmed.into_iter().map(|settled| settled.id));
    }

    /// Rows that can be deleted; whoever takes them deletes them or gives them back.
    pub(crate) fn take_safe(&self) -> Vec<Uuid> {
        let mut safe = self.safe();
        let taken = safe.len().min(SAFE_MAX);
        let rest = safe.split_off(taken);
        std::mem::replace(&mut *safe, rest)
    }

    /// Rows that could not be deleted. Too many of them are forgotten: they are sent again, and the participants know
    /// the commands.
    pub(crate) fn give_safe_back(&self, ids: Vec<Uuid>) {
        let mut safe = self.safe();
        safe.extend(ids);
        safe.truncate(self.in_flight_max);
    }

    fn safe(&self) -> MutexGuard<'_, Vec<Uuid>> {
        self.safe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all instances something that may be lost.
    pub(crate) fn hint(&self, body: &str) {
        self.publisher.hint(body);
    }

    /// Messages on their way.
    pub(crate) fn in_flight(&self) -> Vec<Uuid> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// How many messages are on their way.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many more may be on their way; none while the transport is out of reach.
    pub(crate) fn room(&self) -> usize {
        if !self.publisher.is_open() {
            return 0;
        }
        self.in_flight_max.saturating_sub(self.len())
    }

    fn forget(&self, ids: &[Uuid]) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            in_flight.remove(id);
        }
    }
}

fn message(row: &OutboxMessage) -> Message {
    let queue = Queue::Participant(row.participant.clone());
    Message { id: row.id, queue, body: Arc::clone(&row.body), about: saga_defs::message::about(&row.body) }
}
