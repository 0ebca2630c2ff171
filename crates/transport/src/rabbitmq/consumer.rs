//! Consumes a queue for as long as its owner lives, whatever becomes of channels and connections.
//!
//! A task of its own pumps deliveries into memory and sends acknowledgements; the broker's prefetch bounds what is in
//! memory. Acknowledgements wait a little for others to go with them: each that is sent is an entry of the broker's log,
//! in the way of the messages that others wait for. Must hold: a consumer that was cancelled by the broker consumes again;
//! what its owner acknowledged is sent before its channel is closed, and soon enough that deliveries do not stop for want of
//! it; what its owner did not acknowledge goes back when it is dropped.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use runtime::retry::{Failure, retry};
use runtime::tasks::until;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::limited;
use super::held::Held;
use super::{Phase, Shared, properties, topology};
use crate::{Consumer, Delivery, Error, Queue};

/// What a consumer's owner and its task share.
#[derive(Debug)]
struct Desk {
    held: Mutex<Held>,
    /// Deliveries came, or none will come any more.
    arrived: Notify,
    /// There are acknowledgements to send.
    work: Notify,
    /// The owner is gone.
    left: Notify,
}

impl Desk {
    /// No call panics half-way through a change, so a poisoned lock still guards a sound state.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A consumer as its owner has it; without a desk when there is no such queue.
pub(super) struct Handle {
    shared: Arc<Shared>,
    desk: Option<Arc<Desk>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Consumer")
    }
}

impl Handle {
    /// Starts the task of a new consumer.
    pub(super) fn start(shared: &Arc<Shared>, queue: &Queue, prefetch: usize) -> Self {
        if !shared.options.declares(queue) {
            tracing::error!(queue = queue.name(), "a queue without a name in the topology has no messages");
            return Self { shared: Arc::clone(shared), desk: None };
        }
        let prefetch = u16::try_from(prefetch).unwrap_or(u16::MAX).max(1);
        let held = Mutex::new(Held::new(prefetch.into()));
        let (arrived, work, left) = (Notify::new(), Notify::new(), Notify::new());
        let desk = Arc::new(Desk { held, arrived, work, left });
        let seat = shared.seats.take(queue.name());
        shared.activity.consumer_came();
        let pump = Pump { shared: Arc::clone(shared), desk: Arc::clone(&desk), queue: queue.name(), prefetch, seat };
        shared.tasks.spawn_vital("consumer", pump.run());
        Self { shared: Arc::clone(shared), desk: Some(desk) }
    }
}

#[async_trait]
impl Consumer for Handle {
    async fn receive(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let desk = self.desk.as_ref()?;
        loop {
            let mut rung = pin!(desk.arrived.notified());
            // Listening begins before looking, so that nothing is missed in between.
            rung.as_mut().enable();
            if !self.shared.is(Phase::Open) {
                return None;
            }
            let received = desk.held().receive(max);
            if !received.is_empty() {
                return Some(received);
            }
            tokio::select! {
                biased;
                () = self.shared.reached(Phase::Draining) => return None,
                () = rung => {}
            }
        }
    }

    async fn acknowledge(&mut self, tags: &[u64]) {
        let Some(desk) = &self.desk else { return };
        if desk.held().acknowledge(tags) {
            desk.work.notify_one();
        }
        // Another place within the prefetch may be free, with a delivery for it at hand already.
        desk.arrived.notify_waiters();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(desk) = &self.desk {
            desk.left.notify_one();
        }
    }
}

/// The task behind a consumer.
struct Pump {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    queue: String,
    prefetch: u16,
    seat: u64,
}

/// Something consumed on a channel of its own.
struct Stream {
    connection: Arc<Connection>,
    channel: Channel,
    deliveries: lapin::Consumer,
}

impl Pump {
    async fn run(self) {
        let (shared, desk) = (Arc::clone(&self.shared), Arc::clone(&self.desk));
        let mut before: Option<Arc<Connection>> = None;
        loop {
            let started = tokio::select! {
                biased;
                () = shared.reached(Phase::Closed) => break,
                () = desk.left.notified() => break,
                started = self.start(before.as_ref()) => started,
            };
            let Some(mut stream) = started else { continue };
            shared.seats.consuming(self.seat);
            if before.is_some() {
                metrics::counter!("bookend_broker_consumers_restored_total").increment(1);
                tracing::info!(queue = self.queue, "consuming again");
            }
            let Some(why) = self.pump(&mut stream).await else {
                self.finish(stream).await;
                break;
            };
            tracing::warn!(queue = self.queue, why, "a consumer ended and will be restored");
            shared.seats.not_consuming(self.seat, &why);
            desk.held().reset();
            before = Some(stream.connection);
        }
        shared.seats.leave(self.seat);
        shared.activity.consumer_left();
    }

