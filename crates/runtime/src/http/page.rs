//! Lists in pages: the envelope, the cursor, the limit.
//!
//! Not for queries: what a cursor holds is the business of who made it. Must hold: a cursor is opaque to clients and
//! carries a version, so that its content may change.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// The version of the cursors of this build.
const CURSOR_VERSION: u16 = 1;
/// Longer ones were not made here.
const CURSOR_BYTES_MAX: usize = 1_024;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Whether there are more behind them.
    pub has_more: bool,
    /// Names the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of `limit` items from a query that asked for one more; `position` says where an item stands in
    /// the list.
    pub fn of<C: Serialize>(mut items: Vec<T>, limit: u64, position: impl FnOnce(&T) -> C) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| has_more).map(|last| Cursor::encode(&position(last)));
        Self { data: items, has_more, next_cursor }
    }
}

/// A place in a list, as text.
#[derive(Debug)]
pub struct Cursor;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<T> {
    v: u16,
    at: T,
}

impl Cursor {
    /// Writes a place down.
    #[must_use]
    pub fn encode<T: Serialize>(place: &T) -> String {
        let text = serde_json::to_string(&Versioned { v: CURSOR_VERSION, at: place }).unwrap_or_default();
        hex::encode(text)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// 400 `bad_cursor` when the text was not made by [`Cursor::encode`] of this version for this list.
    pub fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
        let read = || {
            if text.len() > CURSOR_BYTES_MAX {
                return None;
            }
            let bytes = hex::decode(text).ok()?;
            let read: Versioned<T> = serde_json::from_slice(&bytes).ok()?;
            (read.v == CURSOR_VERSION).then_some(read.at)
        };
        let detail = "Send `next_cursor` of the page before, unchanged, or leave the cursor out to begin anew.";
        read().ok_or_else(|| Problem::bad_request("bad_cursor", detail))
    }
}

/// How many items a page may have.
///
/// # Errors
/// 400 `bad_limit` when it is zero or over `max`.
pub fn limit(asked: Option<u32>, default: u32, max: u32) -> Result<u64, Problem> {
    let limit = asked.unwrap_or(default);
    if (1..=max).contains(&limit) {
        return Ok(u64::from(limit));
    }
    Err(Problem::bad_request("bad_limit", format!("Send a `limit` from 1 to {max}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let text = Cursor::encode(&(17_i64, "x"));
        assert_eq!(Cursor::decode::<(i64, String)>(&text).unwrap(), (17, "x".to_owned()));
    }

    #[test]
    fn foreign_old_and_cut_cursors_are_refused() {
        let old = hex::encode(r#"{"v":0,"at":17}"#);
        let of_another_list = Cursor::encode(&"name");
        let cut = Cursor::encode(&17)[1..].to_owned();
        let long = "00".repeat(CURSOR_BYTES_MAX);
        for text in ["", "zz", &old, &of_another_list, &cut, &long] {
            assert_eq!(Cursor::decode::<i64>(text).unwrap_err().code(), "bad_cursor");
        }
    }

    #[test]
    fn a_limit_is_kept_in_bounds() {
        assert_eq!(limit(None, 50, 200).unwrap(), 50);
        assert_eq!(limit(Some(200), 50, 200).unwrap(), 200);
        assert_eq!(limit(Some(0), 50, 200).unwrap_err().code(), "bad_limit");
        assert!(limit(Some(201), 50, 200).unwrap_err().detail().contains("1 to 200"));
    }

    #[test]
    fn a_page_names_the_next_only_if_there_is_one() {
        let full = Page::of(vec![1, 2, 3], 2, |last| *last);
        assert_eq!((full.data.as_slice(), full.has_more), ([1, 2].as_slice(), true));
        assert_eq!(Cursor::decode::<i32>(&full.next_cursor.unwrap()).unwrap(), 2);
        let last = Page::of(vec![3], 2, |last| *last);
        assert_eq!(last, Page { data: vec![3], has_more: false, next_cursor: None });
    }
}
