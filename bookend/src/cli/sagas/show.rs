//! A saga and its history as people read them.
//!
//! Not for asking. Must hold: everything that a person decides by is shown; JSON is the API's body.

use serde_json::{Value, json};

use super::super::output::{self, Format, cell};
use crate::demo::narrator;

/// Lines that are there if their member is, and what each says: a word before and a path.
const PARTS: [(&str, &[(&str, &str)]); 4] = [
    ("failure", &[("", "failure.step"), ("", "failure.code"), ("", "failure.message")]),
    ("cancel", &[("", "cancel.outcome"), ("requested ", "cancel.requested_at")]),
    ("waiting", &[("", "waiting.step"), ("", "waiting.verb"), ("for ", "waiting.for"), ("until ", "waiting.until")]),
    (
        "stuck",
        &[
            ("", "stuck.step"),
            ("", "stuck.verb"),
            ("", "stuck.cause"),
            ("since ", "stuck.since"),
            ("", "stuck.message"),
        ],
    ),
];

pub(super) fn saga(saga: &Value, format: Format) {
    if format == Format::Json {
        return output::json(saga);
    }
    for name in ["id", "definition", "status", "decision", "version", "created_at", "decided_at"] {
        output::line(&format!("{name:<11} {}", cell(saga, name)));
    }
    for (name, cells) in PARTS {
        if saga.get(name).is_some_and(Value::is_object) {
            let cells: Vec<String> = cells.iter().map(|(word, path)| format!("{word}{}", cell(saga, path))).collect();
            output::line(&format!("{name:<11} {}", cells.join("  ")));
        }
    }
    output::line("");
    let steps = json!({"data": saga.get("steps")});
    let (standing, attempts) = (["status", "holds_effect", "code"], ["execute_attempts", "compensate_attempts"]);
    output::rows(&steps, &[&["name", "participant", "kind"], &standing[..], &attempts[..]].concat(), format);
    let possible = saga.get("actions").and_then(Value::as_array).into_iter().flatten();
    let possible: Vec<String> =
        possible.filter(|action| cell(action, "allowed") == "true").map(|action| cell(action, "name")).collect();
    if !possible.is_empty() {
        output::line(&format!("\npossible: {}", possible.join(", ")));
    }
}

/// Tells a page of history.
pub(super) fn history(rows: &[Value]) {
    for row in rows {
        let reason =
            row.get("reason").and_then(Value::as_str).map(|reason| format!("  “{reason}”")).unwrap_or_default();
        output::line(&format!("{:>4}  {}  {}{reason}", cell(row, "seq"), cell(row, "at"), cell(row, "actor")));
        for event in row.get("events").and_then(Value::as_array).into_iter().flatten() {
            output::line(&format!("        {}", narrator::sentence(event)));
        }
    }
}

/// Tells what came too late to be history.
pub(super) fn late_replies(late: &Value) {
    for (index, reply) in late.as_array().into_iter().flatten().enumerate() {
        if index == 0 {
            output::line("late replies");
        }
        let code = reply["reply"]["code"].as_str().map(|code| format!(": {code}")).unwrap_or_default();
        let said = format!("{} {}{code}", cell(reply, "reply.verb"), cell(reply, "reply.outcome"));
        output::line(&format!("      {}  {}  {said}", cell(reply, "received_at"), cell(reply, "reason")));
    }
}
