//! Reading message bodies, whoever wrote them.
//!
//! Not for what becomes of those that can't be read. Must hold: one bad item spoils none of its neighbours; what is read
//! can be stored by every database and read again; a body that is as it should be is gone through twice and no more,
//! once for its items and once for what they say.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{BATCH_ITEMS_MAX, BODY_BYTES_MAX, Item, VERSION};
use crate::Error;
use crate::json::{self, Refused, Rules};

/// Reads a message body item by item, so that one bad item does not spoil its neighbours.
///
/// # Errors
/// The outer error is that of [`items`]. Inner errors: that of [`read`] for this item.
pub fn decode<T: Item>(body: &[u8]) -> Result<Vec<Result<T, Error>>, Error> {
    Ok(items(body)?.into_iter().map(read).collect())
}

/// The exact texts of a message body's items: those of the array, or the whole body.
///
/// # Errors
/// When the body is longer than [`BODY_BYTES_MAX`], no JSON at all, or an array of more than [`BATCH_ITEMS_MAX`].
pub fn items(body: &[u8]) -> Result<Vec<&str>, Error> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Error::Oversized(body.len()));
    }
    let items: Vec<&RawValue> = if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(body).map_err(Error::Json)?
    } else {
        vec![serde_json::from_slice(body).map_err(Error::Json)?]
    };
    if items.len() > BATCH_ITEMS_MAX {
        return Err(Error::Items(items.len()));
    }
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// Reads one item.
///
/// # Errors
/// When it is of another format version, not of the expected shape, or has a flaw that would keep it from being stored
/// and read again.
pub fn read<T: Item>(item: &str) -> Result<T, Error> {
    if !json::is_plain(item, T::DEPTH_MAX) {
        // Before a value is built, since building it gives reserved names their meaning.
        check_version(item)?;
        check(item, T::DEPTH_MAX)?;
    }
    match serde_json::from_str::<T>(item) {
        Ok(read) if read.version() == VERSION => Ok(read),
        Ok(read) => Err(Error::Version(read.version())),
        Err(error) => check_version(item).and(Err(Error::Json(error))),
    }
}

/// What another version's members look like is not for this build to say.
fn check_version(item: &str) -> Result<(), Error> {
    let Versioned { v } = serde_json::from_str(item).map_err(Error::Json)?;
    if v == VERSION { Ok(()) } else { Err(Error::Version(v)) }
}

fn check(item: &str, depth_max: usize) -> Result<(), Error> {
    json::check(item.as_bytes(), Rules { depth_max, repeats: true }).map_err(|Refused { flaw, cause, .. }| match flaw {
        Some(flaw) => Error::Flaw(flaw),
        None => Error::Json(cause),
    })
}

/// The member that every version of every message has.
#[derive(Deserialize)]
struct Versioned {
    v: u16,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::dead_letter::{Reason, explain};
    use crate::json::{DEPTH_MAX, Flaw};
    use crate::message::{encode, tests::reply};
    use crate::{Command, Ended, Outcome, Reply, Timestamp, Verb};

    fn command(payload: Value) -> Command {
        Command {
            v: VERSION,
            command_id: Uuid::nil(),
            key: Uuid::nil(),
            saga_id: Uuid::nil(),
            tenant: "default".to_owned(),
            definition: "booking@1".to_owned(),
            step: "payment".to_owned(),
            participant: "payment".to_owned(),
            verb: Verb::Execute,
            command: "payment.charge".to_owned(),
            attempt: 1,
            first_sent_at: Timestamp(0),
            dedupe_until: Timestamp(0),
            deadline: Timestamp(0),
            payload,
        }
    }

    /// The text of an item in which this stands for the text `here`.
    fn with<T: Item>(item: &T, here: &str) -> String {
        let text = serde_json::to_string(item).unwrap();
        assert!(text.contains("\"HERE\""));
        text.replacen("\"HERE\"", here, 1)
    }

    fn succeeded(output: &str) -> String {
        with(&command(json!({})).reply(Outcome::succeeded(json!("HERE"))), output)
    }

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    fn flaw<T: Item>(item: &str) -> Option<Flaw> {
        match read::<T>(item) {
            Ok(_) => None,
            Err(Error::Flaw(flaw)) => Some(flaw),
            Err(error) => panic!("{item}: {error:?}"),
        }
    }

    #[test]
    fn a_bad_item_does_not_spoil_its_neighbours() {
        let mut future = serde_json::to_value(reply(2)).unwrap();
        future["v"] = json!(99);
        let body = json!([reply(1), {"v": 1}, future, reply(3)]).to_string();
        let items = decode::<Reply>(body.as_bytes()).unwrap();
        assert!(items[0].is_ok() && items[3].is_ok());
        assert!(matches!(items[1], Err(Error::Json(_))));
        assert!(matches!(items[2], Err(Error::Version(99))));
    }

    #[test]
    fn an_item_is_given_as_its_exact_text() {
        let body = b" [ {\"v\" : 1, \"n\": 1.10} ,\t7, \"\\ud800\" ] ";
        assert_eq!(items(body).unwrap(), ["{\"v\" : 1, \"n\": 1.10}", "7", "\"\\ud800\""]);
        assert_eq!(items(b" {} ").unwrap(), ["{}"]);
        assert!(items(b"[]").unwrap().is_empty());
        for broken in [&b""[..], b"[1,", b"[1] 2", b"\xff", b"[\"\xff\"]", b"\x0c[1]", b"not JSON", b"1 2"] {
            assert!(matches!(items(broken), Err(Error::Json(_))), "{broken:?}");
        }
    }

