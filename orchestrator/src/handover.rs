//! Gives replies that this build can't apply back to the queue, for instances that can.
//!
//! During an upgrade instances of two builds share the queue of replies, and a reply may come to one that does not
//! know the format or the definition of its saga. Must hold: the copy is safe with the broker before the original is
//! acknowledged; the pause before it keeps two old instances from playing ball; a worker never waits here, however long the
//! broker is out of reach.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use saga_defs::{Reply, message};
use tokio::sync::{Semaphore, mpsc};
use transport::{Handed, Message, Publisher, Queue};
use uuid::Uuid;

use crate::options::Options;
use crate::shared::Shared;
use crate::work::Receipt;

/// How long a reply is held before it goes back.
const PAUSE: Duration = Duration::from_millis(250);
/// Replies handed over at once.
const ROUND_MAX: usize = 1_024;

/// A reply for others, and the receipt for the delivery that it came with.
pub(crate) type Foreign = (Box<Reply>, Receipt);

/// How many replies may wait to be handed over: all items of all deliveries that may be unacknowledged.
pub(crate) fn room(options: &Options) -> usize {
    options.prefetch.saturating_mul(message::BATCH_ITEMS_MAX).min(Semaphore::MAX_PERMITS)
}

pub(crate) async fn run(shared: Arc<Shared>, publisher: Arc<dyn Publisher>, mut given: mpsc::Receiver<Foreign>) {
    let mut round: Vec<Foreign> = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = shared.tasks.stopping() => return,
            taken = given.recv_many(&mut round, ROUND_MAX) => if taken == 0 { return },
        }
        let (replies, receipts): (Vec<Reply>, Vec<Receipt>) =
            round.drain(..).map(|(reply, receipt)| (*reply, receipt)).unzip();
        metrics::counter!("bookend_replies_handed_over_total").increment(replies.len() as u64);
        tracing::warn!(replies = replies.len(), "replies for sagas of another build go back to the queue");
        if !shared.tasks.sleep(PAUSE).await {
            return;
        }
        tokio::select! {
            biased;
            // What is not acknowledged comes again, to whoever is there.
            () = shared.tasks.stopping() => return,
            () = publish(&*publisher, &replies) => receipts.iter().for_each(Receipt::settle),
        }
    }
}

/// Publishes until everything is confirmed.
async fn publish(publisher: &dyn Publisher, replies: &[Reply]) {
    let about = replies.first().map(|reply| reply.saga_id);
    let message = |body: String| {
        let message = Message::new(Uuid::new_v4(), Queue::Replies, body);
        Message { about, ..message }
    };
    let mut open: BTreeMap<Uuid, Message> =
        message::encode(replies).into_iter().map(message).map(|message| (message.id, message)).collect();
    let mut sent: BTreeMap<Uuid, Message> = BTreeMap::new();
    loop {
        let messages: Vec<Message> = std::mem::take(&mut open).into_values().collect();
        for (message, handed) in messages.iter().zip(publisher.publish(&messages)) {
            match handed {
                Handed::Over => sent.insert(message.id, message.clone()),
                Handed::NoRoom => open.insert(message.id, message.clone()),
            };
        }
        if sent.is_empty() {
            if open.is_empty() {
                return;
            }
            publisher.room(&Queue::Replies).await;
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        for settled in publisher.settled().await {
            if let (Some(message), false) = (sent.remove(&settled.id), settled.confirmed) {
                open.insert(message.id, message);
            }
        }
    }
}
