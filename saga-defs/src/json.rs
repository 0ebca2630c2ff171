//! JSON from outside, looked through before a value is built from it.
//!
//! Not for what the values mean: the types say that. Must hold: what passes can be stored by every database and read
//! again; names are seen as they stand in the text, because building a value gives some of them a meaning; a flaw says
//! where it is by names and never by a value.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// How deep arrays and objects from outside may be nested. A reader of JSON gives up at 128, and what comes in is stored
/// and sent inside of other objects.
pub const DEPTH_MAX: usize = 32;

/// How the names begin that `serde_json` keeps for itself: where an object's first member is called so, its text is read
/// in place of the object. Stored objects have sorted members, which puts such a name first.
pub const RESERVED: &str = "$serde_json::private::";

/// What is asked of a text.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How deep arrays and objects may be nested.
    pub depth_max: usize,
    /// Whether an object may name a member twice.
    pub repeats: bool,
}

/// What is wrong with a text that is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Arrays and objects are nested too deep.
    Depth,
    /// A text or a name holds U+0000, which PostgreSQL does not take.
    Nul,
    /// An object names a member twice.
    Repeated,
    /// A name begins with [`RESERVED`].
    Reserved,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => f.write_str("its arrays and objects are nested too deep"),
            Self::Nul => f.write_str("it holds the character U+0000"),
            Self::Repeated => f.write_str("an object in it names a member twice"),
            Self::Reserved => write!(f, "the name of a member in it begins with `{RESERVED}`"),
        }
    }
}

/// Why a text does not pass.
#[derive(Debug)]
pub struct Refused<E> {
    /// What is wrong with it; none when its reader fails.
    pub flaw: Option<Flaw>,
    /// JSON pointer to the flaw.
    pub pointer: String,
    /// What its reader says, which knows the line.
    pub cause: E,
}

/// Looks through a JSON text without building values.
///
/// # Errors
/// The first flaw, or that it is no JSON.
pub fn check(text: &[u8], rules: Rules) -> Result<(), Refused<serde_json::Error>> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    look_through(&mut reader, rules)?;
    reader.end().map_err(|cause| Refused { flaw: None, pointer: String::new(), cause })
}

/// Looks through what a reader gives, without building values.
///
/// # Errors
/// The first flaw, or what the reader says.
pub fn look_through<'de, D: Deserializer<'de>>(reader: D, rules: Rules) -> Result<(), Refused<D::Error>> {
    let found = OnceCell::new();
    let walk = Walk { rules, depth: 0, place: None, found: &found };
    walk.deserialize(reader).map_err(|cause| match found.into_inner() {
        Some((flaw, pointer)) => Refused { flaw: Some(flaw), pointer, cause },
        None => Refused { flaw: None, pointer: String::new(), cause },
    })
}

/// Whether single bytes show that a text of JSON, which may repeat names, has no flaw: much faster than looking through
/// it, and true of nearly every message. Whatever is escaped as `\u…` may be U+0000 or part of a name.
pub(crate) fn is_plain(text: &str, depth_max: usize) -> bool {
    let opening = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    opening <= depth_max && !text.contains("\\u") && !text.contains(RESERVED)
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    rules: Rules,
    depth: usize,
    place: Option<&'a Place<'a>>,
    found: &'a OnceCell<(Flaw, String)>,
}

/// Where a walk is, as a list up to the root that costs nothing until somebody asks for it.
struct Place<'a> {
    above: Option<&'a Self>,
    part: Part<'a>,
}

enum Part<'a> {
    Member(&'a str),
    Index(usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        let mut parts = Vec::new();
        let mut next = Some(self);
        while let Some(place) = next {
            parts.push(match place.part {
                Part::Member(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
                Part::Index(index) => format!("/{index}"),
            });
            next = place.above;
        }
        parts.reverse();
        parts.concat()
    }
}

impl<'a> Walk<'a> {
    fn refuse<E: serde::de::Error>(&self, flaw: Flaw) -> E {
        // The first flaw ends the walk, so nothing is there yet.
        let _ = self.found.set((flaw, self.place.map_or_else(String::new, Place::pointer)));
        E::custom("refused")
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == self.rules.depth_max {
            return Err(self.refuse(Flaw::Depth));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn at<'b>(self, place: &'b Place<'b>) -> Walk<'b>
    where
        'a: 'b,
    {
        Walk { place: Some(place), ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(self.refuse(Flaw::Nul)) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        for index in 0.. {
            let place = Place { above: self.place, part: Part::Index(index) };
            if items.next_element_seed(inner.at(&place))?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut names = BTreeSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            self.visit_str::<A::Error>(&name)?;
            let place = Place { above: self.place, part: Part::Member(&name) };
            let member = inner.at(&place);
            if name.starts_with(RESERVED) {
                return Err(member.refuse(Flaw::Reserved));
            }
            if names.contains(&name) {
                return Err(member.refuse(Flaw::Repeated));
            }
            entries.next_value_seed(member)?;
            if !self.rules.repeats {
                names.insert(name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const RULES: Rules = Rules { depth_max: 3, repeats: true };

    fn flaw(text: &str, rules: Rules) -> Option<(Flaw, String)> {
        match check(text.as_bytes(), rules) {
            Ok(()) => None,
            Err(Refused { flaw: Some(flaw), pointer, .. }) => Some((flaw, pointer)),
            Err(Refused { flaw: None, cause, .. }) => panic!("{text}: {cause}"),
        }
    }

    #[test]
    fn each_flaw_is_found_at_its_place() {
        let cases = [
            (r#"{"a": [[1]]}"#, None),
            (r#"{"a": [2, [[]]]}"#, Some((Flaw::Depth, "/a/1/0"))),
            (r#"{"a": ["b", "\u0000"]}"#, Some((Flaw::Nul, "/a/1"))),
            (r#"{"a": {"\u0000": 1}}"#, Some((Flaw::Nul, "/a"))),
            (r#"{"~": {"$serde_json::private::": 1}}"#, Some((Flaw::Reserved, "/~0/$serde_json::private::"))),
            (r#"["$serde_json::private::RawValue"]"#, None),
            (r#"{"a": 1, "a": 2}"#, None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(flaw, pointer)| (flaw, pointer.to_owned()));
            assert_eq!(flaw(text, RULES), expected, "{text}");
            assert!(expected.is_none() || !is_plain(text, RULES.depth_max), "{text}");
        }
        let strict = Rules { repeats: false, ..RULES };
        assert_eq!(flaw(r#"[{"a": 1, "\u0061": 2}]"#, strict), Some((Flaw::Repeated, "/0/a".to_owned())));
        assert!(check(b"[1] 2", RULES).is_err_and(|refused| refused.flaw.is_none()));
    }

    /// If this fails, `serde_json` has become harmless, or has changed the name.
    #[test]
    fn a_reserved_name_makes_a_value_that_is_not_read_again() {
        let value: Value = serde_json::from_str(r#"{"a": 1, "$serde_json::private::RawValue": "x"}"#).unwrap();
        assert!(serde_json::from_str::<Value>(&value.to_string()).is_err());
    }

    #[test]
    fn a_name_can_not_hide_from_the_look_at_single_bytes() {
        for text in [r#"{"$serde_json::private::RawValue": "{}"}"#, r#"{"$serde\u005fjson::private::RawValue": "{}"}"#]
        {
            assert!(!is_plain(text, 32), "{text}");
            assert!(matches!(flaw(text, RULES), Some((Flaw::Reserved, _))), "{text}");
        }
        assert!(is_plain(r#"{"price": "$5", "line": "a\nb"}"#, 1));
    }
}