    #[test]
    fn a_body_that_is_too_long_is_not_read() {
        let mut body = vec![b' '; BODY_BYTES_MAX - 1];
        body.push(b'7');
        assert_eq!(items(&body).unwrap(), ["7"]);
        body.push(b' ');
        assert!(matches!(decode::<Reply>(&body), Err(Error::Oversized(_))));
    }

    /// Others count on it: who holds so many deliveries holds so many times as many items at most.
    #[test]
    fn an_array_of_too_many_items_is_not_read() {
        let array = |count: usize| format!(" [{}]", vec!["7"; count].join(","));
        assert_eq!(items(array(BATCH_ITEMS_MAX).as_bytes()).unwrap().len(), BATCH_ITEMS_MAX);
        let error = items(array(BATCH_ITEMS_MAX + 1).as_bytes()).unwrap_err();
        assert_eq!(explain(&error), (Reason::Oversized, "it holds 257 items, at most 256 are read".to_owned()));
    }

    #[test]
    fn another_version_is_told_as_such_whatever_else_it_has() {
        let deep = nested(5_000);
        let mut next = reply(1);
        next.v = 7;
        for foreign in [
            r#"{"v": 7, "reply_to": []}"#.to_owned(),
            r#"{"outcome": 5, "key": {}, "v": 7}"#.to_owned(),
            format!(r#"{{"v": 7, "output": {deep}}}"#),
            r#"{"v": 7, "key": "\u0000", "$serde_json::private::RawValue": 1}"#.to_owned(),
            encode(&[next]).concat(),
        ] {
            assert!(matches!(read::<Reply>(&foreign), Err(Error::Version(7))), "{foreign}");
            assert!(matches!(read::<Command>(&foreign), Err(Error::Version(7))), "{foreign}");
        }
        let nested = format!(r#"{{"v": 1, "x": {deep}}}"#);
        assert_eq!(items(nested.as_bytes()).unwrap().len(), 1);
        assert_eq!(flaw::<Reply>(&nested), Some(Flaw::Depth));
        assert!(matches!(read::<Reply>(r#"{"v": 1, "key": 5, "x": "\u0061"}"#), Err(Error::Json(_))));
        assert!(matches!(read::<Reply>(r#"{"v": 1, "key": 5}"#), Err(Error::Json(_))));
    }

    #[test]
    fn what_is_no_message_is_told_by_the_version_that_it_lacks() {
        let lacking = |item: &str| explain(&read::<Command>(item).unwrap_err()).1;
        assert_eq!(lacking(r#"{"key": 7}"#), "the member `v` is missing");
        assert_eq!(lacking(r#"{"v": 1}"#), "the member `command_id` is missing");
    }

    #[test]
    fn what_a_client_may_send_passes_as_payload_and_as_output() {
        // Its body is an object around the input.
        let input = nested(DEPTH_MAX);
        assert_eq!(flaw::<Reply>(&succeeded(&input)), None);
        // An output of the greatest depth, in a template of the greatest depth.
        let (before, after) = ("[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        let filled = format!("{before}{input}{after}");
        assert_eq!(flaw::<Command>(&with(&command(json!("HERE")), &filled)), None);
    }

    #[test]
    fn what_is_read_can_be_stored_and_read_again() {
        assert_eq!(flaw::<Reply>(&succeeded(&nested(DEPTH_MAX + 1))), Some(Flaw::Depth));
        assert_eq!(flaw::<Command>(&with(&command(json!("HERE")), &nested(2 * DEPTH_MAX + 1))), Some(Flaw::Depth));
        let refused = |code: &str| with(&command(json!({})).reply(Outcome::refused("HERE", "")), code);
        for nul in [refused(r#""a\u0000""#), succeeded(r#"{"a\u0000": 1}"#), succeeded(r#"["\u0000"]"#)] {
            assert_eq!(flaw::<Reply>(&nul), Some(Flaw::Nul), "{nul}");
        }
        for member in [
            r#"{"a": 1, "$serde_json::private::RawValue": "no JSON"}"#,
            r#"{"$serde_json::private::RawValue": "[\"\\u0000\"]"}"#,
            r#"[{"\u0024serde_json::private::Number": "1"}]"#,
        ] {
            assert_eq!(flaw::<Reply>(&succeeded(member)), Some(Flaw::Reserved), "{member}");
            assert_eq!(flaw::<Command>(&with(&command(json!("HERE")), member)), Some(Flaw::Reserved), "{member}");
        }
        let ended = with(&Ended::new("HERE", &[]), r#""payment\u0000""#);
        assert_eq!(flaw::<Ended>(&ended), Some(Flaw::Nul));
        // Nothing that only looks like a flaw.
        for fine in [r#""\\u0000""#, r#""\u00e4""#, r#""{{{{[[[[""#, r#"{"a": "$serde_json::private::RawValue"}"#] {
            assert_eq!(flaw::<Reply>(&succeeded(fine)), None, "{fine}");
        }
    }

    #[test]
    fn many_small_objects_are_not_deep() {
        let output = format!("[{}]", vec!["{\"a\":[]}"; 100].join(","));
        assert_eq!(flaw::<Reply>(&succeeded(&output)), None);
    }

    #[test]
    fn a_flaw_is_told_without_a_word_of_what_the_item_says() {
        for (output, expected) in [
            (nested(DEPTH_MAX + 1), "its arrays and objects are nested too deep"),
            (r#"{"Ada": "\u0000"}"#.to_owned(), "it holds the character U+0000"),
            (
                r#"{"Ada": {"$serde_json::private::Ada": 1}}"#.to_owned(),
                "the name of a member in it begins with `$serde_json::private::`",
            ),
        ] {
            let error = read::<Reply>(&succeeded(&output)).unwrap_err();
            assert_eq!(explain(&error), (Reason::BadJson, expected.to_owned()));
        }
    }
}
