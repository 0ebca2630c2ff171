//! The contract of a transport as tests that any transport runs.
//!
//! Each function states one promise and panics when it is broken. Must hold: no case depends on how fast the
//! transport is, only on an answer within [`LIMIT`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::{Consumer, Delivery, Handed, Hints, Message, Publisher, Queue, Settled, Transport};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(20);
/// How long nothing must happen before it counts as not happening.
const SILENCE: Duration = Duration::from_millis(200);
/// The queue that most cases use.
pub const QUEUE: Queue = Queue::Replies;

/// Opens and closes transports of one kind.
#[async_trait]
pub trait Harness: Send + Sync + fmt::Debug {
    /// A transport with these queues, empty, each with room for `capacity` messages.
    async fn open(&self, queues: &[Queue], capacity: usize) -> Arc<dyn Transport>;

    /// Another transport beside the one opened last, as another process has it.
    async fn another(&self) -> Arc<dyn Transport>;

    /// Closes every transport that was opened.
    async fn close(&self);

    /// Whether a message is confirmed, and its room free again, only when its consumer acknowledged it. A broker
    /// confirms as soon as the message is safe with it.
    fn confirms_on_acknowledge(&self) -> bool;
}

/// A message for [`QUEUE`].
#[must_use]
pub fn message(body: &str) -> Message {
    Message::new(Uuid::new_v4(), QUEUE, body)
}

fn numbered(count: usize) -> Vec<Message> {
    (0..count).map(|n| message(&n.to_string())).collect()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing happened within {LIMIT:?}"),
    }
}

async fn never<T>(what: &str, future: impl Future<Output = T>) {
    assert!(tokio::time::timeout(SILENCE, future).await.is_err(), "{what}");
}

/// Hands over all messages and asserts that all were taken.
fn send(publisher: &dyn Publisher, messages: &[Message]) {
    assert_eq!(publisher.publish(messages), vec![Handed::Over; messages.len()], "there was room for all");
}

/// Receives until `count` deliveries are there, acknowledging none.
async fn receive(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut received = Vec::new();
    while received.len() < count {
        let more = within("receive", consumer.receive(count - received.len())).await;
        received.extend(more.expect("the transport is open"));
    }
    assert_eq!(received.len(), count, "never more than asked for");
    received
}

fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| std::str::from_utf8(&delivery.body).expect("text was sent")).collect()
}

