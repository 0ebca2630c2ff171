//! Turns serde's complaints into a wish that can be shown to a client.
//!
//! serde's texts quote the value that did not fit, and a value may be personal data. Must hold: what comes out
//! consists of our own field names, our own expectations and names of fields the client made up, never of values; an
//! expectation is said in the words of JSON, not in those of Rust.

/// Names a client made up are shown up to this length.
const NAME_CHARS_MAX: usize = 64;
const COUNT: &str = "a whole number, 0 or more";

/// The complaint as a wish: `lacks the field `x``, `must be a string`.
pub(super) fn explain(complaint: &str) -> String {
    if let Some(name) = quoted_after(complaint, "missing field `") {
        return format!("lacks the field `{name}`");
    }
    if let Some(name) = quoted_after(complaint, "unknown field `") {
        return format!("is not known: leave out the field `{name}`");
    }
    if let Some(name) = quoted_after(complaint, "duplicate field `") {
        return format!("has the field `{name}` more than once");
    }
    match expectation(complaint).map(plain).or_else(|| unread(complaint)) {
        Some(expected) => format!("must be {expected}"),
        None => "has a value that is not accepted".to_owned(),
    }
}

fn quoted_after<'a>(complaint: &'a str, start: &str) -> Option<&'a str> {
    let name = complaint.strip_prefix(start)?;
    let name = name.split('`').next()?;
    let end = name.char_indices().nth(NAME_CHARS_MAX).map_or(name.len(), |(at, _)| at);
    name.get(..end)
}

/// What serde expected stands last, behind the value, which may hold any text.
fn expectation(complaint: &str) -> Option<&str> {
    let starts = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant `"];
    if !starts.iter().any(|start| complaint.starts_with(start)) {
        return None;
    }
    let (_, expected) = complaint.rsplit_once(", expected ")?;
    // serde_json adds the place, which is said elsewhere.
    Some(expected.split(" at line ").next().unwrap_or(expected))
}

/// What serde names after a type of ours or of Rust.
fn plain(expected: &str) -> &str {
    match expected {
        "a map" | "map" => "a JSON object",
        "a sequence" => "a JSON array",
        "u8" | "u16" | "u32" | "u64" => COUNT,
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        named if named.starts_with("struct ") => "a JSON object",
        other => other,
    }
}

/// What texts had to be that could not be read as the value that they stand for.
fn unread(complaint: &str) -> Option<&'static str> {
    let known = [
        ("invalid digit found in string", COUNT),
        ("number too large to fit in target type", "a smaller number"),
        ("provided string was not `true` or `false`", "true or false"),
        ("UUID parsing failed", "a UUID"),
    ];
    known.into_iter().find(|(start, _)| complaint.starts_with(start)).map(|(_, expected)| expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_repeated() {
        let cases = [
            (r#"invalid type: string "a, expected b", expected a string at line 1 column 2"#, "must be a string"),
            ("unknown variant `secret`, expected `a` or `b`", "must be `a` or `b`"),
            ("the date `s` is none", "has a value that is not accepted"),
            ("missing field `slot` at line 1 column 2", "lacks the field `slot`"),
        ];
        for (complaint, wish) in cases {
            assert_eq!(explain(complaint), wish);
        }
    }

    #[test]
    fn a_wish_is_said_without_rust() {
        let cases = [
            ("invalid type: integer `1`, expected struct Start at line 1 column 2", "must be a JSON object"),
            ("invalid type: sequence, expected a map at line 1 column 2", "must be a JSON object"),
            ("invalid type: map, expected a sequence", "must be a JSON array"),
            ("invalid value: integer `-1`, expected u32", "must be a whole number, 0 or more"),
            ("invalid digit found in string", "must be a whole number, 0 or more"),
            ("number too large to fit in target type", "must be a smaller number"),
            ("UUID parsing failed: found `s` at 1", "must be a UUID"),
        ];
        for (complaint, wish) in cases {
            assert_eq!(explain(complaint), wish);
        }
    }

    #[test]
    fn a_long_made_up_name_is_cut() {
        let wish = explain(&format!("unknown field `{}`, expected `a`", "é".repeat(500)));
        assert!(wish.chars().count() < 120, "{wish}");
    }
}
