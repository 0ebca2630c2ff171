//! What is asked about anew, told as stories: what a person was told of is set aside and nothing else, and an answer from before is
//! news only when it says what was not known.

mod common;

use common::{Desk, at_pivot, fenced_with_another_in_hand, nothing_to_undo, outputs};
use saga_core::state::Cause;
use saga_core::step::Waiting;
use saga_core::{Action, Decision, Ignored, Status};
use saga_defs::Verb::{Compensate, Execute};
use saga_defs::{Outcome, catalog};
use serde_json::json;

#[test]
fn what_the_fence_said_while_another_was_in_hand_speaks_against_what_comes_after_it_is_asked_again() {
    let against = |desk: &mut Desk, refused: bool| {
        let confirm = desk.sent[2].clone();
        if refused {
            desk.reply(&confirm, Outcome::refused("doctor_away", ""))
        } else {
            desk.answer("confirmation", Compensate, nothing_to_undo())
        }
    };
    for refused in [true, false] {
        let (mut desk, _, fence) = fenced_with_another_in_hand();
        assert_eq!(desk.reply(&fence, Outcome::refused("already_executed", "")), None);
        desk.operate(Action::Retry).expect("is possible");
        assert_eq!(against(&mut desk, refused), None);
        desk.stuck(Cause::ContractViolation, "confirmation");
        assert!(desk.sent.iter().all(|sent| sent.verb == Execute || sent.step == "confirmation"), "nothing is undone");
    }
}

#[test]
fn a_fence_that_was_refused_and_is_asked_again_has_the_last_word_on_a_refusal_of_its_pivot() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("locked", ""));
    desk.stuck(Cause::CompensationRefused, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    assert_eq!(desk.reply(&confirm, Outcome::refused("doctor_away", "")), None);
    assert!(desk.sent.iter().all(|sent| sent.verb == Execute || sent.step == "confirmation"), "nothing is undone");
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn that_an_effect_was_made_is_news_although_its_fence_was_asked_anew() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    let first = desk.expect("confirmation", Compensate);
    desk.wake();
    desk.wake();
    desk.reply(&first, Outcome::refused("cannot_undo", ""));
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
    assert_eq!(desk.reply(&confirm, Outcome::succeeded(outputs("confirmation"))), Some(Ignored::LateContradiction));
}

#[test]
fn that_nothing_was_there_of_what_refused_its_undo_is_told_of() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.silence("payment", Execute);
    desk.answer("payment", Compensate, Outcome::refused("already_executed", ""));
    desk.stuck(Cause::CompensationRefused, "payment");
    desk.operate(Action::Retry).expect("is possible");
    desk.answer("payment", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "payment");
}

#[test]
fn a_copy_of_what_was_not_understood_is_no_answer_to_what_is_asked_again() {
    let not_understood = Outcome::refused("contract_violation", "");
    let mut desk = Desk::booking();
    let reserve = desk.expect("booking", Execute);
    desk.reply(&reserve, not_understood.clone());
    desk.stuck(Cause::ContractViolation, "booking");
    desk.operate(Action::Retry).expect("is possible");
    assert_eq!(desk.reply(&reserve, not_understood.clone()), Some(Ignored::Duplicate));
    desk.succeed("booking");
    desk.answer("payment", Execute, Outcome::refused("card_declined", ""));
    let release = desk.expect("booking", Compensate);
    desk.reply(&release, not_understood.clone());
    desk.stuck(Cause::CompensationRefused, "booking");
    desk.operate(Action::Retry).expect("is possible");
    assert_eq!(desk.reply(&release, not_understood), Some(Ignored::Duplicate));
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_copy_of_a_refusal_to_undo_is_no_answer_to_what_is_asked_again() {
    let refused = Outcome::refused("cannot_undo", "");
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.silence("payment", Execute);
    let refund = desk.expect("payment", Compensate);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    assert_eq!(desk.reply(&refund, refused.clone()), None);
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("booking");
    let again = desk.expect("payment", Compensate);
    assert_eq!(desk.reply(&refund, refused.clone()), Some(Ignored::Duplicate));
    assert_eq!(desk.reply(&again, refused), None, "it is the answer to this");
    desk.stuck(Cause::CompensationRefused, "payment");
}

#[test]
fn an_undo_that_is_done_after_all_ends_the_trouble_about_it() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.answer("payment", Execute, Outcome::refused("card_declined", ""));
    let release = desk.expect("booking", Compensate);
    desk.wake();
    desk.wake();
    desk.answer("booking", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "booking");
    assert_eq!(desk.reply(&release, Outcome::succeeded(json!({}))), None);
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_pivot_that_is_made_meanwhile_hurries_nobody_who_is_asked_again() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    let confirm = desk.expect("confirmation", Execute);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.operate(Action::Retry).expect("is possible");
    desk.expect("booking", Execute);
    desk.wake();
    let sent = desk.sent.len();
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.ends(Status::Running, Some(Decision::Committed));
    assert_eq!(desk.sent.len(), sent, "its delay is not over");
    assert!(matches!(desk.saga.waiting(), Some(("booking", Execute, Waiting::Backoff { .. }))));
    desk.wake();
    desk.succeed("booking");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_copy_of_fenced_from_before_the_fence_was_too_late_is_no_refusal() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    let fenced = Outcome::refused("fenced", "");
    // Its participant is at work on the undo, which it has to refuse in the end.
    assert_eq!(desk.reply(&confirm, fenced.clone()), Some(Ignored::Duplicate));
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    let again = desk.expect("confirmation", Execute);
    assert_eq!(desk.reply(&confirm, fenced.clone()), Some(Ignored::Duplicate));
    assert_eq!(desk.reply(&again, fenced), None, "this left when the effect was known to be made");
    desk.stuck(Cause::ContractViolation, "confirmation");
}

