//! One provider's address for new messages, and what its answers mean.
//!
//! Must hold: an error says whether the message may have gone out, and whether it ever can; none of them holds the message.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Where a provider takes messages.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    client: Client,
    url: String,
}

#[derive(Deserialize)]
struct Accepted {
    id: String,
}

/// A client for both providers.
pub(crate) fn client(timeout_ms: u64) -> Result<Client, Error> {
    Client::builder()
        .timeout(Duration::from_millis(timeout_ms))
        // A provider that moved is a matter for the operator, and a proxy of the environment one for nobody.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(Error::Client)
}

impl Endpoint {
    pub(crate) fn new(client: Client, base_url: &str, path: &str) -> Self {
        Self { client, url: format!("{}{path}", base_url.trim_end_matches('/')) }
    }

    /// Hands a message over; the answer is the provider's id of it.
    pub(crate) async fn post(&self, key: &str, message: &impl Serialize) -> Result<String, Error> {
        let request = self.client.post(&self.url).header("idempotency-key", key).json(message);
        let response = request.send().await.map_err(unanswered)?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => {
                response.json::<Accepted>().await.map(|accepted| accepted.id).map_err(Error::Unanswered)
            }
            status @ (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
                Err(Error::Down(status.as_u16()))
            }
            // The provider gave up waiting for the request, or has one with this key in hand: what becomes of it is open.
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT) => Err(Error::Status(status.as_u16())),
            // These speak of the message, and would again. A notice may be refused for good because of them.
            status @ (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY) => {
                Err(Error::Rejected(status.as_u16()))
            }
            // A token, a right or an address that is wrong is wrong for all messages until somebody mends it.
            status if status.is_client_error() => Err(Error::Down(status.as_u16())),
            status => Err(Error::Status(status.as_u16())),
        }
    }
}

fn unanswered(error: reqwest::Error) -> Error {
    if error.is_connect() { Error::Unreachable(error) } else { Error::Unanswered(error) }
}
