//! Hands outbox messages to the transport without ever waiting, and remembers which are on their way.
//!
//! Must hold: a message that is not taken is simply dropped here, because its outbox row is still there; the number
//! of messages on their way is bounded.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use saga_store::OutboxMessage;
use transport::{Handed, Message, Publisher, Queue, Settled};
use uuid::Uuid;

pub(crate) struct Outbound {
    publisher: Arc<dyn Publisher>,
    in_flight: Mutex<BTreeSet<Uuid>>,
    in_flight_max: usize,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbound")
    }
}

impl Outbound {
    pub(crate) fn new(publisher: Arc<dyn Publisher>, in_flight_max: usize) -> Self {
        Self { publisher, in_flight: Mutex::new(BTreeSet::new()), in_flight_max }
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

    /// Waits for fates; returns the messages that are safe at the other side.
    pub(crate) async fn confirmed(&self) -> Vec<Uuid> {
        let settled = self.publisher.settled().await;
        let ids: Vec<Uuid> = settled.iter().map(|settled| settled.id).collect();
        self.forget(&ids);
        let (confirmed, lost): (Vec<Settled>, Vec<Settled>) =
            settled.into_iter().partition(|settled| settled.confirmed);
        metrics::counter!("bookend_outbox_published_total", "result" => "confirmed").increment(confirmed.len() as u64);
        metrics::counter!("bookend_outbox_published_total", "result" => "lost").increment(lost.len() as u64);
        confirmed.into_iter().map(|settled| settled.id).collect()
    }

    /// Tells all instances something that may be lost.
    pub(crate) fn hint(&self, body: &str) {
        self.publisher.hint(body);
    }

    /// Messages on their way.
    pub(crate) fn in_flight(&self) -> Vec<Uuid> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// How many more may be on their way; none while the transport is out of reach.
    pub(crate) fn room(&self) -> usize {
        if !self.publisher.is_open() {
            return 0;
        }
        let in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.in_flight_max.saturating_sub(in_flight)
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
