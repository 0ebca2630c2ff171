//! The model of a saga definition: a numbered list of steps, each a command to one participant and, where it can
//! be undone, its compensation.
//!
//! Not for running anything. Kinds follow from position (`docs/definitions.md`): at most one step is the pivot;
//! before it steps are compensatable or without effect, after it they are retriable.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::Broken;
use crate::json::{self, Refused, Rules};
use crate::{Error, check, ids};

/// A published definition never changes: name, version and digest are pinned to each saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Lower-case words joined by `-` or `_`.
    pub name: String,
    /// Counts up from 1.
    pub version: u32,
    /// One sentence for a person.
    #[serde(default)]
    pub description: String,
    /// Undecided after this long, the saga is undone as if it were cancelled. Unset: no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// How long participants remember an effect after its first command; nothing is sent later.
    #[serde(default = "default_dedupe_window_ms")]
    pub dedupe_window_ms: u64,
    /// JSON Schema (draft 2020-12) of the saga's input.
    pub input: Value,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

fn default_dedupe_window_ms() -> u64 {
    7 * 24 * 3_600_000
}

/// One step: a command to one participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Unique within the definition.
    pub name: String,
    /// Who is asked.
    pub participant: String,
    /// Business name of the command that makes the effect.
    pub execute: String,
    /// Business name of the command that undoes it. None for the pivot and after it, where `compensate` is a fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<String>,
    /// The step after which the saga only goes forward.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pivot: bool,
    /// Declares that executing leaves nothing behind that would have to be undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_effect: bool,
    /// Refusal codes that the participant documents; for people and documentation.
    #[serde(default)]
    pub refusals: Vec<String>,
    /// Template of the execute payload, see [`crate::template`].
    #[serde(default)]
    pub payload: Value,
    /// Budget of `execute`.
    #[serde(default)]
    pub retry: Retry,
    /// Budget of `compensate`.
    #[serde(default = "Retry::for_compensation", deserialize_with = "compensate_retry")]
    pub compensate_retry: Retry,
}

/// What a partly written `compensate_retry` leaves out is filled in from its own defaults, not from `retry`'s.
fn compensate_retry<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Retry, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Partial {
        timeout_ms: Option<u64>,
        attempts: Option<u32>,
        backoff_ms: Option<u64>,
        backoff_max_ms: Option<u64>,
    }
    let Partial { timeout_ms, attempts, backoff_ms, backoff_max_ms } = Partial::deserialize(deserializer)?;
    let default = Retry::for_compensation();
    Ok(Retry {
        timeout_ms: timeout_ms.unwrap_or(default.timeout_ms),
        attempts: attempts.unwrap_or(default.attempts),
        backoff_ms: backoff_ms.unwrap_or(default.backoff_ms),
        backoff_max_ms: backoff_max_ms.unwrap_or(default.backoff_max_ms),
    })
}

/// How often and how patiently a command is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Silence for this long ends an attempt.
    pub timeout_ms: u64,
    /// Each silence and each `retry` answer uses one up.
    pub attempts: u32,
    /// Bound of the delay after the first attempt; doubles from there.
    pub backoff_ms: u64,
    /// Bound of every delay.
    pub backoff_max_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { timeout_ms: 30_000, attempts: 4, backoff_ms: 500, backoff_max_ms: 8_000 }
    }
}

impl Retry {
    /// Undoing is tried longer than doing.
    #[must_use]
    pub fn for_compensation() -> Self {
        Self { attempts: 12, ..Self::default() }
    }
}

/// What a step's position makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Before the pivot, undone when the saga fails.
    Compensatable,
    /// Before the pivot, leaves nothing behind.
    WithoutEffect,
    /// Its success decides the saga.
    Pivot,
    /// After the pivot: tried until it succeeds.
    Retriable,
}

impl Kind {
    /// The kind's name for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compensatable => "compensatable",
            Self::WithoutEffect => "without_effect",
            Self::Pivot => "pivot",
            Self::Retriable => "retriable",
        }
    }
}

