//! Turns serde's complaints into a wish that can be shown to a client.
//!
//! serde's texts quote the value that did not fit, and a value may be personal data. Must hold: what comes out
//! consists of our own field names, our own expectations and names of fields the client made up, never of values.

/// Names a client made up are shown up to this length.
const NAME_CHARS_MAX: usize = 64;

/// The complaint as a wish: `lacks the field `x``, `must be u32`.
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
    match expectation(complaint) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_repeated() {
        let cases = [
            (r#"invalid type: string "a, expected b", expected u32 at line 1 column 2"#, "must be u32"),
            ("unknown variant `secret`, expected `a` or `b`", "must be `a` or `b`"),
            ("UUID parsing failed: found `s` at 1", "has a value that is not accepted"),
            ("missing field `slot` at line 1 column 2", "lacks the field `slot`"),
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
