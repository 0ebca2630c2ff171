//! Takes replies from the transport and routes them to workers.
//!
//! Must hold: a delivery is acknowledged once every item in it is committed or known to change nothing; an item
//! that can't be read is counted, logged without its body, and does not hold up its neighbours.

use std::sync::Arc;

use saga_defs::message;
use saga_defs::{Error as MessageError, Reply};
use tokio::sync::mpsc;
use transport::{Consumer, Delivery};

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

/// Puts a delivery's items to their workers; false when there are none any more.
async fn route(shared: &Shared, delivery: &Delivery, acknowledge: &mpsc::Sender<u64>) -> bool {
    let items = match message::decode::<Reply>(&delivery.body) {
        Ok(items) => items,
        Err(error) => vec![Err(error)],
    };
    let receipt = Receipt::new(delivery.tag, items.len().max(1), acknowledge.clone());
    if items.is_empty() {
        receipt.settle();
    }
    for item in items {
        match item {
            Ok(reply) => {
                let worker = shared.worker(reply.saga_id);
                let work = Work::Reply { reply: Box::new(reply), receipt: receipt.clone() };
                if worker.send(work).await.is_err() {
                    return false;
                }
            }
            Err(error) => {
                invalid(&error);
                receipt.settle();
            }
        }
    }
    true
}

fn invalid(error: &MessageError) {
    metrics::counter!("bookend_replies_invalid_total").increment(1);
    tracing::error!(error = %error, "a reply can't be read and is set aside");
}
