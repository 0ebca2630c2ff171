//! What goes wrong between this process and a broker.
//!
//! Not for what becomes of a message: that is its fate. Must hold: no message holds a URL, which may hold a password.

/// Why something could not be had from a broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Refused: the URL of the broker is none.
    #[error("the broker's URL can't be read; it looks like amqp://USER:PASSWORD@HOST:PORT/VHOST")]
    Url,
    /// Transient: the broker did not answer in time.
    #[error("the broker did not answer within {limit_ms} ms")]
    TimedOut {
        /// How long it had.
        limit_ms: u128,
    },
    /// Transient: the broker can't be reached, or ended what was begun.
    #[error("the broker can't be used")]
    Broker(#[source] lapin::Error),
    /// Transient, because an operator can mend it while this process runs: a queue or an exchange of this name is
    /// there already, and differs.
    #[error("{what} can't be declared")]
    Declare {
        /// The queue or exchange.
        what: String,
        /// What the broker has against it.
        #[source]
        source: lapin::Error,
    },
}

impl Error {
    /// The error and its causes as one line for an operator.
    pub(crate) fn line(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}
