//! A message's properties and headers: for tools and traces, nothing is decided from them.
//!
//! Must hold: the broker checks `user_id`, so that it names who published; a header holds ids and no personal data.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use runtime::clock::{Clock, SystemClock};
use uuid::Uuid;

use super::topology::text;
use crate::{Died, Message};

/// Kept on disk.
const PERSISTENT: u8 = 2;
/// Kept in memory.
const TRANSIENT: u8 = 1;

pub(super) fn of(message: &Message, user: &str) -> BasicProperties {
    let batch = message.body.starts_with('[');
    let kind = if batch { "application/vnd.bookend.batch+json" } else { "application/json" };
    let properties = BasicProperties::default()
        .with_message_id(message.id.to_string().into())
        .with_content_type(kind.into())
        .with_delivery_mode(PERSISTENT)
        .with_user_id(user.into())
        .with_app_id("bookend".into())
        .with_timestamp(u64::try_from(SystemClock.now().0 / 1_000_000).unwrap_or(0));
    let Some(saga_id) = message.about else { return properties };
    let mut headers = FieldTable::default();
    headers.insert("saga_id".into(), text(&saga_id.to_string()));
    headers.insert("traceparent".into(), text(&traceparent(saga_id, message.id)));
    properties.with_headers(headers)
}

pub(super) fn of_hint(user: &str) -> BasicProperties {
    let properties = BasicProperties::default().with_delivery_mode(TRANSIENT);
    properties.with_user_id(user.into()).with_app_id("bookend".into())
}

/// One trace per saga, one span per message.
fn traceparent(saga_id: Uuid, message_id: Uuid) -> String {
    let span = message_id.simple().to_string();
    format!("00-{}-{}-01", saga_id.simple(), &span[..16])
}

/// How the broker says that it gave up on a message: where it was first, and why.
pub(super) fn died(properties: &BasicProperties) -> Option<Died> {
    let headers = properties.headers().as_ref()?.inner();
    let of = |key: &str| headers.get(key).and_then(string);
    if let (Some(queue), Some(reason)) = (of("x-first-death-queue"), of("x-first-death-reason")) {
        return Some(Died { queue, reason });
    }
    let Some(AMQPValue::FieldArray(deaths)) = headers.get("x-death") else { return None };
    // The latest comes first.
    let Some(AMQPValue::FieldTable(first)) = deaths.as_slice().last() else { return None };
    let of = |key: &str| first.inner().get(key).and_then(string);
    Some(Died { queue: of("queue")?, reason: of("reason")? })
}

fn string(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(value) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        AMQPValue::ShortString(value) => Some(value.as_str().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::message;

    #[test]
    fn a_saga_is_a_trace_and_a_message_a_span() {
        let saga = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let message_id = Uuid::from_u128(0xfedc_ba98_7654_3210_0000_0000_0000_0001);
        let expected = "00-0123456789abcdef0123456789abcdef-fedcba9876543210-01";
        assert_eq!(traceparent(saga, message_id), expected);
    }

    #[test]
    fn a_batch_and_a_single_message_are_told_apart() {
        let kind = |body| of(&message(body), "guest").content_type().clone().map(|kind| kind.to_string());
        assert_eq!(kind("{}").as_deref(), Some("application/json"));
        assert_eq!(kind("[{}]").as_deref(), Some("application/vnd.bookend.batch+json"));
        assert!(of(&message("{}"), "guest").headers().is_none(), "about no saga");
    }

    #[test]
    fn a_death_is_read_from_either_kind_of_header() {
        let with = |headers: FieldTable| died(&BasicProperties::default().with_headers(headers));
        let mut short = FieldTable::default();
        short.insert("x-first-death-queue".into(), text("bookend.payment"));
        short.insert("x-first-death-reason".into(), text("delivery_limit"));
        let expected = Died { queue: "bookend.payment".to_owned(), reason: "delivery_limit".to_owned() };
        assert_eq!(with(short), Some(expected.clone()));

        let mut death = FieldTable::default();
        death.insert("queue".into(), text("bookend.payment"));
        death.insert("reason".into(), text("delivery_limit"));
        let mut long = FieldTable::default();
        long.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
        assert_eq!(with(long), Some(expected));

        let mut odd = FieldTable::default();
        odd.insert("x-death".into(), AMQPValue::Boolean(true));
        assert_eq!(with(odd), None);
        assert_eq!(died(&BasicProperties::default()), None);
    }
}
