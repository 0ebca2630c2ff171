//! The contract, run against the queues in memory, and what only they promise.

use std::collections::BTreeMap;

use super::*;
use crate::conformance::{self, Harness, QUEUE, message};

#[derive(Debug)]
struct InMemory(Mutex<Vec<InProcess>>);

#[async_trait]
impl Harness for InMemory {
    async fn open(&self, queues: &[Queue], capacity: usize) -> Arc<dyn Transport> {
        let transport = InProcess::new(&Options { queues: queues.to_vec(), capacity, faults: None });
        self.0.lock().unwrap().push(transport.clone());
        Arc::new(transport)
    }

    async fn another(&self) -> Arc<dyn Transport> {
        Arc::new(self.0.lock().unwrap().last().expect("one was opened").clone())
    }

    async fn close(&self) {
        self.0.lock().unwrap().drain(..).for_each(|transport| transport.close());
    }

    fn confirms_on_acknowledge(&self) -> bool {
        true
    }
}

macro_rules! conforms {
    ($($case:ident),+ $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $case() {
            conformance::$case(&InMemory(Mutex::default())).await;
        }
    )+};
}

conforms!(
    what_arrives_is_what_was_sent,
    confirmed_only_after_acknowledge,
    unacknowledged_comes_back,
    full_has_no_room_until_there_is,
    prefetch_is_respected,
    receive_can_be_dropped,
    a_ring_never_deadlocks,
    settled_exactly_once,
    two_consumers_share,
    closing_ends_consumers,
    a_dead_letter_that_was_sent_has_not_died,
    a_hint_reaches_everybody_who_listens,
);

fn troubled(faults: Faults) -> InProcess {
    InProcess::new(&Options { queues: vec![QUEUE], capacity: 64, faults: Some(faults) })
}

/// Sends numbered messages, again when they were lost, and notes what arrived, in order.
async fn exchange(transport: &InProcess, count: usize) -> Vec<Arc<[u8]>> {
    let publisher = transport.publisher();
    let mut consumer = transport.consumer(&QUEUE, 8);
    let mut open: BTreeMap<_, _> = (0..count).map(|n| message(&n.to_string())).map(|m| (m.id, m)).collect();
    let mut arrived = Vec::new();
    assert_eq!(publisher.publish(&open.values().cloned().collect::<Vec<_>>()), vec![Handed::Over; count]);
    while !open.is_empty() {
        tokio::select! {
            biased;
            settled = publisher.settled() => for Settled { id, confirmed } in settled {
                if confirmed {
                    open.remove(&id).expect("settled once");
                } else {
                    assert_eq!(publisher.publish(&[open[&id].clone()]), [Handed::Over]);
                }
            },
            deliveries = consumer.receive(4) => {
                let deliveries = deliveries.expect("the transport is open");
                arrived.extend(deliveries.iter().map(|delivery| Arc::clone(&delivery.body)));
                consumer.acknowledge(&deliveries.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await;
            }
            () = tokio::time::sleep(conformance::LIMIT) => panic!("{} messages are not settled", open.len()),
        }
    }
    arrived
}

#[tokio::test(start_paused = true)]
async fn trouble_bites_and_everything_still_arrives() {
    let transport = troubled(Faults { seed: 7, redeliver_percent: 30, reorder_percent: 30, lose_percent: 30 });
    let arrived = exchange(&transport, 64).await;
    let bites = transport.bites();
    println!("{bites:?} for {} arrivals", arrived.len());
    assert!(bites.redelivered > 5 && bites.reordered > 5 && bites.lost > 5, "{bites:?}");
    let distinct: std::collections::BTreeSet<_> = arrived.iter().collect();
    assert_eq!(distinct.len(), 64);
    assert!(arrived.len() > 64);
}

#[tokio::test(start_paused = true)]
async fn equal_seeds_give_equal_trouble() {
    let run = async |seed| {
        let transport = troubled(Faults { seed, redeliver_percent: 20, reorder_percent: 20, lose_percent: 20 });
        let publisher = transport.publisher();
        let mut consumer = transport.consumer(&QUEUE, 64);
        publisher.publish(&(0..64).map(|n| message(&n.to_string())).collect::<Vec<_>>());
        let bodies = consumer.receive(64).await.unwrap().into_iter().map(|delivery| delivery.body);
        (bodies.collect::<Vec<_>>(), transport.bites())
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_never_collects_runs_out_of_room() {
    let transport = InProcess::new(&Options { queues: vec![QUEUE], capacity: 2, faults: None });
    let publisher = transport.publisher();
    let mut consumer = transport.consumer(&QUEUE, 2);
    for _ in 0..2 {
        assert_eq!(publisher.publish(&[message("x")]), [Handed::Over]);
        let tag = consumer.receive(1).await.unwrap()[0].tag;
        consumer.acknowledge(&[tag]).await;
    }
    assert_eq!(publisher.publish(&[message("x")]), [Handed::NoRoom]);
    assert_eq!(publisher.settled().await.len(), 2);
    publisher.room(&QUEUE).await;
    assert_eq!(publisher.publish(&[message("x")]), [Handed::Over]);
}

#[tokio::test]
async fn an_unknown_queue_takes_nothing_and_gives_nothing() {
    let transport = InProcess::new(&Options { queues: vec![QUEUE], capacity: 2, faults: None });
    let stranger = Queue::Participant("stranger".to_owned());
    let letter = Message { queue: stranger.clone(), ..message("x") };
    assert_eq!(transport.publisher().publish(&[letter]), [Handed::NoRoom]);
    assert_eq!(transport.consumer(&stranger, 1).receive(1).await, None);
}