#[test]
fn a_refusal_to_undo_answers_whichever_attempt_was_sent_since_the_last_one() {
    let (mut desk, _, first) = fenced_with_another_in_hand();
    let too_late = Outcome::refused("already_executed", "");
    desk.reply(&first, too_late.clone());
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    let second = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.stuck(Cause::CompensationExhausted, "confirmation");
    assert_eq!(desk.reply(&first, too_late.clone()), Some(Ignored::Duplicate), "a copy");
    assert_eq!(desk.reply(&second, too_late), None);
    desk.ends(Status::Running, Some(Decision::Committed));
}

#[test]
fn an_old_tombstone_does_not_outrank_a_refusal_to_undo_that_a_person_was_told_of() {
    let mut desk = at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    let first = desk.expect("confirmation", Compensate);
    desk.wake();
    desk.wake();
    desk.answer("confirmation", Compensate, Outcome::refused("cannot_undo", ""));
    desk.stuck(Cause::CompensationRefused, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    assert_eq!(desk.reply(&first, nothing_to_undo()), Some(Ignored::Duplicate));
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.ends(Status::Running, Some(Decision::Committed));
}

#[test]
fn an_old_success_of_a_pivot_that_was_never_made_completes_nothing() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    let made = Outcome::succeeded(outputs("confirmation"));
    assert_eq!(desk.reply(&confirm, made.clone()), Some(Ignored::Overruled));
    desk.reply(&fence, nothing_to_undo());
    desk.operate(Action::Retry).expect("is possible");
    assert_eq!(desk.reply(&confirm, made), Some(Ignored::Duplicate));
    desk.answer("confirmation", Execute, Outcome::refused("fenced", ""));
    desk.stuck(Cause::ContractViolation, "confirmation");
}

#[test]
fn a_pivot_that_is_undone_after_all_ends_the_trouble_about_it() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    let first = desk.expect("confirmation", Compensate);
    desk.wake();
    desk.wake();
    desk.reply(&first, nothing_to_undo());
    desk.expect("payment", Compensate);
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.stuck(Cause::ContractViolation, "confirmation");
    let second = desk.sent[4].clone();
    assert_eq!((second.step.as_str(), second.attempt), ("confirmation", 2));
    assert_eq!(desk.reply(&second, Outcome::succeeded(json!({}))), None);
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn what_is_asked_of_the_undoing_makes_no_answer_about_the_making_old() {
    let mut desk = at_pivot();
    let (reserve, confirm) = (desk.sent[0].clone(), desk.expect("confirmation", Execute));
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.operate(Action::Skip(outputs("booking"))).expect("is possible");
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    let second = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("locked", ""));
    desk.operate(Action::Retry).expect("is possible");
    assert_eq!(desk.reply(&second, Outcome::succeeded(outputs("confirmation"))), None);
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "confirmation");
}

#[test]
fn that_nothing_is_there_to_undo_of_what_was_undone_long_ago_is_no_contradiction() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.answer("payment", Execute, Outcome::refused("card_declined", ""));
    let first = desk.expect("booking", Compensate);
    desk.wake();
    desk.wake();
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
    assert_eq!(desk.reply(&first, nothing_to_undo()), Some(Ignored::LateFact), "its row was given up");
}

