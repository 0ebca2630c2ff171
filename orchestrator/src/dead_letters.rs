//! Takes what nobody could handle, from its queue and from the engine's own tasks, and keeps it in the store.
//!
//! Not for what becomes of it then: a person decides that. Must hold: a delivery is acknowledged only after its letter
//! is kept; a store that is out of reach is waited for; a letter that the store refuses is tried again every now and then, as its
//! delivery has a place among those in hand; nothing of what an item says is logged.

use std::sync::Arc;
use std::time::Duration;

use saga_defs::dead_letter::{DeadLetter, Reason};
use saga_store::Error as StoreError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use transport::{Consumer, Delivery, Queue};

use crate::keep::{self, Fact};
use crate::shared::Shared;
use crate::work::Receipt;

/// Letters kept at once, and most of them in hand: an item may be long.
pub(crate) const KEEP_MAX: usize = 32;
/// Most bytes of letters in one statement, if they are several: it must be over within the time that a statement may take.
const KEEP_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// When letters are tried again that the store refused.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// A letter to be kept, and the receipt for the delivery that it came with.
#[derive(Debug)]
pub(crate) struct Aside {
    pub(crate) letter: DeadLetter,
    pub(crate) receipt: Receipt,
}

pub(crate) async fn run(shared: Arc<Shared>, mut consumer: Box<dyn Consumer>, mut given: mpsc::Receiver<Aside>) {
    let (acknowledge, mut settled) = mpsc::channel::<u64>(KEEP_MAX);
    let (mut batch, mut tags) = (Vec::new(), Vec::new());
    // Bounded by the deliveries in hand, here and at whoever gives letters.
    let (mut refused, mut again) = (Vec::new(), None);
    loop {
        tokio::select! {
            biased;
            _ = settled.recv_many(&mut tags, KEEP_MAX) => {
                consumer.acknowledge(&tags).await;
                tags.clear();
            }
            () = shared.tasks.stopping() => return,
            () = runtime::tasks::until(again) => {
                again = None;
                batch.append(&mut refused);
            }
            _ = given.recv_many(&mut batch, KEEP_MAX) => {}
            deliveries = consumer.receive(KEEP_MAX) => match deliveries {
                Some(deliveries) => batch.extend(deliveries.iter().map(|delivery| Aside {
                    letter: read(delivery),
                    receipt: Receipt::new(delivery.tag, 1, acknowledge.clone()),
                })),
                None => return,
            },
        }
        refused.append(&mut keep(&shared, std::mem::take(&mut batch)).await);
        if again.is_none() && !refused.is_empty() {
            again = Some(Instant::now() + REFUSED_AGAIN);
        }
    }
}

/// What was put into the queue, by the broker as it was, or by others as a dead letter.
fn read(delivery: &Delivery) -> DeadLetter {
    match &delivery.died {
        Some(died) => DeadLetter::new(&died.queue, Reason::of_broker(&died.reason), &delivery.body)
            .saying("the broker took it from its queue"),
        None => DeadLetter::decode(&delivery.body)
            .unwrap_or_else(|error| DeadLetter::unreadable(&Queue::DeadLetters.name(), &error, &delivery.body)),
    }
}

/// Keeps letters, then settles their receipts; returns those that the store refuses. Those that are not kept when the engine stops
/// come again.
async fn keep(shared: &Shared, batch: Vec<Aside>) -> Vec<Aside> {
    let refused = keep::keep(shared, bundles(batch)).await;
    metrics::counter!("bookend_dead_letters_refused_total").increment(refused.len() as u64);
    refused
}

/// Letters that may be kept together, the first ones last.
fn bundles(batch: Vec<Aside>) -> Vec<Vec<Aside>> {
    let mut parts: Vec<Vec<Aside>> = Vec::new();
    let mut bytes = 0;
    for aside in batch.into_iter().rev() {
        bytes += aside.letter.body.len();
        match parts.last_mut() {
            Some(part) if bytes <= KEEP_BYTES_MAX => part.push(aside),
            Some(_) | None => {
                bytes = aside.letter.body.len();
                parts.push(vec![aside]);
            }
        }
    }
    parts.iter_mut().for_each(|part| part.reverse());
    parts
}

impl Fact for Aside {
    async fn put(shared: &Shared, part: &[Self]) -> Result<(), StoreError> {
        let letters: Vec<DeadLetter> = part.iter().map(|aside| aside.letter.clone()).collect();
        shared.store.keep_dead_letters(&letters).await
    }

    fn kept(&self) {
        let Self { letter, receipt } = self;
        let (reason, queue, detail) = (letter.reason.as_str(), letter.queue.as_str(), letter.detail.as_str());
        metrics::counter!("bookend_dead_letters_total", "reason" => reason).increment(1);
        tracing::warn!(letter = %letter.id(), reason, queue, detail, "a dead letter waits for a person");
        receipt.settle();
    }
}

#[cfg(test)]
mod tests {
    use transport::Died;

    use super::*;

    #[test]
    fn long_letters_are_kept_in_parts_and_in_their_order() {
        let (acknowledge, _settled) = mpsc::channel(1);
        let aside = |bytes: usize| Aside {
            letter: DeadLetter { body: "x".repeat(bytes), ..DeadLetter::new("bookend.replies", Reason::Failed, b"") },
            receipt: Receipt::new(1, 1, acknowledge.clone()),
        };
        let half = KEEP_BYTES_MAX / 2;
        let parts = bundles([1, half, half, 2 * KEEP_BYTES_MAX, 2, 3].map(aside).into());
        let sizes = |part: &Vec<Aside>| part.iter().map(|aside| aside.letter.body.len()).collect::<Vec<_>>();
        let in_turn: Vec<Vec<usize>> = parts.iter().rev().map(sizes).collect();
        assert_eq!(in_turn, [vec![1], vec![half, half], vec![2 * KEEP_BYTES_MAX], vec![2, 3]]);
    }

    #[test]
    fn what_the_broker_took_is_kept_as_it_was() {
        let died = Died { queue: "bookend.payment".to_owned(), reason: "delivery_limit".to_owned() };
        let delivery = Delivery { tag: 1, body: Arc::from(&b"[{}, \xff]"[..]), died: Some(died) };
        let letter = read(&delivery);
        assert_eq!((letter.queue.as_str(), letter.reason), ("bookend.payment", Reason::DeliveryLimit));
        assert_eq!(letter.item().unwrap(), b"[{}, \xff]");
    }

    #[test]
    fn what_is_no_dead_letter_is_one_of_its_own_queue() {
        for body in [&b"no JSON"[..], br#"{"v": 9}"#] {
            let letter = read(&Delivery { tag: 1, body: Arc::from(body), died: None });
            assert_eq!((letter.queue.as_str(), letter.item().unwrap()), ("bookend.dead", body.to_vec()));
        }
    }
}
