//! Words that come twice, from before a person looked, or of an effect that a step no longer has, told as stories: a copy changes
//! nothing, and no word that speaks against another is lost.

mod common;

use common::{Desk, at_pivot, fenced_with_another_in_hand, nothing_to_undo, outputs};
use saga_core::state::Cause;
use saga_core::{Action, Decision, Ignored, Status};
use saga_defs::Outcome;
use saga_defs::Verb::{Compensate, Execute};
use serde_json::json;

/// A cancelled booking whose pivot said that it was made, and that there was nothing to undo.
fn contradicted_pivot() -> (Desk, saga_defs::Command) {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.reply(&fence, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "confirmation");
    (desk, fence)
}

#[test]
fn a_copy_of_the_fence_s_answer_settles_nothing() {
    let (mut desk, fence) = contradicted_pivot();
    assert_eq!(desk.reply(&fence, nothing_to_undo()), Some(Ignored::Duplicate));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    assert_eq!(desk.reply(&fence, nothing_to_undo()), Some(Ignored::Duplicate), "it was asked again since");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.succeed("confirmation");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn what_the_fence_says_when_it_is_asked_again_settles_it_at_any_attempt() {
    let (mut desk, _) = contradicted_pivot();
    desk.operate(Action::Retry).expect("is possible");
    let second = desk.expect("confirmation", Compensate);
    desk.wake();
    desk.wake();
    assert_ne!(desk.expect("confirmation", Compensate).attempt, second.attempt);
    assert_eq!(desk.reply(&second, nothing_to_undo()), None);
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_committed_pivot_that_refuses_is_held_whatever_comes_twice_or_late() {
    let mut desk = at_pivot();
    let first = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    let last = desk.expect("confirmation", Execute);
    let refused = Outcome::refused("doctor_away", "");
    assert_eq!(desk.reply(&last, refused.clone()), None);
    desk.stuck(Cause::ContractViolation, "confirmation");
    assert_eq!(desk.reply(&last, refused), Some(Ignored::Duplicate));
    assert_eq!(
        desk.reply(&first, Outcome::succeeded(outputs("confirmation"))),
        None,
        "kept for whoever has it in hand"
    );
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    desk.succeed("confirmation");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_fence_that_is_refused_speaks_against_a_refusal_whichever_comes_first() {
    for fence_first in [true, false] {
        let mut desk = at_pivot();
        let confirm = desk.expect("confirmation", Execute);
        desk.operate(Action::Cancel).expect("is stored");
        let fence = desk.expect("confirmation", Compensate);
        let mut words = [(fence, Outcome::refused("cannot_undo", "")), (confirm, Outcome::refused("doctor_away", ""))];
        if !fence_first {
            words.reverse();
        }
        for (command, outcome) in words {
            assert_eq!(desk.reply(&command, outcome), None);
        }
        desk.stuck(Cause::ContractViolation, "confirmation");
        if fence_first {
            desk.operate(Action::Retry).expect("is possible");
            desk.answer("confirmation", Compensate, nothing_to_undo());
            desk.undo("payment");
            desk.undo("booking");
            desk.ends(Status::Compensated, Some(Decision::Undone));
        }
    }
}

#[test]
fn a_success_of_an_effect_that_was_refused_and_replaced_is_kept_as_a_contradiction() {
    let mut desk = at_pivot();
    desk.succeed("confirmation");
    let first = desk.expect("notify", Execute);
    desk.wake();
    desk.wake();
    desk.answer("notify", Execute, Outcome::refused("no_channel", ""));
    desk.stuck(Cause::RefusedAfterPivot, "notify");
    desk.operate(Action::Retry).expect("is possible");
    assert_ne!(desk.expect("notify", Execute).key, first.key);
    assert_eq!(desk.reply(&first, Outcome::refused("no_channel", "")), Some(Ignored::Orphan));
    assert_eq!(desk.reply(&first, Outcome::succeeded(outputs("notify"))), Some(Ignored::LateContradiction));
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
    assert_eq!(desk.reply(&first, Outcome::succeeded(outputs("notify"))), Some(Ignored::LateContradiction));
}

#[test]
fn a_pivot_that_said_two_things_is_told_of_before_its_fence_is_asked_again() {
    let (mut desk, confirm, fence) = fenced_with_another_in_hand();
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    assert_eq!(desk.reply(&fence, nothing_to_undo()), None);
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.ends(Status::Stuck, None);
    desk.operate(Action::Retry).expect("is possible");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.succeed("confirmation");
    desk.ends(Status::Running, Some(Decision::Committed));
}

#[test]
fn what_the_fence_found_is_kept_for_whoever_has_the_pivot_in_hand() {
    let answers = [nothing_to_undo(), Outcome::succeeded(json!({})), Outcome::refused("already_executed", "")];
    for answer in answers {
        let mut desk = at_pivot();
        let confirm = desk.expect("confirmation", Execute);
        desk.operate(Action::Cancel).expect("is stored");
        let fence = desk.expect("confirmation", Compensate);
        desk.reply(&confirm, Outcome::refused("doctor_away", ""));
        desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
        desk.stuck(Cause::ContractViolation, "confirmation");
        assert_eq!(desk.reply(&fence, answer.clone()), None);
        assert_eq!(desk.reply(&fence, answer.clone()), Some(Ignored::Duplicate));
        if answer == Outcome::succeeded(json!({})) {
            desk.undo("payment");
            desk.undo("booking");
            desk.ends(Status::Compensated, Some(Decision::Undone));
        } else {
            desk.stuck(Cause::ContractViolation, "confirmation");
        }
    }
}

#[test]
fn a_refusal_to_undo_while_another_is_in_hand_speaks_against_nothing_to_undo() {
    for (last, told) in [(nothing_to_undo(), true), (Outcome::succeeded(json!({})), false)] {
        let mut desk = Desk::booking();
        let reserve = desk.succeed("booking");
        desk.silence("payment", Execute);
        let refund = desk.expect("payment", Compensate);
        desk.reply(&reserve, Outcome::refused("slot_taken", ""));
        desk.stuck(Cause::ContractViolation, "booking");
        let refused = Outcome::refused("cannot_undo", "");
        assert_eq!(desk.reply(&refund, refused.clone()), None);
        assert_eq!(desk.reply(&refund, refused), Some(Ignored::Duplicate));
        desk.operate(Action::Retry).expect("is possible");
        desk.undo("booking");
        desk.answer("payment", Compensate, last.clone());
        if told {
            desk.stuck(Cause::ContractViolation, "payment");
            assert_eq!(desk.answer("payment", Compensate, last), Some(Ignored::Duplicate));
        } else {
            desk.ends(Status::Compensated, Some(Decision::Undone));
        }
    }
}

#[test]
fn a_fence_that_is_not_understood_says_nothing_against_a_refusal() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("contract_violation", ""));
    desk.stuck(Cause::CompensationRefused, "confirmation");
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn an_old_success_of_a_pivot_that_was_undone_completes_nothing() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.reply(&fence, Outcome::succeeded(json!({})));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    desk.reply(&fence, Outcome::succeeded(json!({})));
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.answer("confirmation", Execute, Outcome::refused("fenced", ""));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
    let shown = saga_core::view::steps(&desk.definition, &desk.saga);
    assert_eq!(shown[2].holds_effect, Some(true), "a person said so");
}

#[test]
fn of_a_fence_that_said_two_things_no_copy_counts_once_it_is_asked_again() {
    let (mut desk, _, fence) = fenced_with_another_in_hand();
    desk.reply(&fence, nothing_to_undo());
    desk.reply(&fence, Outcome::refused("already_executed", ""));
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    for copy in [nothing_to_undo(), Outcome::refused("already_executed", "")] {
        assert_eq!(desk.reply(&fence, copy), Some(Ignored::Duplicate));
    }
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.ends(Status::Running, Some(Decision::Committed));
}

#[test]
fn a_copy_that_the_pivot_stands_commits_nothing_that_a_person_has_in_hand() {
    let (mut desk, confirm, fence) = fenced_with_another_in_hand();
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.reply(&fence, Outcome::refused("already_executed", ""));
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.reply(&fence, Outcome::refused("already_executed", ""));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.ends(Status::Stuck, None);
}

#[test]
fn a_fence_that_was_refused_and_mended_is_heard_whatever_copies_come_before() {
    let locked = Outcome::refused("locked", "");
    for (retried, answer) in [
        (true, Outcome::succeeded(json!({}))),
        (false, Outcome::succeeded(json!({}))),
        (true, Outcome::refused("already_executed", "")),
        (false, Outcome::refused("already_executed", "")),
    ] {
        let mut desk = at_pivot();
        desk.operate(Action::Cancel).expect("is stored");
        let mut fence = desk.expect("confirmation", Compensate);
        desk.reply(&fence, locked.clone());
        desk.stuck(Cause::CompensationRefused, "confirmation");
        if retried {
            desk.operate(Action::Retry).expect("is possible");
            assert_eq!(desk.reply(&fence, locked.clone()), Some(Ignored::Duplicate), "it was asked again since");
            fence = desk.expect("confirmation", Compensate);
        }
        assert_eq!(desk.reply(&fence, answer.clone()), None);
        if answer == Outcome::succeeded(json!({})) {
            desk.undo("payment");
            desk.undo("booking");
            desk.ends(Status::Compensated, Some(Decision::Undone));
        } else {
            desk.succeed("confirmation");
            desk.succeed("notify");
            desk.ends(Status::Completed, Some(Decision::Committed));
        }
    }
    let mut desk = at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&fence, locked);
    desk.operate(Action::Close).expect("is possible");
    assert_eq!(desk.reply(&fence, Outcome::succeeded(json!({}))), Some(Ignored::LateFact));
}
