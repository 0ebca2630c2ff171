//! One connection to the broker, kept up for as long as the process lives.
//!
//! Not for messages. Must hold: it never gives up and never hurries; nothing of a lost connection is used again (the
//! client library's own recovery stays off); a connection counts as up only when everything is declared on it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::{Connection, ConnectionProperties, Event};
use runtime::retry::{Failure, retry};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Phase, Shared, topology};
use crate::Error;

/// How often a connection is looked at besides listening to what it says.
const LOOK: Duration = Duration::from_millis(250);

/// A connection's state as the rest sees it. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// What it is for.
    role: &'static str,
    state: watch::Sender<State>,
    /// Whether an attempt to connect is under way.
    attempting: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
enum State {
    Down {
        since: Instant,
        why: String,
    },
    Up {
        connection: Arc<Connection>,
        /// Why the broker takes no messages.
        blocked: Option<String>,
    },
}

impl Link {
    pub(super) fn new(role: &'static str) -> Self {
        let state = State::Down { since: Instant::now(), why: "not connected yet".to_owned() };
        Self { role, state: watch::Sender::new(state), attempting: watch::Sender::new(false) }
    }

    /// The connection, when messages may be written to it.
    pub(super) fn open(&self) -> Option<Arc<Connection>> {
        match &*self.state.borrow() {
            // What the library knows already arrives here a moment later.
            State::Up { connection, blocked: None } => {
                let status = connection.status();
                (status.connected() && !status.blocked()).then(|| Arc::clone(connection))
            }
            State::Up { blocked: Some(_), .. } | State::Down { .. } => None,
        }
    }