    /// Consumes as soon as that is possible.
    async fn start(&self, before: Option<&Arc<Connection>>) -> Option<Stream> {
        let (limit, options) = (self.shared.options.answer_max, self.shared.options.patience());
        let started = retry(&options, async || {
            let connection = self.shared.consuming.up().await;
            // On a new connection everything was declared a moment ago.
            let declare = before.is_some_and(|before| Arc::ptr_eq(before, &connection));
            let consuming = tokio::time::timeout(limit, self.consume(connection, declare));
            let consuming = consuming.await.unwrap_or(Err(Error::TimedOut { limit_ms: limit.as_millis() }));
            consuming.map_err(|error| {
                let line = error.line();
                if self.shared.seats.not_consuming(self.seat, &line) {
                    tracing::warn!(queue = self.queue, error = line, "a queue can't be consumed");
                }
                Failure::transient(error)
            })
        });
        started.await.ok()
    }

    async fn consume(&self, connection: Arc<Connection>, declare: bool) -> Result<Stream, Error> {
        if declare {
            topology::declare(&connection, &self.shared.options).await?;
        }
        let channel = connection.create_channel().await.map_err(Error::Broker)?;
        channel.basic_qos(self.prefetch, BasicQosOptions { global: false }).await.map_err(Error::Broker)?;
        let (queue, arguments) = (self.queue.as_str().into(), FieldTable::default());
        let consuming = channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), arguments);
        let deliveries = consuming.await.map_err(Error::Broker)?;
        Ok(Stream { connection, channel, deliveries })
    }

    /// Takes deliveries and sends acknowledgements until the stream ends; returns why it did, nothing when its owner or the
    /// transport ended it. Not to be dropped half-way: what it is about to send would be lost.
    async fn pump(&self, stream: &mut Stream) -> Option<String> {
        let mut closed = pin!(self.shared.reached(Phase::Closed));
        let mut due = None;
        loop {
            let tells = tokio::select! {
                biased;
                () = &mut closed => return None,
                () = self.desk.left.notified() => return None,
                () = until(due) => true,
                () = self.desk.work.notified() => {
                    due.get_or_insert_with(|| Instant::now() + self.shared.options.acknowledge_delay);
                    // Whoever stops takes nothing more, and others are there to take it.
                    self.desk.held().is_pressing() || !self.shared.is(Phase::Open)
                }
                () = self.shared.consuming.lost(&stream.connection) => return Some("its connection was lost".to_owned()),
                delivery = stream.deliveries.next() => match delivery {
                    Some(Ok(delivery)) => {
                        let died = properties::died(&delivery.properties);
                        let died = died.filter(|_| self.queue == Queue::DeadLetters.name());
                        let (tag, body) = (self.shared.tag(), Arc::from(delivery.data));
                        self.desk.held().deliver(delivery.delivery_tag, Delivery { tag, body, died });
                        self.desk.arrived.notify_waiters();
                        self.desk.held().is_pressing()
                    }
                    Some(Err(error)) => return Some(error.to_string()),
                    None => return Some("the broker cancelled it".to_owned()),
                },
            };
            if tells {
                due = None;
                if let Err(error) = self.acknowledge(&stream.channel).await {
                    return Some(error.line());
                }
            }
        }
    }

    async fn acknowledge(&self, channel: &Channel) -> Result<(), Error> {
        let acks = self.desk.held().acks();
        for ack in acks {
            let options = BasicAckOptions { multiple: ack.multiple };
            limited(self.shared.options.answer_max, channel.basic_ack(ack.tag, options)).await?;
        }
        Ok(())
    }

    /// Sends what was acknowledged and gives back the rest.
    async fn finish(&self, stream: Stream) {
        let limit = self.shared.options.answer_max;
        if let Err(error) = self.acknowledge(&stream.channel).await {
            tracing::warn!(queue = self.queue, error = error.line(), "the last acknowledgements may be lost");
        }
        // A channel that does not close in order is gone with its connection, and gives back as well.
        let _ = limited(limit, stream.channel.close(REPLY_SUCCESS, "done".into())).await;
        self.desk.held().reset();
    }
}
