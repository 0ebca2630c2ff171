//! Takes replies from the transport and routes them to workers.
//!
//! Must hold: a delivery is acknowledged once every item in it is committed, known to change nothing, or kept as a
//! dead letter because it can't be read; such an item does not hold up its neighbours.

use std::sync::Arc;

use saga_defs::{DeadLetter, Reply, message};
use tokio::sync::mpsc;
use transport::{Consumer, Delivery, Queue};

use crate::dead_letters::Aside;
use crate::shared::Shared;
use crate::work::{Receipt, Work};

pub(crate) async fn run(shared: Arc<Shared>, mut consumer: Box<dyn Consumer>) {
    let prefetch = shared.options.prefetch;
    let (acknowledge, mut settled) = mpsc::channel::<u64>(prefetch);
    let mut tags = Vec::with_capacity(prefetch);
    loop {
        tokio::select! {
            biased;
            _ = settled.recv_many(&mut tags, prefetch) => {
                consumer.acknowledge(&tags).await;
                tags.clear();
            }
            () = shared.tasks.stopping() => break,
            deliveries = consumer.receive(shared.options.batch_max) => {
                let Some(deliveries) = deliveries else { break };
                for delivery in deliveries {
                    if !route(&shared, &delivery, &acknowledge).await {
                        return;
                    }
                }
            }
        }
    }
    // The workers finish what they hold; what they settle is still acknowledged, the rest comes again.
    drop(acknowledge);
    while settled.recv_many(&mut tags, prefetch).await > 0 {
        consumer.acknowledge(&tags).await;
        tags.clear();
    }
}

/// Puts a delivery's items to their workers, and sets aside those that can't be read; false when there are no workers
/// any more.
async fn route(shared: &Shared, delivery: &Delivery, acknowledge: &mpsc::Sender<u64>) -> bool {
    let queue = Queue::Replies.name();
    let items = match message::items(&delivery.body) {
        Ok(items) => items,
        Err(error) => {
            let receipt = Receipt::new(delivery.tag, 1, acknowledge.clone());
            return set_aside(shared, DeadLetter::unreadable(&queue, &error, &delivery.body), receipt).await;
        }
    };
    let receipt = Receipt::new(delivery.tag, items.len().max(1), acknowledge.clone());
    if items.is_empty() {
        receipt.settle();
    }
    for item in items {
        let taken = match message::read::<Reply>(item) {
            Ok(reply) => {
                let worker = shared.worker(reply.saga_id);
                let work = Work::Reply { reply: Box::new(reply), receipt: receipt.clone() };
                worker.send(work).await.is_ok()
            }
            Err(error) => {
                let letter = DeadLetter::unreadable(&queue, &error, item.as_bytes());
                set_aside(shared, letter, receipt.clone()).await
            }
        };
        if !taken {
            return false;
        }
    }
    true
}

/// Hands over what can't be read; false when the engine stops.
async fn set_aside(shared: &Shared, letter: DeadLetter, receipt: Receipt) -> bool {
    metrics::counter!("bookend_replies_invalid_total").increment(1);
    shared.aside.send(Aside { letter, receipt }).await.is_ok()
}
