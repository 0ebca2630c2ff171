//! The mail provider: the other channel, used when an SMS can't be relied on.

use reqwest::Client;
use saga_defs::contract::notify::Send;
use serde::Serialize;

use runtime::clock::rfc3339;

use crate::endpoint::Endpoint;
use crate::{Error, Options};

/// Sends mails.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    endpoint: Endpoint,
}

/// No `Debug`: it holds personal data.
#[derive(Serialize)]
struct Message<'a> {
    to: &'a str,
    subject: &'static str,
    text: String,
}

impl Mail {
    pub(crate) fn new(client: Client, options: &Options) -> Self {
        Self { endpoint: Endpoint::new(client, &options.mail_url, "/mail/messages") }
    }

    pub(crate) async fn send(&self, key: &str, notice: &Send) -> Result<String, Error> {
        let text = format!(
            "Dear {},\n\nyour appointment on {} is confirmed. Its number is {}.\n",
            notice.patient.name,
            rfc3339(notice.starts_at),
            notice.appointment_id,
        );
        let message = Message { to: &notice.patient.email, subject: "Your appointment is confirmed", text };
        self.endpoint.post(key, &message).await
    }
}