#[test]
fn who_has_a_step_in_hand_for_another_reason_is_told_that_it_contradicts_itself() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.answer("confirmation", Execute, Outcome::refused("contract_violation", "no such field"));
    desk.stuck(Cause::ContractViolation, "confirmation");
    let told = |desk: &Desk| desk.saga.stuck.as_ref().expect("stuck").message.clone();
    assert_eq!(told(&desk), "no such field");
    assert_eq!(desk.reply(&confirm, Outcome::refused("doctor_away", "")), None);
    assert!(told(&desk).contains("doctor_away"), "{}", told(&desk));
    let version = desk.saga.version;
    assert_eq!(desk.reply(&confirm, Outcome::refused("doctor_away", "")), Some(Ignored::Duplicate));
    assert_eq!(desk.saga.version, version);
}

#[test]
fn that_an_undo_was_refused_makes_no_echo_of_what_is_asked_after_the_decision() {
    let mut desk = at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    let first = desk.expect("confirmation", Compensate);
    desk.wake();
    desk.wake();
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    let again = desk.expect("confirmation", Execute);
    desk.reply(&first, Outcome::refused("locked", ""));
    assert_eq!(desk.reply(&again, Outcome::refused("fenced", "")), None);
    desk.stuck(Cause::ContractViolation, "confirmation");
}

#[test]
fn a_step_is_shown_as_what_is_known_of_it_and_not_more() {
    let mut desk = Desk::booking();
    desk.answer("booking", Execute, Outcome::succeeded(json!({})));
    desk.stuck(Cause::PayloadMapping, "payment");
    desk.operate(Action::Retry).expect("is possible");
    desk.stuck(Cause::PayloadMapping, "payment");
    let shown = saga_core::view::steps(&desk.definition, &desk.saga);
    assert_eq!((shown[1].status.as_str(), shown[1].holds_effect), ("pending", Some(false)), "it was never sent");

    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.answer("payment", Execute, Outcome::refused("card_declined", ""));
    desk.silence("booking", Compensate);
    desk.stuck(Cause::CompensationExhausted, "booking");
    let shown = saga_core::view::steps(&desk.definition, &desk.saga);
    assert_eq!((shown[0].status.as_str(), shown[0].holds_effect), ("compensating", None), "it may be undone by now");

    let mut desk = at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    let shown = saga_core::view::steps(&desk.definition, &desk.saga);
    assert_eq!((shown[2].status.as_str(), shown[2].holds_effect), ("succeeded", Some(true)), "its fence said so");

    let mut desk = at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("locked", ""));
    desk.operate(Action::Retry).expect("is possible");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    let shown = saga_core::view::steps(&desk.definition, &desk.saga);
    assert_eq!(
        (shown[2].status.as_str(), shown[2].holds_effect),
        ("succeeded", Some(true)),
        "whatever was asked before"
    );

    let mut definition = catalog::booking();
    definition.steps[1].without_effect = true;
    let mut desk = Desk::with(definition);
    desk.succeed("booking");
    desk.succeed("payment");
    let shown = saga_core::view::steps(&desk.definition, &desk.saga);
    assert_eq!(
        (shown[1].status.as_str(), shown[1].holds_effect),
        ("succeeded", Some(false)),
        "it leaves nothing behind"
    );
}

#[test]
fn an_undo_that_was_refused_and_asked_again_without_an_answer_is_shown_as_not_known() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    desk.answer("confirmation", Execute, Outcome::refused("doctor_away", ""));
    let refund = desk.expect("payment", Compensate);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    assert_eq!(desk.reply(&refund, Outcome::refused("locked", "")), None);
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("booking");
    desk.silence("payment", Compensate);
    desk.stuck(Cause::CompensationExhausted, "payment");
    let shown = saga_core::view::steps(&desk.definition, &desk.saga);
    assert_eq!((shown[1].status.as_str(), shown[1].holds_effect), ("compensating", None));
}

#[test]
fn a_pivot_that_was_taken_back_after_it_was_said_to_stand_is_shown_as_not_known() {
    let mut desk = at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    let first = desk.expect("confirmation", Compensate);
    desk.wake();
    desk.wake();
    let second = desk.expect("confirmation", Compensate);
    desk.reply(&first, Outcome::refused("already_executed", ""));
    desk.reply(&second, Outcome::succeeded(json!({})));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    let shown = saga_core::view::steps(&desk.definition, &desk.saga);
    assert_eq!((shown[2].status.as_str(), shown[2].holds_effect), ("unknown", None));
}
