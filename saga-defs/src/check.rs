//! The structural rules of a definition. All broken rules are reported at once, each with the place and the mend.
//!
//! Not for what a saga does at run time: that every path ends well is the core's business.

use serde_json::Value;

use crate::definition::{Definition, Retry, Step};
use crate::json;
use crate::template::{self, Root, Text};

/// Most steps of one definition.
pub const STEPS_MAX: usize = 32;
/// Longest name of a definition, step, participant or command.
pub const NAME_BYTES_MAX: usize = 64;
/// Names that no participant may have: its queue would be the engine's.
const QUEUES_TAKEN: [&str; 2] = ["dead", "replies"];
/// Most attempts of one budget.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Longest time-out or delay of one attempt: one day.
pub const WAIT_MS_MAX: u64 = 24 * 3_600_000;
/// Longest deadline or dedupe window: one year.
pub const WINDOW_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// A rule that a definition breaks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Broken {
    /// JSON pointer to the place.
    pub pointer: String,
    /// What is wrong and how to mend it.
    pub detail: String,
}

/// The broken rules in one line, for an error text.
#[must_use]
pub fn join(broken: &[Broken]) -> String {
    broken.iter().map(|rule| format!("{} {}", rule.pointer, rule.detail)).collect::<Vec<_>>().join("; ")
}

/// Every structural rule that `definition` breaks.
#[must_use]
pub fn check(definition: &Definition) -> Vec<Broken> {
    let mut rules = Rules::default();
    rules.name("/name", &definition.name);
    rules.require(definition.version >= 1, "/version", "must be 1 or more");
    rules.window("/dedupe_window_ms", definition.dedupe_window_ms);
    if let Some(deadline) = definition.deadline_ms {
        rules.window("/deadline_ms", deadline);
    }
    if let Err(error) = crate::schema::InputSchema::compile(&definition.input) {
        rules.add("/input", format!("is not a JSON Schema: {error}"));
    }
    let count = definition.steps.len();
    rules.require((1..=STEPS_MAX).contains(&count), "/steps", "must hold 1 to 32 steps");
    let pivots = definition.steps.iter().filter(|step| step.pivot).count();
    rules.require(pivots <= 1, "/steps", "may mark at most one step as pivot");
    for (index, step) in definition.steps.iter().enumerate() {
        rules.step(definition, index, step);
    }
    rules.broken
}

#[derive(Default)]
struct Rules {
    broken: Vec<Broken>,
}