    /// Waits for a connection to which messages may be written.
    pub(super) async fn opened(&self) -> Arc<Connection> {
        let mut state = self.state.subscribe();
        loop {
            if let Some(connection) = self.open() {
                return connection;
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for a connection, blocked or not.
    pub(super) async fn up(&self) -> Arc<Connection> {
        let mut state = self.state.subscribe();
        loop {
            if let State::Up { connection, .. } = &*state.borrow_and_update() {
                return Arc::clone(connection);
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until `connection` is not the one in use any more.
    pub(super) async fn lost(&self, connection: &Arc<Connection>) {
        let gone = |state: &State| match state {
            State::Up { connection: current, .. } => !Arc::ptr_eq(current, connection),
            State::Down { .. } => true,
        };
        // It only fails when there is no link any more.
        let _ = self.state.subscribe().wait_for(gone).await;
    }

    /// Waits until no attempt to connect is under way.
    async fn idle(&self) {
        // It only fails when the sender is gone, which this struct owns.
        let _ = self.attempting.subscribe().wait_for(|attempting| !attempting).await;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down { since, why } => {
                let secs = since.elapsed().as_secs();
                Some(format!("no connection to the broker to {} for {secs} s: {why}", self.role))
            }
            State::Up { blocked: Some(why), .. } => Some(format!("the broker blocks publishing: {why}")),
            State::Up { blocked: None, .. } => None,
        }
    }

    fn set_up(&self, connection: &Arc<Connection>) {
        metrics::counter!("bookend_broker_connects_total", "connection" => self.role).increment(1);
        tracing::info!(connection = self.role, "connected to the broker");
        self.state.send_replace(State::Up { connection: Arc::clone(connection), blocked: None });
    }

    fn set_down(&self, why: &str) {
        metrics::counter!("bookend_broker_disconnects_total", "connection" => self.role).increment(1);
        tracing::warn!(connection = self.role, why, "the connection to the broker is lost");
        self.set_blocked(None);
        self.state.send_replace(State::Down { since: Instant::now(), why: why.to_owned() });
    }

    /// Another reason for being down; true when it is news.
    fn still_down(&self, reason: String) -> bool {
        self.state.send_if_modified(|state| match state {
            State::Down { why, .. } if *why != reason => {
                *why = reason;
                true
            }
            State::Down { .. } | State::Up { .. } => false,
        })
    }

    fn set_blocked(&self, why: Option<String>) {
        let mut changed = false;
        self.state.send_if_modified(|state| {
            if let State::Up { blocked, .. } = state {
                changed = *blocked != why;
                blocked.clone_from(&why);
            }
            changed
        });
        if !changed {
            return;
        }
        metrics::gauge!("bookend_broker_blocked", "connection" => self.role).set(if why.is_some() { 1.0 } else { 0.0 });
        match why {
            Some(why) => tracing::warn!(connection = self.role, why, "the broker blocks publishing"),
            None => tracing::info!(connection = self.role, "the broker takes messages again"),
        }
    }
}

/// Keeps `link` connected until the transport is closed.
pub(super) async fn keep(shared: Arc<Shared>, link: Link) {
    loop {
        let mut connecting = pin!(connect(&shared, &link));
        let connection = tokio::select! {
            biased;
            () = shared.reached(Phase::Closed) => {
                // The library's thread must not outlive the runtime that it asks.
                let idle = link.idle();
                let _ = tokio::time::timeout(shared.options.answer_max, async {
                    tokio::select! {
                        biased;
                        () = idle => {}
                        _ = &mut connecting => {}
                    }
                })
                .await;
                return;
            }
            connection = &mut connecting => connection,
        };
        let ended = watched(&link, &connection);
        tokio::select! {
            biased;
            () = shared.reached(Phase::Closed) => {
                let closing = connection.close(REPLY_SUCCESS, "closed".into());
                let _ = limited(shared.options.answer_max, closing).await;
                return;
            }
            why = ended => link.set_down(&why),
        }
        drop(connection);
        tokio::select! {
            biased;
            () = shared.reached(Phase::Closed) => return,
            () = tokio::time::sleep(shared.options.backoff) => {}
        }
    }
}

/// Tries until there is a connection on which everything is declared.
async fn connect(shared: &Shared, link: &Link) -> Arc<Connection> {
    let patience = shared.options.patience();
    loop {
        let connected = retry(&patience, async || {
            link.attempting.send_replace(true);
            let attempted = attempt(shared, link).await;
            link.attempting.send_replace(false);
            attempted.map_err(|error| {
                let line = error.line();
                if link.still_down(line.clone()) {
                    tracing::warn!(connection = link.role, error = line, "no connection to the broker");
                }
                Failure::transient(error)
            })
        });
        if let Ok(connection) = connected.await {
            return connection;
        }
    }
}

async fn attempt(shared: &Shared, link: &Link) -> Result<Arc<Connection>, Error> {
    let limit = shared.options.answer_max;
    let name = format!("{} ({})", shared.options.name, link.role);
    let properties = ConnectionProperties::default().with_connection_name(name.as_str().into());
    let connection = limited(limit, Connection::connect_uri(shared.uri.clone(), properties)).await?;
    let declared = tokio::time::timeout(limit, topology::declare(&connection, &shared.options)).await;
    match declared {
        Ok(Ok(())) => Ok(Arc::new(connection)),
        Ok(Err(error)) => {
            let _ = limited(limit, connection.close(REPLY_SUCCESS, "not declared".into())).await;
            Err(error)
        }
        Err(_) => Err(Error::TimedOut { limit_ms: limit.as_millis() }),
    }
}

/// Announces the connection and passes on what the broker says about it; returns why it ended.
async fn watched(link: &Link, connection: &Arc<Connection>) -> String {
    // Listening begins before anybody writes.
    let mut events = pin!(connection.events_listener());
    let mut look = tokio::time::interval(LOOK);
    let mut why = "the broker closed it".to_owned();
    link.set_up(connection);
    while connection.status().connected() {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => link.set_blocked(Some(reason)),
                Some(Event::ConnectionUnblocked) => link.set_blocked(None),
                Some(Event::Error(error)) => why = error.to_string(),
                Some(_) => {}
                None => return why,
            },
            _ = look.tick() => {}
        }
    }
    why
}

/// Asks the broker something, with a limit.
pub(super) async fn limited<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, question).await {
        Ok(answer) => answer.map_err(Error::Broker),
        Err(_) => Err(Error::TimedOut { limit_ms: limit.as_millis() }),
    }
}