fn tags(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

/// Collects fates until there are `count`.
async fn fates(publisher: &dyn Publisher, count: usize) -> Vec<Settled> {
    let mut fates = Vec::new();
    while fates.len() < count {
        fates.extend(within("settled", publisher.settled()).await);
    }
    fates
}

/// Bodies arrive unchanged and in order.
pub async fn what_arrives_is_what_was_sent(harness: &dyn Harness) {
    let transport = harness.open(&[QUEUE], 16).await;
    let sent: Vec<Message> = ["{}", "", "[{\"a\":\"ä\\u2028\"}]", &"x".repeat(100_000)].map(message).to_vec();
    send(&*transport.publisher(), &sent);
    let received = receive(&mut *transport.consumer(&QUEUE, 16), sent.len()).await;
    assert_eq!(bodies(&received), sent.iter().map(|message| &*message.body).collect::<Vec<_>>());
    let distinct: BTreeSet<u64> = received.iter().map(|delivery| delivery.tag).collect();
    assert_eq!(distinct.len(), sent.len(), "every delivery has a tag of its own");
    assert!(received.iter().all(|delivery| delivery.died.is_none()), "nothing has died");
}

/// A dead letter that somebody sent has no history of its own.
pub async fn a_dead_letter_that_was_sent_has_not_died(harness: &dyn Harness) {
    let transport = harness.open(&[QUEUE, Queue::DeadLetters], 16).await;
    let letter = Message { queue: Queue::DeadLetters, ..message("{}") };
    send(&*transport.publisher(), &[letter]);
    let mut consumer = transport.consumer(&Queue::DeadLetters, 16);
    let received = receive(&mut *consumer, 1).await;
    assert_eq!((bodies(&received), received[0].died.clone()), (vec!["{}"], None));
    consumer.acknowledge(&tags(&received)).await;
    never("it arrives once", consumer.receive(1)).await;
}

/// A hint reaches every listener, in this process and in others, and nobody who was not listening.
pub async fn a_hint_reaches_everybody_who_listens(harness: &dyn Harness) {
    let here = harness.open(&[QUEUE], 16).await;
    let there = harness.another().await;
    let (publisher, other) = (here.publisher(), there.publisher());
    let mut first = here.hints();
    hinted_until_heard(&*publisher, &mut *first, "early").await;
    // A hint is on its way for a while, and overtakes none before it: now all of those have arrived.
    hinted_until_heard(&*publisher, &mut *first, "later").await;
    let mut listeners = [here.hints(), here.hints(), there.hints()];
    for listener in &mut listeners {
        let heard = hinted_until_heard(&*publisher, &mut **listener, "here").await;
        assert!(!heard.iter().any(|hint| &**hint == "early"), "what was hinted at before is not heard");
        hinted_until_heard(&*other, &mut **listener, "there").await;
    }
}

/// Hints again and again, because any may be lost, until one of them is heard. All that was heard.
async fn hinted_until_heard(publisher: &dyn Publisher, listener: &mut dyn Hints, hint: &str) -> Vec<Arc<str>> {
    let heard = async {
        let mut all = Vec::new();
        while all.last().is_none_or(|last: &Arc<str>| &**last != hint) {
            publisher.hint(hint);
            let heard = tokio::time::timeout(SILENCE, listener.next()).await;
            all.extend(heard.map(|heard| heard.expect("the transport is open")));
        }
        all
    };
    within("a hint", heard).await
}

/// Being delivered confirms nothing; being acknowledged does.
pub async fn confirmed_only_after_acknowledge(harness: &dyn Harness) {
    let transport = harness.open(&[QUEUE], 16).await;
    let (publisher, mut consumer) = (transport.publisher(), transport.consumer(&QUEUE, 16));
    let sent = numbered(2);
    send(&*publisher, &sent);
    let received = receive(&mut *consumer, 2).await;
    if harness.confirms_on_acknowledge() {
        never("a delivered message is not confirmed", publisher.settled()).await;
        consumer.acknowledge(&[received[1].tag]).await;
        assert_eq!(fates(&*publisher, 1).await, [Settled { id: sent[1].id, confirmed: true }]);
        never("the other message is not confirmed", publisher.settled()).await;
        consumer.acknowledge(&[received[0].tag]).await;
        assert_eq!(fates(&*publisher, 1).await, [Settled { id: sent[0].id, confirmed: true }]);
    } else {
        assert!(fates(&*publisher, 2).await.iter().all(|fate| fate.confirmed));
    }
}

/// What a dropped consumer did not acknowledge is delivered again, first and in order.
pub async fn unacknowledged_comes_back(harness: &dyn Harness) {
    let transport = harness.open(&[QUEUE], 16).await;
    let publisher = transport.publisher();
    send(&*publisher, &numbered(6));
    let mut first = transport.consumer(&QUEUE, 4);
    let received = receive(&mut *first, 4).await;
    let mut second = transport.consumer(&QUEUE, 16);
    assert_eq!(bodies(&receive(&mut *second, 2).await), ["4", "5"]);
    first.acknowledge(&[received[1].tag]).await;
    drop(first);
    let again = receive(&mut *second, 3).await;
    assert_eq!(bodies(&again), ["0", "2", "3"]);
    second.acknowledge(&tags(&received)).await;
    drop(second);
    let left = receive(&mut *transport.consumer(&QUEUE, 16), 5).await;
    assert_eq!(left.len(), 5, "tags of another consumer acknowledge nothing");
}

/// A full queue refuses without waiting, and says when it takes messages again.
pub async fn full_has_no_room_until_there_is(harness: &dyn Harness) {
    if !harness.confirms_on_acknowledge() {
        return;
    }
    let other = Queue::Participant("other".to_owned());
    let transport = harness.open(&[QUEUE, other.clone()], 2).await;
    let (publisher, mut consumer) = (transport.publisher(), transport.consumer(&QUEUE, 2));
    within("room in an empty queue", publisher.room(&QUEUE)).await;
    assert_eq!(publisher.publish(&numbered(3)), [Handed::Over, Handed::Over, Handed::NoRoom]);
    assert_eq!(publisher.publish(&[Message { queue: other, ..message("x") }]), [Handed::Over]);
    never("a full queue has no room", publisher.room(&QUEUE)).await;
    let received = receive(&mut *consumer, 2).await;
    never("what is not acknowledged still takes room", publisher.room(&QUEUE)).await;
    let first = tags(&received[..1]);
    let make_room = consumer.acknowledge(&first);
    within("room after an acknowledgement", async { tokio::join!(publisher.room(&QUEUE), make_room) }).await;
    assert_eq!(publisher.publish(&numbered(2)), [Handed::Over, Handed::NoRoom]);
}

/// A consumer holds at most its prefetch.
pub async fn prefetch_is_respected(harness: &dyn Harness) {
    let transport = harness.open(&[QUEUE], 16).await;
    send(&*transport.publisher(), &numbered(5));
    let mut consumer = transport.consumer(&QUEUE, 2);
    let received = receive(&mut *consumer, 2).await;
    never("the prefetch is used up", consumer.receive(16)).await;
    consumer.acknowledge(&tags(&received[..1])).await;
    assert_eq!(bodies(&receive(&mut *consumer, 1).await), ["2"]);
    never("the prefetch is used up again", consumer.receive(16)).await;
}

/// Dropping the futures of `receive` and `settled` loses nothing.
pub async fn receive_can_be_dropped(harness: &dyn Harness) {
    const COUNT: usize = 50;
    let transport = harness.open(&[QUEUE], COUNT).await;
    let (publisher, mut consumer) = (transport.publisher(), transport.consumer(&QUEUE, COUNT));
    let (mut received, mut settled) = (Vec::new(), 0);
    let exchange = async {
        for sent in numbered(COUNT) {
            // Polled once and dropped, before and after there is something to find.
            never_mind(consumer.receive(1), &mut received).await;
            send(&*publisher, &[sent]);
            never_mind(consumer.receive(1), &mut received).await;
            if let Ok(fates) = tokio::time::timeout(Duration::ZERO, publisher.settled()).await {
                settled += fates.len();
            }
            consumer.acknowledge(&tags(&received)).await;
        }
    };
    within("the exchange", exchange).await;
    let rest = receive(&mut *consumer, COUNT - received.len()).await;
    consumer.acknowledge(&tags(&rest)).await;
    received.extend(rest);
    let expected: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&received), expected);
    fates(&*publisher, COUNT - settled).await;
}