impl Rules {
    fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.broken.push(Broken { pointer: pointer.into(), detail: detail.into() });
    }

    fn require(&mut self, holds: bool, pointer: &str, detail: &str) {
        if !holds {
            self.add(pointer, detail);
        }
    }

    fn name(&mut self, pointer: &str, name: &str) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let holds = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(plain);
        self.require(holds, pointer, "must be 1 to 64 of a-z, 0-9, _ and -, starting with a letter");
    }

    fn command(&mut self, pointer: &str, command: &str) {
        let holds = command.len() <= NAME_BYTES_MAX
            && command.split_once('.').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        self.require(holds, pointer, "must look like `participant.command`, at most 64 bytes");
    }

    fn window(&mut self, pointer: &str, ms: u64) {
        self.require((1..=WINDOW_MS_MAX).contains(&ms), pointer, "must be between 1 ms and one year");
    }

    fn step(&mut self, definition: &Definition, index: usize, step: &Step) {
        let at = |member: &str| format!("/steps/{index}/{member}");
        self.name(&at("name"), &step.name);
        self.name(&at("participant"), &step.participant);
        let free = !QUEUES_TAKEN.contains(&step.participant.as_str());
        self.require(free, &at("participant"), "is the name of a queue that is not a participant's; choose another");
        self.command(&at("execute"), &step.execute);
        let unique = definition.position(&step.name) == Some(index);
        self.require(unique, &at("name"), "is used by an earlier step; step names are unique");
        let before_pivot = definition.pivot().is_none_or(|pivot| index < pivot);
        if let Some(compensate) = &step.compensate {
            self.command(&at("compensate"), compensate);
            self.require(
                before_pivot,
                &at("compensate"),
                "is never sent: the pivot and later steps are not undone; remove it",
            );
            self.require(!step.without_effect, &at("without_effect"), "contradicts `compensate`; keep one of them");
        } else if before_pivot && !step.without_effect {
            self.add(at("compensate"), "is missing: a step before the pivot needs one, or `without_effect = true`");
        }
        self.require(
            before_pivot || !step.without_effect,
            &at("without_effect"),
            "means nothing from the pivot on; remove it",
        );
        self.retry(&at("retry"), &step.retry);
        self.retry(&at("compensate_retry"), &step.compensate_retry);
        let deep = json::look_through(&step.payload, json::Rules { depth_max: json::DEPTH_MAX, repeats: true })
            .is_err_and(|refused| refused.flaw == Some(json::Flaw::Depth));
        self.require(
            !deep,
            &at("payload"),
            "nests arrays and objects more than 32 deep, and what is sent must be read",
        );
        self.paths(definition, index, &at("payload"), &step.payload);
    }

    fn retry(&mut self, pointer: &str, retry: &Retry) {
        self.require((1..=ATTEMPTS_MAX).contains(&retry.attempts), pointer, "attempts must be 1 to 1000");
        self.require((1..=WAIT_MS_MAX).contains(&retry.timeout_ms), pointer, "timeout_ms must be 1 ms to one day");
        self.require(retry.backoff_max_ms <= WAIT_MS_MAX, pointer, "backoff_max_ms must be at most one day");
        self.require(retry.backoff_ms <= retry.backoff_max_ms, pointer, "backoff_ms must not exceed backoff_max_ms");
    }

    fn paths(&mut self, definition: &Definition, index: usize, pointer: &str, template: &Value) {
        match template {
            Value::String(text) => match template::parse(text) {
                Text::Literal => {}
                Text::Unsupported => {
                    self.add(pointer, format!("{text:?} is more than one plain path such as ${{input.name}}"))
                }
                Text::Path(path) => match path.root {
                    Root::Input => {}
                    Root::Output(step) => {
                        let earlier = definition.position(step).is_some_and(|position| position < index);
                        self.require(
                            earlier,
                            pointer,
                            &format!("refers to step `{step}`, which is not an earlier step"),
                        );
                    }
                },
            },
            Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    self.paths(definition, index, &format!("{pointer}/{n}"), item);
                }
            }
            Value::Object(members) => {
                for (name, item) in members {
                    self.paths(definition, index, &format!("{pointer}/{name}"), item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    fn broken_by(change: impl FnOnce(&mut Definition)) -> Vec<String> {
        let mut definition = catalog::booking();
        change(&mut definition);
        check(&definition).into_iter().map(|rule| rule.pointer).collect()
    }

    #[test]
    fn the_booking_definition_breaks_nothing() {
        assert_eq!(broken_by(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_rule_bites() {
        assert_eq!(broken_by(|d| d.name = "Not a name".into()), ["/name"]);
        assert_eq!(broken_by(|d| d.version = 0), ["/version"]);
        assert_eq!(broken_by(|d| d.steps.clear()), ["/steps"]);
        assert_eq!(broken_by(|d| d.steps[0].compensate = None), ["/steps/0/compensate"]);
        for taken in QUEUES_TAKEN {
            assert_eq!(broken_by(|d| d.steps[0].participant = taken.to_owned()), ["/steps/0/participant"]);
        }
        for broken in ["reserve", "booking.", ".reserve"] {
            assert_eq!(broken_by(|d| d.steps[0].execute = broken.to_owned()), ["/steps/0/execute"]);
            assert_eq!(broken_by(|d| d.steps[0].compensate = Some(broken.to_owned())), ["/steps/0/compensate"]);
        }
        assert_eq!(broken_by(|d| d.steps[3].compensate = Some("notify.unsend".into())), ["/steps/3/compensate"]);
        assert_eq!(
            broken_by(|d| d.steps[0].payload = serde_json::json!("${steps.payment.output}")),
            ["/steps/0/payload"]
        );
        let nested = |depth| (0..depth).fold(serde_json::json!(7), |value, _| serde_json::json!({ "a": value }));
        assert_eq!(broken_by(|d| d.steps[0].payload = nested(json::DEPTH_MAX + 1)), ["/steps/0/payload"]);
        assert_eq!(broken_by(|d| d.steps[0].payload = nested(json::DEPTH_MAX)), Vec::<String>::new());
        assert_eq!(broken_by(|d| d.steps[1].name = "booking".into())[0], "/steps/1/name");
        assert_eq!(broken_by(|d| d.steps[0].retry.attempts = 0), ["/steps/0/retry"]);
        assert_eq!(broken_by(|d| d.input = serde_json::json!({"type": "nonsense"})), ["/input"]);
        assert!(broken_by(|d| d.steps[1].pivot = true).contains(&"/steps".to_owned()));
    }
}
