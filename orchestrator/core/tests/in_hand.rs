//! What comes while a person has a step's contradiction in hand, told as stories: facts are kept, nothing moves, and no second
//! contradiction is passed over.

mod common;

use common::{Desk, at_pivot, fenced_with_another_in_hand, nothing_to_undo, outputs};
use saga_core::state::Cause;
use saga_core::{Action, Decision, Ignored, Refusal, Status};
use saga_defs::Verb::{Compensate, Execute};
use saga_defs::{Command, Outcome, catalog};
use serde_json::json;

#[test]
fn a_pivot_verdict_while_held_and_fenced_commits_nothing() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    assert_eq!(desk.reply(&confirm, Outcome::succeeded(outputs("confirmation"))), None);
    desk.ends(Status::Stuck, None);
    desk.operate(Action::Retry).expect("is possible");
    desk.answer("confirmation", Compensate, Outcome::succeeded(json!({})));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn an_undo_that_succeeds_while_held_is_kept() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let charge = desk.expect("payment", Execute);
    desk.silence("payment", Execute);
    desk.answer("payment", Compensate, nothing_to_undo());
    let release = desk.expect("booking", Compensate);
    desk.reply(&charge, Outcome::succeeded(outputs("payment")));
    desk.stuck(Cause::ContractViolation, "payment");
    assert_eq!(desk.reply(&release, Outcome::succeeded(json!({}))), None);
    desk.stuck(Cause::ContractViolation, "payment");
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("payment");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_pivot_verdict_while_held_for_a_person_still_commits() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    let confirm = desk.expect("confirmation", Execute);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.ends(Status::Stuck, Some(Decision::Committed));
    assert!(matches!(desk.operate(Action::Compensate), Err(Refusal::NotAllowed { .. })));
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_second_contradiction_is_remembered_while_the_first_is_in_hand() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    let charge = desk.expect("payment", Execute);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    assert_eq!(desk.reply(&charge, Outcome::refused("card_declined", "")), None);
    assert_eq!(desk.reply(&charge, Outcome::succeeded(outputs("payment"))), None);
    desk.stuck(Cause::ContractViolation, "booking");
    desk.operate(Action::Compensate).expect("is possible");
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_pivot_that_contradicted_itself_while_held_is_fenced() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    let confirm = desk.expect("confirmation", Execute);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.ends(Status::Stuck, None);
    desk.operate(Action::Compensate).expect("is possible");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    desk.ends(Status::Stuck, Some(Decision::Committed));
    assert!(desk.sent.iter().all(|command| command.verb == Execute || command.step == "confirmation"));
}

/// A saga that is being undone, whose first step said that it was made and then that there is nothing to undo.
fn undone_but_contradicted(desk: &mut Desk) {
    desk.answer("booking", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "booking");
}

#[test]
fn what_is_made_while_another_is_in_hand_is_told_of_before_the_end() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let charge = desk.expect("payment", Execute);
    desk.reply(&charge, Outcome::refused("card_declined", ""));
    undone_but_contradicted(&mut desk);
    assert_eq!(desk.reply(&charge, Outcome::succeeded(outputs("payment"))), None);
    let refused = desk.reply(&charge, Outcome::refused("card_declined", ""));
    assert_eq!(refused, Some(Ignored::Duplicate), "nothing takes it back");
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("booking");
    desk.stuck(Cause::ContractViolation, "payment");
    assert!(matches!(desk.operate(Action::Retry), Err(Refusal::NotAllowed { .. })));
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn what_is_made_after_its_tombstone_while_another_is_in_hand_is_undone() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let charge = desk.expect("payment", Execute);
    desk.silence("payment", Execute);
    desk.answer("payment", Compensate, nothing_to_undo());
    undone_but_contradicted(&mut desk);
    assert_eq!(desk.reply(&charge, Outcome::succeeded(outputs("payment"))), None);
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("booking");
    desk.stuck(Cause::ContractViolation, "payment");
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("payment");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_pivot_that_stands_after_all_while_another_is_in_hand_is_told_of_before_the_end() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.answer("payment", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "payment");
    assert_eq!(desk.reply(&fence, Outcome::refused("already_executed", "")), None);
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("payment");
    desk.undo("booking");
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Close).expect("is possible");
    desk.ends(Status::Closed, Some(Decision::Abandoned));
}