async fn never_mind(receive: impl Future<Output = Option<Vec<Delivery>>>, received: &mut Vec<Delivery>) {
    if let Ok(deliveries) = tokio::time::timeout(Duration::ZERO, receive).await {
        received.extend(deliveries.expect("the transport is open"));
    }
}

/// Two parties that send each other more than the queues between them hold do not block each other.
pub async fn a_ring_never_deadlocks(harness: &dyn Harness) {
    const TOKENS: usize = 40;
    // Odd, so that a token ends where it began.
    const HOPS: usize = 9;
    let there = Queue::Participant("there".to_owned());
    let transport = harness.open(&[QUEUE, there.clone()], 2).await;
    let mut ends = [BTreeSet::new(), BTreeSet::new()];
    let tokens: Vec<Message> = (0..TOKENS).map(|n| message(&format!("{n}:{HOPS}"))).collect();
    let [left, right] = &mut ends;
    let ring = async {
        tokio::select! {
            biased;
            () = node(&*transport, &QUEUE, &there, Vec::new(), left, 0) => {}
            () = node(&*transport, &there, &QUEUE, tokens, right, TOKENS) => {}
        }
    };
    within("the ring", ring).await;
    assert_eq!(ends[1].len(), TOKENS);
}

/// Passes tokens on, each with one hop less, until it holds `wanted` that have no hop left; for ever if it wants
/// none.
async fn node(
    transport: &dyn Transport,
    from: &Queue,
    to: &Queue,
    mut outbox: Vec<Message>,
    ended: &mut BTreeSet<String>,
    wanted: usize,
) {
    let (publisher, mut consumer) = (transport.publisher(), transport.consumer(from, 1));
    for token in &mut outbox {
        token.queue = to.clone();
    }
    while wanted == 0 || ended.len() < wanted {
        let handed = publisher.publish(&outbox);
        let mut fate = handed.into_iter();
        outbox.retain(|_| fate.next() == Some(Handed::NoRoom));
        tokio::select! {
            biased;
            deliveries = consumer.receive(1) => {
                let deliveries = deliveries.expect("the transport is open");
                for token in bodies(&deliveries) {
                    match passed_on(token) {
                        Some(body) => outbox.push(Message { queue: to.clone(), ..message(&body) }),
                        None => { ended.insert(token.to_owned()); }
                    }
                }
                consumer.acknowledge(&tags(&deliveries)).await;
            }
            () = publisher.room(to), if !outbox.is_empty() => {}
            _ = publisher.settled() => {}
        }
    }
}