impl Definition {
    /// Reads and checks TOML.
    ///
    /// # Errors
    /// [`Error::Toml`] when it has the wrong shape, [`Error::Rules`] with every broken rule.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let reader = toml::Deserializer::parse(text).map_err(Error::Toml)?;
        json::look_through(reader, TEXT).map_err(|refused| refusal(refused, Error::Toml))?;
        checked(toml::from_str(text).map_err(Error::Toml)?)
    }

    /// Reads and checks JSON.
    ///
    /// # Errors
    /// [`Error::Json`] when it has the wrong shape, [`Error::Rules`] with every broken rule.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        json::check(text.as_bytes(), TEXT).map_err(|refused| refusal(refused, Error::Json))?;
        checked(serde_json::from_str(text).map_err(Error::Json)?)
    }

    /// `name@version`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// SHA-256 of the canonical JSON, in hex: changes exactly when the content does.
    #[must_use]
    pub fn digest(&self) -> String {
        ids::digest(&serde_json::to_value(self).expect("definitions have string keys"))
    }

    /// Position of the step called `name`.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    /// The step called `name`.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Position of the pivot, if one is marked.
    #[must_use]
    pub fn pivot(&self) -> Option<usize> {
        self.steps.iter().position(|step| step.pivot)
    }

    /// What the position of step `index` makes of it.
    #[must_use]
    pub fn kind(&self, index: usize) -> Kind {
        match self.pivot() {
            Some(pivot) if index == pivot => Kind::Pivot,
            Some(pivot) if index > pivot => Kind::Retriable,
            Some(_) | None if self.steps[index].without_effect => Kind::WithoutEffect,
            Some(_) | None => Kind::Compensatable,
        }
    }
}

impl Step {
    /// Business name of the command for `verb`. A fence has no name of its own and uses the execute command's.
    #[must_use]
    pub fn command(&self, verb: crate::Verb) -> &str {
        match verb {
            crate::Verb::Execute => &self.execute,
            crate::Verb::Compensate => self.compensate.as_deref().unwrap_or(&self.execute),
        }
    }

    /// Budget for `verb`.
    #[must_use]
    pub fn budget(&self, verb: crate::Verb) -> &Retry {
        match verb {
            crate::Verb::Execute => &self.retry,
            crate::Verb::Compensate => &self.compensate_retry,
        }
    }
}

/// What a definition's text must not hold, whatever it means: each saga's payloads and the database would hold it, too.
/// How deep it is nested is left to its reader and to [`check`].
const TEXT: Rules = Rules { depth_max: usize::MAX, repeats: true };

fn refusal<E>(Refused { flaw, pointer, cause }: Refused<E>, misread: impl FnOnce(E) -> Error) -> Error {
    match flaw {
        Some(flaw) => Error::Rules(vec![Broken { pointer, detail: format!("can't be kept: {flaw}") }]),
        None => misread(cause),
    }
}

fn checked(definition: Definition) -> Result<Definition, Error> {
    let broken = check::check(&definition);
    if broken.is_empty() { Ok(definition) } else { Err(Error::Rules(broken)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partly_written_budget_keeps_the_rest_of_its_own_defaults() {
        let text = crate::catalog::BUILT_IN[0].replacen(
            "compensate = \"booking.release\"",
            "compensate = \"booking.release\"\ncompensate_retry = { timeout_ms = 100 }\nretry = { timeout_ms = 100 }",
            1,
        );
        let step = Definition::from_toml(&text).unwrap().steps.remove(0);
        assert_eq!((step.compensate_retry.timeout_ms, step.compensate_retry.attempts), (100, 12));
        assert_eq!((step.retry.timeout_ms, step.retry.attempts), (100, 4));
    }

    #[test]
    fn a_text_that_could_not_be_kept_is_refused_whatever_it_means() {
        let places = |read: Result<Definition, Error>| match read {
            Err(Error::Rules(broken)) => broken.into_iter().map(|rule| rule.pointer).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let mut value = serde_json::to_value(crate::catalog::booking()).unwrap();
        value["steps"][1]["payload"]["a"] = serde_json::json!({"$serde_json::private::RawValue": "{}"});
        let place = "/steps/1/payload/a/$serde_json::private::RawValue";
        assert_eq!(places(Definition::from_json(&value.to_string())), [place]);
        let toml = |line: &str| crate::catalog::BUILT_IN[0].replacen("[input]\n", &format!("[input]\n{line}\n"), 1);
        let name = "\"$serde_json::private::RawValue\" = \"{}\"";
        for lines in [name.to_owned(), format!("title = \"a\"\n{name}")] {
            assert_eq!(places(Definition::from_toml(&toml(&lines))), ["/input/$serde_json::private::RawValue"]);
        }
        assert_eq!(places(Definition::from_toml(&toml("title = \"\\u0000\""))), ["/input/title"]);
        assert!(Definition::from_toml(&toml("title = \"$serde_json::private::RawValue\"")).is_ok());
    }
}
