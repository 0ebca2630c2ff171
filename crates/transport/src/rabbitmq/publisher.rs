//! A publisher as its owner has it: a bounded queue in memory, fates to collect.
//!
//! Not for talking to the broker: [`Writer`] does. Must hold: handing over never waits; nothing is taken while the
//! connection is down or blocked, or once the transport is closed; room is free again when a fate is collected.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::inflight::InFlight;
use super::writer::Writer;
use super::{Phase, Shared};
use crate::{Handed, Message, Publisher, Queue, Settled};

/// What a publisher's owner and its task share.
#[derive(Debug)]
pub(super) struct Mail {
    book: Mutex<Book>,
    /// There is something to write, or nobody left to write for.
    pub(super) work: Notify,
    /// There are fates to collect.
    pub(super) told: Notify,
    pub(super) room: Notify,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) flight: InFlight,
    /// Takes nothing any more.
    pub(super) closed: bool,
    /// Its owner is gone; what was handed over is still published.
    pub(super) left: bool,
}

impl Mail {
    /// No call panics half-way through a change, so a poisoned lock still guards a sound state.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A publisher as its owner has it.
pub(super) struct Handle {
    shared: Arc<Shared>,
    mail: Arc<Mail>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Publisher")
    }
}

impl Handle {
    /// Starts the task of a new publisher.
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let flight = InFlight::new(shared.options.in_flight_max);
        let book = Book { flight, closed: shared.is(Phase::Closed), left: false };
        let (work, told, room) = (Notify::new(), Notify::new(), Notify::new());
        let mail = Arc::new(Mail { book: Mutex::new(book), work, told, room });
        shared.tasks.spawn_vital("publisher", Writer::new(Arc::clone(shared), Arc::clone(&mail)).run());
        Self { shared: Arc::clone(shared), mail }
    }

    fn has_room(&self) -> bool {
        let reachable = self.shared.publishing.open().is_some();
        let book = self.mail.book();
        reachable && !book.closed && book.flight.has_room()
    }
}

#[async_trait]
impl Publisher for Handle {
    fn publish(&self, messages: &[Message]) -> Vec<Handed> {
        let reachable = self.shared.publishing.open().is_some();
        let now = Instant::now();
        let mut book = self.mail.book();
        let takes = reachable && !book.closed;
        let mut hand = |message: &Message| if takes { book.flight.hand_over(message, now) } else { Handed::NoRoom };
        let handed: Vec<Handed> = messages.iter().map(&mut hand).collect();
        let count = handed.iter().filter(|handed| **handed == Handed::Over).count();
        if count > 0 {
            // Counted before the writer can see them, so that none lands before it took off.
            self.shared.activity.flying(count);
            self.mail.work.notify_one();
        }
        drop(book);
        handed
    }

    fn is_open(&self) -> bool {
        self.shared.publishing.open().is_some() && !self.mail.book().closed
    }

    async fn room(&self, _queue: &Queue) {
        loop {
            let mut rung = pin!(self.mail.room.notified());
            // Listening begins before looking, so that nothing is missed in between.
            rung.as_mut().enable();
            // Looked at once: a connection that comes up in between would leave both waits without anybody to end them.
            let open = self.shared.publishing.open().is_some();
            if open && self.has_room() {
                return;
            }
            if open {
                rung.await;
            } else {
                self.shared.publishing.opened().await;
            }
        }
    }

    async fn settled(&self) -> Vec<Settled> {
        loop {
            let mut rung = pin!(self.mail.told.notified());
            rung.as_mut().enable();
            let settled = self.mail.book().flight.collect();
            if !settled.is_empty() {
                self.mail.room.notify_waiters();
                return settled;
            }
            rung.await;
        }
    }

    fn hint(&self, body: &str) {
        self.shared.hint(body);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.mail.book().left = true;
        self.mail.work.notify_one();
    }
}
