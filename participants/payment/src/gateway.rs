//! The card gateway's client: what each answer means for the money.
//!
//! Not for deciding what to do next. Must hold: only an answer that the gateway gave becomes a value; silence, a
//! broken answer or a status that says nothing is an error, and an error is never taken for a refusal.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use saga_defs::contract::Money;
use saga_defs::contract::payment::Charge;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Options};

/// Talks to the gateway; cheap to share.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    client: Client,
    intents_url: String,
}

/// An intent as the gateway tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) state: State,
    #[serde(flatten)]
    stated: Stated,
}

/// The amount as far as an answer names it.
#[derive(Clone, Debug, Default, Deserialize)]
struct Stated {
    amount_minor: Option<i64>,
    currency: Option<String>,
}

impl Intent {
    /// An intent of which nothing but its state was told.
    fn bare(id: &str, state: State) -> Self {
        Self { id: id.to_owned(), state, stated: Stated::default() }
    }

    /// Whether nothing that the answer names of the amount speaks against `asked`.
    pub(crate) fn agrees_with(&self, asked: &Money) -> bool {
        self.stated.amount_minor.is_none_or(|minor| minor == asked.amount_minor)
            && self.stated.currency.as_ref().is_none_or(|currency| *currency == asked.currency)
    }

    /// The amount, where the answer names all of it.
    pub(crate) fn money(&self) -> Option<Money> {
        let Stated { amount_minor, currency } = self.stated.clone();
        Some(Money { amount_minor: amount_minor?, currency: currency? })
    }
}

/// Where an intent stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum State {
    /// No money was taken yet; a confirmation may be on its way.
    Created,
    /// Being charged.
    Processing,
    /// Money was taken.
    Charged {
        /// The gateway's id of the charge.
        charge_id: String,
    },
    /// The issuer said no, for ever.
    Declined,
    /// Canceled: no money will ever be taken.
    Canceled,
}

/// What came of creating an intent.
#[derive(Debug)]
pub(crate) enum Created {
    /// The intent of this key, new or known.
    Intent(Intent),
    /// The amount is not acceptable, or not the one that the gateway knows for this key.
    AmountMismatch,
    /// The gateway can't make sense of the request, now or later.
    Malformed,
}

/// What came of cancelling an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Canceled {
    /// No money will ever be taken.
    Done,
    /// Money was taken: refund it.
    AlreadyCharged,
    /// The charge is under way: ask again.
    Processing,
}

/// Money that the gateway gave back.
#[derive(Debug, Deserialize)]
pub(crate) struct Refund {
    pub(crate) refund_id: String,
    #[serde(flatten)]
    amount: Amount,
}

#[derive(Debug, Deserialize)]
struct Amount {
    amount_minor: i64,
    currency: String,
}

impl Refund {
    /// How much was given back.
    pub(crate) fn money(self) -> Money {
        Money { amount_minor: self.amount.amount_minor, currency: self.amount.currency }
    }
}

#[derive(Serialize)]
struct Create<'a> {
    amount_minor: i64,
    currency: &'a str,
    payment_method: &'a str,
}

#[derive(Deserialize)]
struct Found {
    data: Vec<Intent>,
}

/// Status and body of an answer; the body is null where it is not JSON.
struct Answer {
    status: StatusCode,
    body: Value,
}

impl Gateway {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let client = Client::builder()
            .timeout(Duration::from_millis(options.timeout_ms))
            // A gateway that moved is a matter for the operator, and a proxy of the environment one for nobody.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(Error::Client)?;
        let intents_url = format!("{}/gateway/intents", options.gateway_url.trim_end_matches('/'));
        Ok(Self { client, intents_url })
    }

    /// Creates the intent of this key, or finds it. Takes no money.
    pub(crate) async fn create(&self, key: &str, charge: &Charge) -> Result<Created, Error> {
        let body = Create {
            amount_minor: charge.amount.amount_minor,
            currency: &charge.amount.currency,
            payment_method: &charge.payment_method,
        };
        let request = self.client.post(&self.intents_url).header("idempotency-key", key).json(&body);
        let answer = send(request).await?;
        match answer.status {
            StatusCode::OK => answer.read().map(Created::Intent),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Created::AmountMismatch),
            // The same request was malformed on every attempt, so none of them created anything.
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Ok(Created::Malformed),
            status => Err(Error::Status(status.as_u16())),
        }
    }

    /// Takes the money. An error leaves open whether it was taken.
    pub(crate) async fn confirm(&self, id: &str) -> Result<Intent, Error> {
        let answer = send(self.client.post(self.url(id, "/confirm"))).await?;
        match (answer.status, answer.code()) {
            (StatusCode::OK, _) => answer.read(),
            (StatusCode::PAYMENT_REQUIRED, _) => Ok(Intent::bare(id, State::Declined)),
            (StatusCode::CONFLICT, "canceled") => Ok(Intent::bare(id, State::Canceled)),
            (StatusCode::NOT_FOUND, _) => Err(Error::IntentUnknown),
            (status, _) => Err(Error::Status(status.as_u16())),
        }
    }

    /// Cancels an intent whose money was not taken.
    pub(crate) async fn cancel(&self, id: &str) -> Result<Canceled, Error> {
        let answer = send(self.client.post(self.url(id, "/cancel"))).await?;
        match (answer.status, answer.code()) {
            (StatusCode::OK, _) => Ok(Canceled::Done),
            (StatusCode::CONFLICT, "already_charged") => Ok(Canceled::AlreadyCharged),
            (StatusCode::CONFLICT, "processing") => Ok(Canceled::Processing),
            (StatusCode::NOT_FOUND, _) => Err(Error::IntentUnknown),
            (status, _) => Err(Error::Status(status.as_u16())),
        }
    }

    /// Gives the money back, once per intent.
    pub(crate) async fn refund(&self, id: &str, key: &str) -> Result<Refund, Error> {
        let request = self.client.post(self.url(id, "/refund")).header("idempotency-key", key);
        let answer = send(request).await?;
        match answer.status {
            StatusCode::OK => answer.read(),
            StatusCode::NOT_FOUND => Err(Error::IntentUnknown),
            status => Err(Error::Status(status.as_u16())),
        }
    }

    /// Asks where an intent stands.
    pub(crate) async fn read(&self, id: &str) -> Result<Intent, Error> {
        let answer = send(self.client.get(self.url(id, ""))).await?;
        match answer.status {
            StatusCode::OK => answer.read(),
            StatusCode::NOT_FOUND => Err(Error::IntentUnknown),
            status => Err(Error::Status(status.as_u16())),
        }
    }

    /// Looks an intent up by the key that it was created with.
    pub(crate) async fn find(&self, key: &str) -> Result<Intent, Error> {
        // Keys are made of hexadecimal digits, dashes and a colon: all of them stand in a query as they are.
        let answer = send(self.client.get(format!("{}?key={key}", self.intents_url))).await?;
        match answer.status {
            StatusCode::OK => answer.read::<Found>()?.data.into_iter().next().ok_or(Error::IntentUnknown),
            status => Err(Error::Status(status.as_u16())),
        }
    }

    fn url(&self, id: &str, action: &str) -> String {
        format!("{}/{id}{action}", self.intents_url)
    }
}

async fn send(request: RequestBuilder) -> Result<Answer, Error> {
    let response = request.send().await.map_err(Error::Unanswered)?;
    let status = response.status();
    let bytes = response.bytes().await.map_err(Error::Unanswered)?;
    Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
}

impl Answer {
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    fn read<T: DeserializeOwned>(self) -> Result<T, Error> {
        serde_json::from_value(self.body).map_err(Error::Shape)
    }
}
