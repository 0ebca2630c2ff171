//! Hints: to everybody who listens, never kept, never confirmed.
//!
//! Must hold: giving a hint never waits and never queues up behind a broker that does not take it; a listener that is
//! slow or cut off loses hints, and nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use runtime::retry::{Failure, retry};
use tokio::sync::{broadcast, mpsc};

use super::connection::limited;
use super::{Phase, Shared, properties, topology};
use crate::{Error, Hints};

/// Hints of this process that wait to be written.
pub(super) const GIVEN_MAX: usize = 256;
/// Hints that a slow listener may leave waiting in this process; older ones are lost to it.
const HEARD_MAX: usize = 1_024;

/// Publishes hints while there is a connection; drops them while there is none.
pub(super) async fn give(shared: Arc<Shared>, mut given: mpsc::Receiver<Arc<str>>) {
    let mut channel: Option<(Arc<Connection>, Channel)> = None;
    loop {
        let hint = tokio::select! {
            biased;
            () = shared.reached(Phase::Closed) => return,
            hint = given.recv() => hint,
        };
        let Some(hint) = hint else { return };
        if let Err(reason) = write(&shared, &mut channel, &hint).await {
            channel = None;
            dropped(1);
            tracing::debug!(reason, "a hint is dropped");
        }
    }
}

async fn write(shared: &Shared, channel: &mut Option<(Arc<Connection>, Channel)>, hint: &str) -> Result<(), String> {
    let limit = shared.options.answer_max;
    let connection = shared.publishing.open().ok_or("no connection")?;
    let current = match channel.take() {
        Some((on, current)) if Arc::ptr_eq(&on, &connection) => current,
        Some(_) | None => limited(limit, connection.create_channel()).await.map_err(|error| error.line())?,
    };
    let (options, user) = (BasicPublishOptions::default(), shared.uri.authority.userinfo.username.as_str());
    let properties = properties::of_hint(user);
    let publishing = current.basic_publish(topology::HINTS.into(), "".into(), options, hint.as_bytes(), properties);
    limited(limit, publishing).await.map_err(|error| error.line())?;
    *channel = Some((connection, current));
    Ok(())
}

pub(super) fn dropped(count: u64) {
    metrics::counter!("bookend_broker_hints_dropped_total").increment(count);
}

/// A listener as its owner has it.
#[derive(Debug)]
pub(super) struct Heard {
    hints: broadcast::Receiver<Arc<str>>,
}

impl Heard {
    /// Starts the task of a new listener.
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let (heard, hints) = broadcast::channel(HEARD_MAX);
        shared.tasks.spawn(listen(Arc::clone(shared), heard));
        Self { hints }
    }
}

#[async_trait]
impl Hints for Heard {
    async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            match self.hints.recv().await {
                Ok(hint) => return Some(hint),
                Err(broadcast::error::RecvError::Lagged(count)) => dropped(count),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Listens until nobody wants to hear or shutdown begins.
async fn listen(shared: Arc<Shared>, heard: broadcast::Sender<Arc<str>>) {
    loop {
        tokio::select! {
            biased;
            () = shared.reached(Phase::Draining) => return,
            () = heard.closed() => return,
            why = pass_on(&shared, &heard) => tracing::info!(why, "hints are not heard for a moment"),
        }
    }
}

async fn pass_on(shared: &Shared, heard: &broadcast::Sender<Arc<str>>) -> String {
    let (limit, patience) = (shared.options.answer_max, shared.options.patience());
    let started = retry(&patience, async || {
        let connection = shared.consuming.up().await;
        let consuming = tokio::time::timeout(limit, consume(&connection)).await;
        let consuming = consuming.unwrap_or(Err(Error::TimedOut { limit_ms: limit.as_millis() }));
        consuming.map(|consuming| (connection, consuming)).map_err(Failure::transient)
    });
    let (connection, (_channel, mut hints)) = match started.await {
        Ok(started) => started,
        Err(error) => return error.to_string(),
    };
    loop {
        let hint = tokio::select! {
            biased;
            () = shared.consuming.lost(&connection) => return "the connection was lost".to_owned(),
            hint = hints.next() => hint,
        };
        match hint {
            // Others may put anything there; what is no text is no hint.
            Some(Ok(hint)) => match String::from_utf8(hint.data) {
                Ok(text) => drop(heard.send(Arc::from(text))),
                Err(_) => dropped(1),
            },
            Some(Err(error)) => return error.to_string(),
            None => return "the broker cancelled it".to_owned(),
        }
    }
}

async fn consume(connection: &Connection) -> Result<(Channel, lapin::Consumer), Error> {
    let channel = connection.create_channel().await.map_err(Error::Broker)?;
    let queue = topology::declare_hints(&channel).await?;
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let hints = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await.map_err(Error::Broker)?;
    Ok((channel, hints))
}
