//! Writes what was handed over, many messages in flight, and finds out the fate of each.
//!
//! Must hold: a message is confirmed only when the broker acknowledged it and did not return it; whatever ends the
//! channel settles everything on it as not confirmed; a message that the broker would not take is told of only after a
//! pause, in which its queue and binding are declared again if they are ours to declare, so that sending it again at once
//! makes no circle.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{FutureExt, poll_immediate};
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection};
use runtime::tasks::until;
use tokio::time::Instant;
use uuid::Uuid;

use super::connection::limited;
use super::inflight::Number;
use super::publisher::Mail;
use super::{Phase, Shared, properties, topology};
use crate::{Error, Message};

type Flight = Pin<Box<dyn Future<Output = (Number, Result<Confirmation, lapin::Error>)> + Send>>;

/// The task behind a publisher.
pub(super) struct Writer {
    shared: Arc<Shared>,
    mail: Arc<Mail>,
    /// What the broker would not take, and when that is told; in order.
    refused: VecDeque<(Instant, Number)>,
    /// Whether what was refused may be for lack of something that is declared here.
    mend: bool,
}

/// How a channel's life ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Nothing more will be published.
    Done,
    /// The broker or the library ended it.
    Broken,
    /// The connection is gone.
    Lost,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, mail: Arc<Mail>) -> Self {
        Self { shared, mail, refused: VecDeque::new(), mend: false }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Some(connection) = self.connection().await else { break };
            let end = match self.open(&connection).await {
                Ok(channel) => self.write(&connection, &channel).await,
                Err(error) => {
                    tracing::warn!(error = error.line(), "a publisher's channel can't be opened");
                    End::Broken
                }
            };
            self.lose_all();
            match end {
                End::Done => break,
                End::Lost => {}
                End::Broken => {
                    self.mend(&connection).await;
                    tokio::time::sleep(self.shared.options.refused_pause).await;
                }
            }
        }
        self.mail.book().closed = true;
        self.lose_all();
    }

    /// Waits for a connection; none when there is nothing left to do.
    async fn connection(&mut self) -> Option<Arc<Connection>> {
        let (shared, mail) = (Arc::clone(&self.shared), Arc::clone(&self.mail));
        loop {
            tokio::select! {
                biased;
                () = shared.reached(Phase::Closed) => return None,
                connection = shared.publishing.opened() => return Some(connection),
                () = mail.work.notified() => {
                    // Taken while the connection was being lost.
                    self.lose_all();
                    if mail.book().left {
                        return None;
                    }
                }
            }
        }
    }

    async fn open(&self, connection: &Connection) -> Result<Channel, Error> {
        let limit = self.shared.options.answer_max;
        let channel = limited(limit, connection.create_channel()).await?;
        limited(limit, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        // What was handed over while the channel was opened is written at once.
        self.mail.work.notify_one();
        Ok(channel)
    }

    /// Writes and listens until the channel ends.
    async fn write(&mut self, connection: &Arc<Connection>, channel: &Channel) -> End {
        let (shared, mail) = (Arc::clone(&self.shared), Arc::clone(&self.mail));
        let mut flights = FuturesUnordered::new();
        loop {
            let overdue = mail.book().flight.oldest().map(|since| since + shared.options.confirm_max);
            let told = self.refused.front().map(|(at, _)| *at);
            tokio::select! {
                biased;
                Some(landed) = flights.next(), if !flights.is_empty() => {
                    let landed = all_landed(&mut flights, landed).await;
                    if !self.settle(landed) {
                        return End::Broken;
                    }
                }
                () = shared.reached(Phase::Closed) => return End::Done,
                () = shared.publishing.lost(connection) => return End::Lost,
                () = until(told) => {
                    if std::mem::take(&mut self.mend) {
                        self.mend(connection).await;
                    }
                    self.tell_refused();
                }
                () = until(overdue) => {
                    tracing::warn!("the broker confirms nothing; what is in flight counts as lost");
                    return End::Broken;
                }
                () = mail.work.notified() => {
                    for (number, message) in mail.book().flight.write() {
                        flights.push(publish(channel.clone(), number, message, &shared));
                    }
                }
            }
            let book = mail.book();
            if book.left && book.flight.is_empty() {
                return End::Done;
            }
        }
    }

    /// Settles what landed. False when the channel is broken.
    fn settle(&mut self, landed: Vec<(Number, Result<Confirmation, lapin::Error>)>) -> bool {
        let mut book = self.mail.book();
        let (mut acked, mut refused, mut sound) = (Vec::new(), Vec::new(), true);
        for (number, confirmation) in landed {
            let returned = match confirmation {
                Ok(Confirmation::Ack(returned)) => {
                    acked.push(number);
                    returned
                }
                Ok(Confirmation::Nack(returned)) => {
                    self.mend = true;
                    refused.push(number);
                    returned
                }
                Ok(Confirmation::NotRequested) => {
                    refused.push(number);
                    None
                }
                Err(error) => {
                    if sound {
                        tracing::warn!(error = %error, "a publisher's channel broke");
                    }
                    sound = false;
                    None
                }
            };
            if let Some(returned) = returned {
                metrics::counter!("bookend_broker_returned_total").increment(1);
                self.mend |= topology::declares(&self.shared.options, returned.routing_key.as_str());
                let id = returned.properties.message_id().as_ref().and_then(|id| Uuid::parse_str(id.as_str()).ok());
                if !id.is_some_and(|id| book.flight.returned(id)) {
                    tracing::error!(queue = %returned.routing_key, "an unknown message was returned");
                }
            }
        }
        refused.iter().for_each(|number| book.flight.refused(*number));
        let (back, safe) = book.flight.acknowledged(acked);
        safe.iter().for_each(|number| book.flight.settle(*number, true));
        let at = Instant::now() + self.shared.options.refused_pause;
        self.refused.extend(refused.into_iter().chain(back).map(|number| (at, number)));
        drop(book);
        self.shared.activity.landed(safe.len());
        if !safe.is_empty() {
            self.mail.told.notify_waiters();
        }
        sound
    }

    fn tell_refused(&mut self) {
        let now = Instant::now();
        let mut book = self.mail.book();
        let mut count = 0;
        while let Some((_, number)) = self.refused.pop_front_if(|(at, _)| *at <= now) {
            book.flight.settle(number, false);
            count += 1;
        }
        drop(book);
        self.shared.activity.landed(count);
        self.mail.told.notify_waiters();
    }

    /// A queue, a binding or an exchange may have been deleted.
    async fn mend(&self, connection: &Connection) {
        if self.shared.publishing.open().is_none() {
            return;
        }
        let declared = topology::declare(connection, &self.shared.options);
        let declared = tokio::time::timeout(self.shared.options.answer_max, declared);
        if let Ok(Err(error)) = declared.await {
            tracing::warn!(error = error.line(), "messages were not taken, and what they need can't be declared");
        }
    }

    fn lose_all(&mut self) {
        self.refused.clear();
        let count = {
            let mut book = self.mail.book();
            let before = book.flight.in_flight();
            book.flight.lose_all();
            before
        };
        self.shared.activity.landed(count);
        self.mail.told.notify_waiters();
        self.mail.room.notify_waiters();
    }
}

/// Publishes one message and waits for its confirm. The frames are queued at the first poll.
fn publish(channel: Channel, number: Number, message: Message, shared: &Shared) -> Flight {
    let properties = properties::of(&message, shared.uri.authority.userinfo.username.as_str());
    let flight = async move {
        let (exchange, key) = topology::route(&message.queue);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = message.body.as_bytes();
        let published = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await;
        match published {
            Ok(confirm) => (number, confirm.await),
            Err(error) => (number, Err(error)),
        }
    };
    flight.boxed()
}

/// Everything that has landed by now.
///
/// The library attaches a returned message to whichever confirm it resolves next. Of what it has resolved, nothing may be
/// overlooked that came before what is looked at: a set of futures hands out what is ready until it says that nothing
/// is, and says so early only when it has polled all that was ready once.
async fn all_landed<T>(flights: &mut FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send>>>, first: T) -> Vec<T> {
    let mut landed = vec![first];
    let mut quiet = 0;
    while quiet < 2 {
        match poll_immediate(flights.next()).await {
            Some(Some(next)) => {
                landed.push(next);
                quiet = 0;
            }
            Some(None) => break,
            None => quiet += 1,
        }
    }
    landed
}
