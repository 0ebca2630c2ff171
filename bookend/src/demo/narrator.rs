//! Says events as sentences, for the demo and `bookend sagas history`.

use serde_json::{Value, json};

use crate::cli::output::cell;

/// One event of a saga's history as a sentence.
#[must_use]
pub fn sentence(event: &Value) -> String {
    let get = |path: &str| cell(event, path);
    let step = || get("step");
    match get("type").as_str() {
        "started" => format!("accepted as {}", get("definition")),
        "sent" => format!("{:<12} {} sent{}", step(), get("verb"), nth(&get("attempt"))),
        "attempt_failed" => {
            format!("{:<12} {} attempt {} gave no verdict: {}", step(), get("verb"), get("attempt"), get("why"))
        }
        "succeeded" => format!("{:<12} succeeded{}", step(), gist(&event["output"])),
        "refused" => format!("{:<12} refused: {}", step(), get("code")),
        "fence_started" => format!("{:<12} is unknown; asking its fence", step()),
        "fenced" => format!("{:<12} was never executed and never will be", step()),
        "already_executed" => format!("{:<12} had been executed", step()),
        "undo_planned" => match event.get("plan").and_then(Value::as_array).map(Vec::as_slice) {
            None | Some([]) => "nothing has to be undone".to_owned(),
            Some(plan) => {
                let plan: Vec<&str> = plan.iter().filter_map(Value::as_str).collect();
                format!("to be undone, in this order: {}", plan.join(", "))
            }
        },
        "compensated" if get("nothing_to_undo") == "true" => format!("{:<12} had nothing to undo", step()),
        "compensated" => format!("{:<12} undone", step()),
        "late" => {
            format!("{:<12} {} was answered, and nothing moves: {}", step(), get("verb"), fact(&event["fact"]))
        }
        "cancel_requested" => "cancel requested".to_owned(),
        "cancel_granted" => "cancel granted".to_owned(),
        "cancel_too_late" => "cancel came too late".to_owned(),
        "decided" => format!("DECIDED: {}", get("decision")),
        "stuck" => format!("STUCK at {} of {}: {}; {}", get("verb"), step(), get("cause"), get("message")),
        "operated" => format!("operation {} applied", get("action")),
        "renewed" => format!("{:<12} {} has a new budget", step(), get("verb")),
        "skipped" => format!("{:<12} {} counts as succeeded, by a person's word", step(), get("verb")),
        "ended" => format!("ended: {}", get("end")),
        other => other.to_owned(),
    }
}

fn nth(attempt: &str) -> String {
    if attempt == "1" { String::new() } else { format!(" again, attempt {attempt}") }
}

/// What a late answer said, whole: a person weighs it against what was known.
fn fact(fact: &Value) -> String {
    if let Some(code) = fact["refused"].as_str() {
        return format!("refused: {code}");
    }
    let output = &fact["succeeded"];
    if *output == json!({}) { "succeeded".to_owned() } else { format!("succeeded, {output}") }
}

/// What is worth telling of an output.
fn gist(output: &Value) -> String {
    let money = |value: &Value| {
        let minor = value["amount_minor"].as_i64()?;
        Some(format!(", {}.{:02} {}", minor / 100, minor % 100, value["currency"].as_str()?))
    };
    let told = money(&output["price"]).or_else(|| money(&output["amount"]));
    told.or_else(|| output["channel"].as_str().map(|channel| format!(", by {channel}"))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use saga_core::Event;
    use saga_core::event::Fact;
    use saga_core::state::{Decision, End};
    use saga_defs::{Timestamp, Verb};

    use super::*;

    #[test]
    fn real_events_become_sentences() {
        let tell = |event: Event| sentence(&serde_json::to_value(event).unwrap());
        let output = json!({"price": {"amount_minor": 4505, "currency": "EUR"}});
        assert_eq!(tell(Event::Succeeded { step: "booking".into(), output }), "booking      succeeded, 45.05 EUR");
        let sent = |attempt| Event::Sent {
            step: "notify".into(),
            verb: Verb::Execute,
            attempt,
            at: Timestamp(0),
            until: Timestamp(1),
        };
        assert_eq!(tell(sent(1)), "notify       execute sent");
        assert_eq!(tell(sent(2)), "notify       execute sent again, attempt 2");
        assert_eq!(tell(Event::Decided { decision: Decision::Undone, at: Timestamp(0) }), "DECIDED: undone");
        assert_eq!(tell(Event::Ended { end: End::Compensated }), "ended: compensated");
    }

    #[test]
    fn a_late_answer_is_told_with_what_it_said() {
        let tell = |verb, fact| {
            let event = Event::Late { step: "payment".into(), verb, fact };
            let sentence = sentence(&serde_json::to_value(event).unwrap());
            sentence.split_once("nothing moves: ").map(|(_, fact)| fact.to_owned())
        };
        let charged = json!({"charge_id": "ch_7"});
        let cases = [
            (Verb::Execute, Fact::Succeeded(charged), "succeeded, {\"charge_id\":\"ch_7\"}"),
            (Verb::Execute, Fact::Succeeded(json!({})), "succeeded"),
            (
                Verb::Compensate,
                Fact::Succeeded(json!({"nothing_to_undo": true})),
                "succeeded, {\"nothing_to_undo\":true}",
            ),
            (Verb::Execute, Fact::Refused("card_declined".into()), "refused: card_declined"),
        ];
        for (verb, fact, told) in cases {
            assert_eq!(tell(verb, fact).as_deref(), Some(told));
        }
    }
}
