//! The SMS and the mail provider. Neither dedupes, as many real ones don't: a message asked for twice goes out
//! twice, and the witness shows it.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Providers;
use crate::accepted::{Kind, Message};
use crate::journal::Change;
use crate::refusal::{Refusal, idempotency_key};

/// Messages to this number meet a provider that is down.
const PHONE_DOWN: &str = "+15005550009";
/// Messages to this number go out, and nobody is told.
const PHONE_SILENT: &str = "+15005550008";
/// This number takes no text messages.
const PHONE_LANDLINE: &str = "+15005550001";
/// This address takes no mails.
const MAIL_INVALID: &str = "nobody@example.org";

pub(crate) fn routes() -> Router<Providers> {
    Router::new().route("/sms/messages", post(sms)).route("/mail/messages", post(mail))
}

/// No `Debug`: it holds personal data.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sms {
    to: String,
    #[serde(rename = "text")]
    _text: String,
}

/// No `Debug`: it holds personal data.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mail {
    to: String,
    #[serde(rename = "subject")]
    _subject: String,
    #[serde(rename = "text")]
    _text: String,
}

#[derive(Serialize)]
struct Sent {
    id: String,
}

async fn sms(
    State(providers): State<Providers>,
    headers: HeaderMap,
    Json(message): Json<Sms>,
) -> Result<Json<Sent>, Refusal> {
    let key = idempotency_key(&headers)?;
    let sent = Message { id: id("sms"), key, recipient: masked_phone(&message.to), at: providers.now() };
    let answer = Sent { id: sent.id.clone() };
    {
        let mut world = providers.world();
        if world.sms_down || message.to == PHONE_DOWN {
            return Err(Refusal::Down);
        }
        if message.to == PHONE_LANDLINE {
            return Err(Refusal::RecipientInvalid);
        }
        world.accepted.has_room(Kind::Sms)?;
        world.commit(Change::Sms(sent))?;
    }
    if message.to == PHONE_SILENT {
        providers.tasks().stopping().await;
        return Err(Refusal::Stopping);
    }
    Ok(Json(answer))
}

async fn mail(
    State(providers): State<Providers>,
    headers: HeaderMap,
    Json(message): Json<Mail>,
) -> Result<Json<Sent>, Refusal> {
    let key = idempotency_key(&headers)?;
    let sent = Message { id: id("mail"), key, recipient: masked_mail(&message.to), at: providers.now() };
    let answer = Sent { id: sent.id.clone() };
    if message.to == MAIL_INVALID {
        return Err(Refusal::RecipientInvalid);
    }
    let mut world = providers.world();
    world.accepted.has_room(Kind::Mail)?;
    world.commit(Change::Mail(sent))?;
    Ok(Json(answer))
}

fn id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

/// The last two digits: enough to tell two test patients apart.
fn masked_phone(phone: &str) -> String {
    let count = phone.chars().count();
    let tail: String = phone.chars().skip(count.saturating_sub(2)).collect();
    if count > 4 { format!("***{tail}") } else { "***".to_owned() }
}

/// The domain only.
fn masked_mail(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, domain)) => format!("***@{domain}"),
        None => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_hide_the_person() {
        assert_eq!(masked_phone("+15005550006"), "***06");
        assert_eq!(masked_phone("911"), "***");
        assert_eq!(masked_mail("ada@example.org"), "***@example.org");
        assert_eq!(masked_mail("ada"), "***");
    }
}
