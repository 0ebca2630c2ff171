//! Hands outbox messages to the transport without ever waiting, and remembers which are on their way.
//!
//! A row is one message, or one for each of its commands where whoever consumes the queue takes one at a time. Must hold: a
//! message that is not taken is simply dropped here, because its outbox row is still there; a row is deleted when all its
//! messages are safe; the number of messages on their way is bounded.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use saga_defs::message;
use saga_store::OutboxMessage;
use transport::{Handed, Message, Publisher, Queue, Settled};
use uuid::Uuid;

use crate::flight::Flight;
use crate::options::Options;

/// Rows that one commit deletes at most.
const SAFE_MAX: usize = 1_024;

pub(crate) struct Outbound {
    publisher: Arc<dyn Publisher>,
    /// Participants that take one command at a time.
    one_at_a_time: BTreeSet<String>,
    flight: Mutex<Flight>,
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
    pub(crate) fn new(publisher: Arc<dyn Publisher>, options: &Options) -> Self {
        Self {
            publisher,
            one_at_a_time: options.one_at_a_time.clone(),
            flight: Mutex::default(),
            in_flight_max: options.in_flight_max,
            safe: Mutex::default(),
        }
    }

    /// Hands over what is taken; the rest is left to the relay. False when the transport did not take all of it.
    pub(crate) fn publish(&self, rows: &[OutboxMessage]) -> bool {
        let of_rows: Vec<(Uuid, Vec<Message>)> = rows.iter().map(|row| (row.id, self.messages(row))).collect();
        let mut messages: Vec<Message> = Vec::new();
        let mut flight = self.flight();
        for (row, of_row) in of_rows {
            messages.extend(flight.take_off(row, of_row, self.in_flight_max));
        }
        drop(flight);
        self.hand_over(&messages)
    }

    /// False when some were not taken.
    fn hand_over(&self, messages: &[Message]) -> bool {
        let handed = self.publisher.publish(messages);
        let refused = messages.iter().zip(handed).filter(|(_, handed)| *handed == Handed::NoRoom);
        let refused: Vec<Uuid> = refused.map(|(message, _)| message.id).collect();
        metrics::counter!("bookend_outbox_published_total", "result" => "no_room").increment(refused.len() as u64);
        let mut flight = self.flight();
        for message in &refused {
            flight.land(*message, false);
        }
        refused.is_empty()
    }

    /// A row's messages.
    fn messages(&self, row: &OutboxMessage) -> Vec<Message> {
        let queue = Queue::Participant(row.participant.clone());
        if self.one_at_a_time.contains(&row.participant)
            && let Ok(items) = message::items(row.body.as_bytes())
            && items.len() > 1
        {
            let items = items.into_iter().enumerate();
            let each = items.map(|(n, item)| (Uuid::new_v5(&row.id, &n.to_be_bytes()), Arc::from(item)));
            return each
                .map(|(id, body)| Message { id, queue: queue.clone(), about: message::about(&body), body })
                .collect();
        }
        vec![Message { id: row.id, queue, body: Arc::clone(&row.body), about: message::about(&row.body) }]
    }

    /// Waits for fates, and remembers which rows are safe at the other side.
    pub(crate) async fn hear(&self) {
        let settled = self.publisher.settled().await;
        let confirmed = settled.iter().filter(|settled| settled.confirmed).count();
        metrics::counter!("bookend_outbox_published_total", "result" => "confirmed").increment(confirmed as u64);
        let lost = settled.len() - confirmed;
        metrics::counter!("bookend_outbox_published_total", "result" => "lost").increment(lost as u64);
        let mut flight = self.flight();
        let safe: Vec<Uuid> =
            settled.into_iter().filter_map(|Settled { id, confirmed }| flight.land(id, confirmed)).collect();
        let waited = flight.go_on(self.in_flight_max);
        drop(flight);
        if !waited.is_empty() {
            self.hand_over(&waited);
        }
        self.safe().extend(safe);
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

    /// Rows on their way.
    pub(crate) fn rows_in_flight(&self) -> Vec<Uuid> {
        self.flight().rows()
    }

    /// How many messages are on their way.
    pub(crate) fn len(&self) -> usize {
        self.flight().len()
    }

    /// How many rows are sure to find room, one at least while there is any; none while the transport is out of reach.
    pub(crate) fn room(&self) -> usize {
        if !self.publisher.is_open() {
            return 0;
        }
        let messages = self.in_flight_max.saturating_sub(self.len());
        if self.one_at_a_time.is_empty() {
            messages
        } else {
            (messages / message::BATCH_ITEMS_MAX).max(messages.min(1))
        }
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use transport::Transport;
    use transport::in_process::{self, InProcess};

    use super::*;

    fn row(id: u128, participant: &str, body: &str) -> OutboxMessage {
        OutboxMessage { id: Uuid::from_u128(id), participant: participant.to_owned(), body: body.into(), attempts: 0 }
    }

    fn outbound(transport: &InProcess, in_flight_max: usize) -> Outbound {
        let one_at_a_time = BTreeSet::from(["till".to_owned()]);
        Outbound::new(transport.publisher(), &Options { in_flight_max, one_at_a_time, ..Options::default() })
    }

    async fn received(transport: &InProcess, participant: &str) -> Vec<String> {
        let mut consumer = transport.consumer(&Queue::Participant(participant.to_owned()), 16);
        let deliveries = consumer.receive(16).await.expect("it is open");
        consumer.acknowledge(&deliveries.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await;
        deliveries.iter().map(|delivery| String::from_utf8_lossy(&delivery.body).into_owned()).collect()
    }

    #[tokio::test]
    async fn who_takes_one_command_at_a_time_gets_each_in_its_own_message() {
        let queues = transport::topology::queues(["till", "other"]);
        let transport = InProcess::new(&in_process::Options { queues, capacity: 8, faults: None });
        let outbound = outbound(&transport, 8);
        let (till, other) = (row(1, "till", r#"[{"n":1},{"n":2}]"#), row(2, "other", r#"[{"n":3},{"n":4}]"#));
        outbound.publish(&[till.clone(), other.clone()]);
        assert_eq!((outbound.len(), outbound.rows_in_flight()), (3, vec![till.id, other.id]));
        assert_eq!(received(&transport, "till").await, [r#"{"n":1}"#, r#"{"n":2}"#]);
        assert_eq!(received(&transport, "other").await, [&*other.body]);
        while outbound.len() > 0 {
            outbound.hear().await;
        }
        let safe: BTreeSet<Uuid> = outbound.take_safe().into_iter().collect();
        assert_eq!(safe, BTreeSet::from([till.id, other.id]), "rows, not messages");
    }
}
