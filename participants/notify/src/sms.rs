//! The SMS provider, behind a circuit breaker: while it is down, nobody waits for it.
//!
//! Must hold: silence counts as a failure of the provider; a message that was refused for its own sake counts as
//! none.

use std::time::Duration;

use reqwest::Client;
use runtime::breaker::{Breaker, BreakerError, State};
use runtime::clock::rfc3339;
use saga_defs::contract::notify::Send;
use serde::Serialize;

use crate::endpoint::Endpoint;
use crate::{Error, Options};

/// The breaker's name in metrics.
const BREAKER: &str = "sms";
/// The HTTP client gives up by itself, and knows better what was sent by then; the breaker waits a little longer.
const BREAKER_GRACE_MS: u64 = 1_000;

/// Sends text messages.
#[derive(Clone, Debug)]
pub(crate) struct Sms {
    endpoint: Endpoint,
    breaker: Breaker,
}

/// No `Debug`: it holds personal data.
#[derive(Serialize)]
struct Message<'a> {
    to: &'a str,
    text: String,
}

impl Sms {
    pub(crate) fn new(client: Client, options: &Options) -> Self {
        let breaker = runtime::breaker::Options {
            name: BREAKER,
            failures_to_open: options.breaker.failures,
            open_period: Duration::from_millis(options.breaker.open_ms),
            call_timeout: Duration::from_millis(options.timeout_ms.saturating_add(BREAKER_GRACE_MS)),
        };
        let endpoint = Endpoint::new(client, &options.sms_url, "/sms/messages");
        Self { endpoint, breaker: Breaker::new(breaker) }
    }

    pub(crate) async fn send(&self, key: &str, notice: &Send) -> Result<String, Error> {
        let text = format!("Your appointment on {} is confirmed.", rfc3339(notice.starts_at));
        let message = Message { to: &notice.patient.phone, text };
        match self.breaker.call(Error::is_outage, self.endpoint.post(key, &message)).await {
            Ok(id) => Ok(id),
            Err(BreakerError::Open) => Err(Error::BreakerOpen),
            Err(BreakerError::TimedOut) => Err(Error::TimedOut),
            Err(BreakerError::Call(error)) => Err(error),
        }
    }

    pub(crate) fn breaker_state(&self) -> State {
        self.breaker.state()
    }
}