fn passed_on(token: &str) -> Option<String> {
    let (number, hops) = token.split_once(':')?;
    let hops: usize = hops.parse().ok()?;
    (hops > 0).then(|| format!("{number}:{}", hops - 1))
}

/// Every hand-over has one fate, told to the publisher that handed over, even for one id handed over twice.
pub async fn settled_exactly_once(harness: &dyn Harness) {
    let transport = harness.open(&[QUEUE], 16).await;
    let (one, two) = (transport.publisher(), transport.publisher());
    let twice = message("twice");
    send(&*one, &[twice.clone(), twice.clone(), message("once")]);
    send(&*two, &[message("other")]);
    let mut consumer = transport.consumer(&QUEUE, 16);
    let received = receive(&mut *consumer, 4).await;
    consumer.acknowledge(&tags(&received)).await;
    consumer.acknowledge(&tags(&received)).await;
    let mut counts = BTreeMap::new();
    for fate in fates(&*one, 3).await {
        assert!(fate.confirmed);
        *counts.entry(fate.id).or_insert(0) += 1;
    }
    assert_eq!((counts.len(), counts.get(&twice.id)), (2, Some(&2)));
    assert_eq!(fates(&*two, 1).await.len(), 1);
    never("no fate is told twice", one.settled()).await;
    never("no fate is told to another", two.settled()).await;
}

/// Two consumers of a queue get every message once between them, and both get some.
pub async fn two_consumers_share(harness: &dyn Harness) {
    const COUNT: usize = 8;
    let transport = harness.open(&[QUEUE], COUNT).await;
    let publisher = transport.publisher();
    let mut one = transport.consumer(&QUEUE, COUNT / 2);
    let mut two = transport.consumer(&QUEUE, COUNT / 2);
    send(&*publisher, &numbered(COUNT));
    let (ones, twos) = tokio::join!(receive(&mut *one, COUNT / 2), receive(&mut *two, COUNT / 2));
    let all: BTreeSet<&str> = bodies(&ones).into_iter().chain(bodies(&twos)).collect();
    assert_eq!(all.len(), COUNT);
}

/// Closing ends consumers that wait and those that come, takes no more, and leaves no fate open.
pub async fn closing_ends_consumers(harness: &dyn Harness) {
    let other = Queue::Participant("other".to_owned());
    let transport = harness.open(&[QUEUE, other.clone()], 16).await;
    let (publisher, mut consumer) = (transport.publisher(), transport.consumer(&QUEUE, 16));
    assert!(publisher.is_open());
    let (ended, ()) =
        within("a waiting consumer", async { tokio::join!(consumer.receive(1), close_soon(harness)) }).await;
    assert_eq!(ended, None);
    assert_eq!(within("the next receive", consumer.receive(1)).await, None);
    assert_eq!(within("a new consumer", transport.consumer(&QUEUE, 1).receive(1)).await, None);
    assert_eq!(within("a new listener", transport.hints().next()).await, None);
    assert_eq!(publisher.publish(&[message("late")]), [Handed::NoRoom]);
    assert!(!publisher.is_open());

    let transport = harness.open(&[QUEUE], 16).await;
    let (publisher, mut consumer) = (transport.publisher(), transport.consumer(&QUEUE, 1));
    send(&*publisher, &numbered(2));
    let held = receive(&mut *consumer, 1).await;
    harness.close().await;
    consumer.acknowledge(&tags(&held)).await;
    let fates = fates(&*publisher, 2).await;
    assert_eq!(fates.len(), 2);
    if harness.confirms_on_acknowledge() {
        assert!(fates.iter().all(|fate| !fate.confirmed), "what nobody acknowledged is not confirmed");
    }
}

async fn close_soon(harness: &dyn Harness) {
    // Lets the other half of the join wait first.
    tokio::task::yield_now().await;
    harness.close().await;
}
