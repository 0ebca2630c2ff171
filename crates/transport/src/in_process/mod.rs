//! The transport of one process: bounded queues in memory, delivering at least once.
//!
//! Not durable: the outbox is. Must hold: a message is confirmed when its consumer acknowledged it, and what a
//! consumer drops comes back first, in order; handing over never waits; given the same calls everything happens in
//! the same order, because there are no threads, no clock and no chance but a seeded one.

mod faults;

mod state;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, broadcast};

pub use faults::{Bites, Faults};
use state::{State, Taken};

use crate::{Consumer, Delivery, Handed, Hints, Message, Publisher, Queue, Settled, Transport};

/// Hints that a slow consumer may leave waiting; older ones are lost to it.
const HINTS_MAX: usize = 1_024;

/// What an in-process transport is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The queues; messages for others find no room.
    pub queues: Vec<Queue>,
    /// How many messages each queue takes, waiting or unacknowledged; at least 1.
    pub capacity: usize,
    /// Trouble, for tests.
    pub faults: Option<Faults>,
}

/// Queues in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct InProcess {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bells: BTreeMap<Queue, Bells>,
    /// Gone when the transport has closed.
    hints: Mutex<Option<broadcast::Sender<Arc<str>>>>,
}

/// Rung after every change that somebody may wait for.
#[derive(Debug, Default)]
struct Bells {
    arrived: Notify,
    room: Notify,
}

impl Shared {
    /// No call panics half-way through a change, so a poisoned lock still guards a sound state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hints(&self) -> MutexGuard<'_, Option<broadcast::Sender<Arc<str>>>> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring_arrived(&self, queue: &Queue) {
        if let Some(bells) = self.bells.get(queue) {
            bells.arrived.notify_waiters();
        }
    }

    fn ring_room(&self, queue: &Queue) {
        if let Some(bells) = self.bells.get(queue) {
            bells.room.notify_waiters();
        }
    }
}

impl InProcess {
    /// Empty queues.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let state = State::new(&options.queues, options.capacity.max(1), options.faults);
        let bells = options.queues.iter().map(|queue| (queue.clone(), Bells::default())).collect();
        let hints = Mutex::new(Some(broadcast::Sender::new(HINTS_MAX)));
        Self { shared: Arc::new(Shared { state: Mutex::new(state), bells, hints }) }
    }

    /// Ends all consumers. Messages nobody acknowledged are not confirmed; no more are taken.
    pub fn close(&self) {
        self.shared.state().close();
        *self.shared.hints() = None;
        for bells in self.shared.bells.values() {
            bells.arrived.notify_waiters();
        }
    }

    /// How often messages were delivered a second time on purpose.
    #[must_use]
    pub fn redeliveries(&self) -> u64 {
        self.bites().redelivered
    }

    /// How often a message overtook others on purpose.
    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.bites().reordered
    }

    /// How often a message vanished on purpose.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.bites().lost
    }

    /// How often each fault bit.
    #[must_use]
    pub fn bites(&self) -> Bites {
        self.shared.state().bites()
    }
}

impl Transport for InProcess {
    fn publisher(&self) -> Arc<dyn Publisher> {
        let settled = Arc::new(Notify::new());
        let number = self.shared.state().add_publisher(Arc::clone(&settled));
        Arc::new(Handle { shared: Arc::clone(&self.shared), number, settled })
    }

    fn consumer(&self, queue: &Queue, prefetch: usize) -> Box<dyn Consumer> {
        let number = self.shared.state().add_consumer(queue, prefetch.max(1));
        if number.is_none() {
            tracing::error!(queue = queue.name(), "a queue without a name in the topology has no messages");
        }
        Box::new(Receiver { shared: Arc::clone(&self.shared), queue: queue.clone(), number })
    }

    fn hints(&self) -> Box<dyn Hints> {
        Box::new(Heard { hints: self.shared.hints().as_ref().map(broadcast::Sender::subscribe) })
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

/// A publisher. It has at most as many messages without a collected fate as all queues together take, so one that
/// never asks for fates runs out of room.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    number: u64,
    settled: Arc<Notify>,
}

#[async_trait]
impl Publisher for Handle {
    fn publish(&self, messages: &[Message]) -> Vec<Handed> {
        let handed: Vec<Handed> = {
            let mut state = self.shared.state();
            messages.iter().map(|message| state.publish(self.number, message)).collect()
        };
        for (message, handed) in messages.iter().zip(&handed) {
            match handed {
                Handed::Over => self.shared.ring_arrived(&message.queue),
                Handed::NoRoom => {}
            }
        }
        handed
    }

    fn is_open(&self) -> bool {
        self.shared.state().is_open()
    }

    async fn room(&self, queue: &Queue) {
        let Some(bells) = self.shared.bells.get(queue) else { return std::future::pending().await };
        loop {
            let mut rung = pin!(bells.room.notified());
            // Listening begins before looking, so that nothing is missed in between.
            rung.as_mut().enable();
            if self.shared.state().has_room(self.number, queue) {
                return;
            }
            rung.await;
        }
    }

    async fn settled(&self) -> Vec<Settled> {
        loop {
            let mut rung = pin!(self.settled.notified());
            rung.as_mut().enable();
            let settled = self.shared.state().collect(self.number);
            if !settled.is_empty() {
                for bells in self.shared.bells.values() {
                    bells.room.notify_waiters();
                }
                return settled;
            }
            rung.await;
        }
    }

    fn hint(&self, body: &str) {
        if let Some(hints) = &*self.shared.hints() {
            // Without a consumer there is nobody to tell.
            let _ = hints.send(Arc::from(body));
        }
    }
}

/// A consumer of hints; none when the transport had closed before.
#[derive(Debug)]
struct Heard {
    hints: Option<broadcast::Receiver<Arc<str>>>,
}

#[async_trait]
impl Hints for Heard {
    async fn next(&mut self) -> Option<Arc<str>> {
        let hints = self.hints.as_mut()?;
        loop {
            match hints.recv().await {
                Ok(hint) => return Some(hint),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.state().remove_publisher(self.number);
    }
}

/// A consumer; `number` is none for a queue that does not exist.
#[derive(Debug)]
struct Receiver {
    shared: Arc<Shared>,
    queue: Queue,
    number: Option<u64>,
}

#[async_trait]
impl Consumer for Receiver {
    async fn receive(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let bells = self.shared.bells.get(&self.queue)?;
        let number = self.number?;
        loop {
            let mut rung = pin!(bells.arrived.notified());
            rung.as_mut().enable();
            let taken = self.shared.state().take(number, max);
            // A lost message makes room without being taken.
            match taken {
                Taken::Some(deliveries) => {
                    self.shared.ring_room(&self.queue);
                    return Some(deliveries);
                }
                Taken::Nothing => self.shared.ring_room(&self.queue),
                Taken::Closed => return None,
            }
            rung.await;
        }
    }

    async fn acknowledge(&mut self, tags: &[u64]) {
        if let Some(number) = self.number {
            self.shared.state().acknowledge(number, tags);
            self.shared.ring_room(&self.queue);
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.state().remove_consumer(number);
            self.shared.ring_arrived(&self.queue);
        }
    }
}

#[cfg(test)]
mod tests;