/// A saga that stands, whose first step is in hand; the fence of its pivot was answered as that does stand.
fn stands_with_another_in_hand() -> (Desk, Command) {
    let mut desk = at_pivot();
    let reserve = desk.sent[0].clone();
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&fence, Outcome::refused("already_executed", ""));
    desk.succeed("confirmation");
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    (desk, fence)
}

#[test]
fn what_is_taken_back_while_another_is_in_hand_is_told_of_and_asked_again() {
    let (mut desk, fence) = stands_with_another_in_hand();
    assert_eq!(desk.reply(&fence, nothing_to_undo()), None);
    let again = desk.reply(&fence, Outcome::refused("already_executed", ""));
    assert_eq!(again, Some(Ignored::Duplicate), "nothing takes it back");
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    desk.succeed("confirmation");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_fence_against_a_persons_word_while_another_is_in_hand_asks_a_person_again() {
    let mut desk = at_pivot();
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.answer("notify", Execute, Outcome::refused("contract_violation", ""));
    desk.stuck(Cause::ContractViolation, "notify");
    assert_eq!(desk.reply(&fence, nothing_to_undo()), None);
    desk.operate(Action::Retry).expect("is possible");
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_contradiction_comes_back_when_the_undo_that_was_asked_for_is_too_late() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let charge = desk.succeed("payment");
    desk.reply(&charge, Outcome::refused("card_declined", ""));
    desk.stuck(Cause::ContractViolation, "payment");
    desk.operate(Action::Compensate).expect("is possible");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.stuck(Cause::ContractViolation, "payment");
    desk.ends(Status::Stuck, Some(Decision::Committed));
    desk.operate(Action::Retry).expect("is possible");
    desk.succeed("payment");
    desk.succeed("confirmation");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_pivot_that_is_undone_while_the_saga_stands_and_another_is_in_hand_is_told_of() {
    let mut desk = at_pivot();
    let reserve = desk.sent[0].clone();
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.reply(&fence, Outcome::succeeded(json!({})));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    let copy = desk.reply(&fence, Outcome::succeeded(json!({})));
    assert_eq!(copy, Some(Ignored::Duplicate), "a person was told of it and asked again");
    assert_eq!(desk.reply(&fence, nothing_to_undo()), None, "that is news");
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    desk.stuck(Cause::ContractViolation, "confirmation");
}

#[test]
fn a_step_without_effect_hides_no_other_contradiction() {
    let mut definition = catalog::booking();
    definition.steps[1].without_effect = true;
    let mut desk = Desk::with(definition);
    desk.succeed("booking");
    let check = desk.succeed("payment");
    let confirm = desk.expect("confirmation", Execute);
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.answer("booking", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "booking");
    assert_eq!(desk.reply(&check, Outcome::refused("no", "")), None);
    assert_eq!(desk.reply(&confirm, Outcome::succeeded(outputs("confirmation"))), None);
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("booking");
    desk.stuck(Cause::ContractViolation, "confirmation");
}

#[test]
fn what_the_fence_said_while_another_is_in_hand_is_not_asked_again() {
    for action in [Action::Retry, Action::Skip(outputs("booking"))] {
        let (mut desk, _, fence) = fenced_with_another_in_hand();
        assert_eq!(desk.reply(&fence, Outcome::succeeded(json!({}))), None);
        desk.stuck(Cause::ContractViolation, "booking");
        desk.operate(action).expect("is possible");
        desk.undo("payment");
        desk.undo("booking");
        desk.ends(Status::Compensated, Some(Decision::Undone));
    }
}

#[test]
fn a_pivot_that_refused_while_another_is_in_hand_is_not_fenced_again() {
    let (mut desk, confirm, _) = fenced_with_another_in_hand();
    assert_eq!(desk.reply(&confirm, Outcome::refused("doctor_away", "")), None);
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_fence_against_what_was_said_while_another_is_in_hand_is_told_of_and_then_has_the_last_word() {
    let both = |first: &Outcome| {
        let (mut desk, confirm, fence) = fenced_with_another_in_hand();
        desk.reply(&fence, first.clone());
        let second = if *first == nothing_to_undo() {
            desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")))
        } else {
            desk.reply(&fence, Outcome::refused("already_executed", ""))
        };
        assert_eq!(second, None);
        desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
        desk.stuck(Cause::ContractViolation, "confirmation");
        desk.operate(Action::Retry).expect("is possible");
        desk
    };
    for first in [nothing_to_undo(), Outcome::succeeded(json!({}))] {
        let mut desk = both(&first);
        desk.answer("confirmation", Compensate, first.clone());
        desk.undo("payment");
        desk.undo("booking");
        desk.ends(Status::Compensated, Some(Decision::Undone));
        let mut desk = both(&first);
        desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
        desk.ends(Status::Running, Some(Decision::Committed));
    }
}

#[test]
fn a_pivot_that_stands_is_told_of_when_it_said_both_while_another_is_in_hand() {
    for said in [vec![true, false], vec![false, true]] {
        let (mut desk, confirm, _) = fenced_with_another_in_hand();
        for made in said {
            let made_or_not = [Outcome::refused("doctor_away", ""), Outcome::succeeded(outputs("confirmation"))];
            desk.reply(&confirm, made_or_not[usize::from(made)].clone());
        }
        desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
        desk.stuck(Cause::ContractViolation, "confirmation");
        desk.operate(Action::Retry).expect("is possible");
        desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
        desk.succeed("confirmation");
        desk.succeed("notify");
        desk.ends(Status::Completed, Some(Decision::Committed));
    }
}

#[test]
fn whoever_cancels_what_a_pivot_said_in_two_ways_is_not_told_of_it_again() {
    let mut desk = at_pivot();
    let reserve = desk.sent[0].clone();
    let confirm = desk.expect("confirmation", Execute);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.succeed("confirmation");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_fence_that_is_too_late_and_a_refusal_while_another_is_in_hand_are_asked_about_and_told_of() {
    for fence_first in [true, false] {
        let (mut desk, confirm, fence) = fenced_with_another_in_hand();
        let mut words =
            [(fence, Outcome::refused("already_executed", "")), (confirm, Outcome::refused("doctor_away", ""))];
        if !fence_first {
            words.reverse();
        }
        for (command, outcome) in words {
            assert_eq!(desk.reply(&command, outcome), None);
        }
        desk.operate(Action::Retry).expect("is possible");
        desk.stuck(Cause::ContractViolation, "confirmation");
        desk.operate(Action::Retry).expect("is possible");
        desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
        desk.stuck(Cause::ContractViolation, "booking");
        desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
        desk.succeed("confirmation");
        desk.ends(Status::Running, Some(Decision::Committed));
    }
}

#[test]
fn a_fence_that_is_refused_while_another_is_in_hand_speaks_against_a_refusal_of_the_pivot() {
    for fence_first in [true, false] {
        let (mut desk, confirm, fence) = fenced_with_another_in_hand();
        let mut words = [(fence, Outcome::refused("cannot_undo", "")), (confirm, Outcome::refused("doctor_away", ""))];
        if !fence_first {
            words.reverse();
        }
        for (command, outcome) in words {
            assert_eq!(desk.reply(&command, outcome), None);
        }
        desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
        desk.stuck(Cause::ContractViolation, "confirmation");
        desk.operate(Action::Retry).expect("is possible");
        desk.answer("confirmation", Compensate, Outcome::refused("cannot_undo", ""));
        desk.stuck(Cause::CompensationRefused, "confirmation");
    }
}
