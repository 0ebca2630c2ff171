//! The first thing that anyone sees.

use std::process::Command;

use crate::common::BIN;

#[test]
fn demo_tells_three_stories_and_exits() {
    let output = Command::new(BIN).args(["demo", "--exit", "--port", "0"]).output().expect("the demo runs");
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in ["DECIDED: committed", "DECIDED: undone", "card_declined", "breaker sms: closed -> open"] {
        assert!(told.contains(line), "never told: {line}");
    }
    assert!(!told.contains("Lovelace") && !told.contains("+1500"), "nobody's data is told");
}
