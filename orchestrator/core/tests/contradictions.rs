//! Participants that contradict themselves, told as stories: nothing is guessed, a person decides, and what stands is not taken
//! back.

mod common;

use common::{Desk, at_pivot, nothing_to_undo, outputs};
use saga_core::state::Cause;
use saga_core::{Action, Decision, Ignored, Refusal, Status};
use saga_defs::Verb::{Compensate, Execute};
use saga_defs::{Command, Outcome, catalog};
use serde_json::json;

#[test]
fn success_after_a_tombstone_is_a_contradiction() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let charge = desk.expect("payment", Execute);
    desk.silence("payment", Execute);
    desk.answer("payment", Compensate, nothing_to_undo());
    desk.expect("booking", Compensate);
    desk.reply(&charge, Outcome::succeeded(outputs("payment")));
    desk.stuck(Cause::ContractViolation, "payment");
    assert_eq!(desk.reply(&charge, Outcome::succeeded(outputs("payment"))), Some(Ignored::Duplicate));
    assert_eq!(desk.operate(Action::Retry), Ok(None));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_contradiction_after_the_end_is_told_apart() {
    let mut desk = Desk::booking();
    let reserve = desk.expect("booking", Execute);
    desk.silence("booking", Execute);
    desk.answer("booking", Compensate, nothing_to_undo());
    desk.ends(Status::Compensated, Some(Decision::Undone));
    assert_eq!(desk.reply(&reserve, Outcome::refused("fenced", "")), Some(Ignored::Duplicate));
    assert_eq!(desk.reply(&reserve, Outcome::refused("slot_taken", "")), Some(Ignored::LateFact));
    assert_eq!(desk.reply(&reserve, Outcome::succeeded(outputs("booking"))), Some(Ignored::LateContradiction));
}

#[test]
fn a_fence_that_contradicts_the_pivot_needs_a_person() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.reply(&fence, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.ends(Status::Stuck, None);
    desk.operate(Action::Retry).expect("is possible");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.ends(Status::Running, Some(Decision::Committed));
}

#[test]
fn a_contradiction_while_fencing_never_forgets_the_pivot() {
    for (action, status) in [(Action::Retry, Status::Stuck), (Action::Skip(outputs("booking")), Status::Running)] {
        let mut desk = Desk::booking();
        let reserve = desk.succeed("booking");
        desk.succeed("payment");
        desk.operate(Action::Cancel).expect("is stored");
        desk.reply(&reserve, Outcome::refused("slot_taken", ""));
        desk.stuck(Cause::ContractViolation, "booking");
        desk.operate(action).expect("is possible");
        assert_eq!(desk.expect("confirmation", Compensate).attempt, 2, "the fence is asked again");
        desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
        // A retry asked for the fence, and nothing yet of the step that is in hand.
        desk.ends(status, Some(Decision::Committed));
    }
}

#[test]
fn an_undo_of_what_a_finished_saga_counts_on_is_a_contradiction() {
    let mut desk = at_pivot();
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
    assert_eq!(desk.reply(&fence, nothing_to_undo()), Some(Ignored::LateContradiction));
}

#[test]
fn that_a_finished_sagas_pivot_does_not_stand_is_kept_beside_it() {
    for asked_again in [true, false] {
        let mut desk = at_pivot();
        let confirm = desk.expect("confirmation", Execute);
        desk.silence("confirmation", Execute);
        let fence = desk.expect("confirmation", Compensate);
        desk.silence("confirmation", Compensate);
        desk.operate(Action::Skip(json!({}))).expect("is possible");
        if asked_again {
            desk.reply(&fence, Outcome::succeeded(json!({})));
            desk.operate(Action::Retry).expect("is possible");
            desk.succeed("confirmation");
        }
        desk.succeed("notify");
        desk.ends(Status::Completed, Some(Decision::Committed));
        let kept = if asked_again { Ignored::LateContradiction } else { Ignored::Overruled };
        assert_eq!(desk.reply(&confirm, Outcome::refused("fenced", "")), Some(kept));
    }
}

#[test]
fn a_pivot_that_stands_after_all_is_kept_beside_a_saga_that_was_undone() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
    for (code, kept) in [
        ("already_executed", Ignored::LateContradiction),
        ("cannot_undo", Ignored::LateContradiction),
        ("contract_violation", Ignored::LateFact),
    ] {
        assert_eq!(desk.reply(&fence, Outcome::refused(code, "")), Some(kept), "{code}");
    }
}

#[test]
fn a_fence_that_contradicts_a_persons_word_asks_a_person_again() {
    let mut desk = at_pivot();
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.reply(&fence, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.ends(Status::Stuck, Some(Decision::Committed));
    desk.operate(Action::Retry).expect("is possible");
    desk.answer("confirmation", Execute, Outcome::refused("fenced", ""));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Close).expect("is possible");
    desk.ends(Status::Closed, Some(Decision::Committed));
}

/// A booking whose first step was contradicted and is asked again, while its pivot is under way.
fn asked_again_at_pivot() -> (Desk, Command, Command) {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    let confirm = desk.expect("confirmation", Execute);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.operate(Action::Retry).expect("is possible");
    desk.expect("booking", Execute);
    (desk, reserve, confirm)
}

/// A saga that stands, whose first step said that it was made and then that it was not.
fn stands_but_contradicted() -> Desk {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    let confirm = desk.expect("confirmation", Execute);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.ends(Status::Stuck, Some(Decision::Committed));
    desk
}

#[test]
fn what_refuses_again_after_the_decision_takes_nothing_back_and_makes_nothing_twice() {
    let mut desk = stands_but_contradicted();
    let first = desk.sent[0].key;
    for _ in 0..2 {
        desk.operate(Action::Retry).expect("is possible");
        assert_eq!(desk.expect("booking", Execute).key, first, "the effect may stand under it");
        desk.answer("booking", Execute, Outcome::refused("slot_taken", ""));
        desk.stuck(Cause::ContractViolation, "booking");
        desk.ends(Status::Stuck, Some(Decision::Committed));
    }
    desk.operate(Action::Retry).expect("is possible");
    desk.succeed("booking");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
    assert!(desk.sent.iter().all(|command| command.verb == Execute), "nothing was undone");
}

#[test]
fn silence_after_the_decision_takes_nothing_back() {
    let mut desk = stands_but_contradicted();
    desk.operate(Action::Retry).expect("is possible");
    desk.silence("booking", Execute);
    desk.stuck(Cause::AttemptsExhausted, "booking");
    desk.ends(Status::Stuck, Some(Decision::Committed));
    assert!(desk.sent.iter().all(|command| command.verb == Execute), "nothing was undone");
}

#[test]
fn what_refuses_while_the_pivot_is_unknown_asks_the_fence_first() {
    for stands in [false, true] {
        let (mut desk, ..) = asked_again_at_pivot();
        desk.answer("booking", Execute, Outcome::refused("slot_taken", ""));
        let fence = desk.expect("confirmation", Compensate);
        if stands {
            desk.reply(&fence, Outcome::refused("already_executed", ""));
            desk.stuck(Cause::ContractViolation, "booking");
            desk.ends(Status::Stuck, Some(Decision::Committed));
        } else {
            desk.reply(&fence, nothing_to_undo());
            desk.undo("payment");
            // It was said to be made and refused: it is undone in any case.
            desk.undo("booking");
            desk.ends(Status::Compensated, Some(Decision::Undone));
        }
    }
}

#[test]
fn silence_while_the_pivot_is_unknown_asks_the_fence_first() {
    let (mut desk, ..) = asked_again_at_pivot();
    desk.silence("booking", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&fence, nothing_to_undo());
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn what_was_refused_and_then_made_is_asked_again_and_not_made_twice() {
    let mut desk = at_pivot();
    desk.succeed("confirmation");
    let notify = desk.expect("notify", Execute);
    desk.reply(&notify, Outcome::refused("no_channel", ""));
    desk.stuck(Cause::RefusedAfterPivot, "notify");
    desk.reply(&notify, Outcome::succeeded(json!({})));
    desk.stuck(Cause::ContractViolation, "notify");
    desk.operate(Action::Retry).expect("is possible");
    assert_eq!(desk.expect("notify", Execute).key, notify.key, "the effect that may stand is asked for");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn while_the_fence_is_asked_nobody_else_is_waited_for() {
    let (mut desk, reserve, confirm) = asked_again_at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    assert_eq!(desk.reply(&reserve, Outcome::Retry { after_ms: 1 }), Some(Ignored::Duplicate));
    assert_eq!(desk.saga.waiting().map(|(step, verb, _)| (step, verb)), Some(("confirmation", Compensate)));
    desk.reply(&fence, Outcome::refused("already_executed", ""));
    desk.ends(Status::Running, Some(Decision::Committed));
    desk.succeed("booking");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn what_was_made_and_refused_is_in_the_plan() {
    let (mut desk, reserve, _) = asked_again_at_pivot();
    desk.answer("booking", Execute, Outcome::refused("slot_taken", ""));
    desk.expect("confirmation", Compensate);
    let copy = desk.reply(&reserve, Outcome::succeeded(outputs("booking")));
    assert_eq!(copy, Some(Ignored::Duplicate), "a person was told of it and asked again");
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_pivot_that_contradicts_its_fence_is_not_asked_again_while_others_are_undone() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.expect("payment", Compensate);
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.stuck(Cause::ContractViolation, "confirmation");
    assert!(matches!(desk.operate(Action::Retry), Err(Refusal::NotAllowed { .. })));
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_verdict_of_another_step_moves_nothing_that_is_stuck() {
    let (mut desk, _, confirm) = asked_again_at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.silence("booking", Execute);
    desk.stuck(Cause::AttemptsExhausted, "booking");
    let sent = desk.sent.len();
    assert_eq!(desk.reply(&confirm, Outcome::succeeded(outputs("confirmation"))), None);
    desk.stuck(Cause::AttemptsExhausted, "booking");
    assert_eq!(desk.sent.len(), sent);
}

#[test]
fn a_retry_asks_first_for_what_comes_before() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    desk.succeed("confirmation");
    let notify = desk.expect("notify", Execute);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.operate(Action::Retry).expect("is possible");
    desk.expect("booking", Execute);
    desk.reply(&notify, Outcome::refused("no_channel", ""));
    desk.stuck(Cause::RefusedAfterPivot, "notify");
    desk.operate(Action::Retry).expect("is possible");
    desk.succeed("booking");
    assert_ne!(desk.succeed("notify").key, notify.key);
    desk.ends(Status::Completed, Some(Decision::Committed));
}

/// A saga without a pivot that is being undone; its first step was contradicted and is asked again, beside its last one.
fn two_are_asked_to_undo() -> (Desk, Command) {
    let mut definition = catalog::booking();
    definition.steps.iter_mut().for_each(|step| step.pivot = false);
    let mut desk = Desk::with(definition);
    let reserve = desk.succeed("booking");
    desk.succeed("payment");
    desk.succeed("confirmation");
    desk.operate(Action::Cancel).expect("is granted");
    let last = desk.expect("notify", Compensate);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    desk.operate(Action::Retry).expect("is possible");
    desk.expect("booking", Compensate);
    (desk, last)
}

#[test]
fn an_undo_asks_nobody_else_while_one_is_asked() {
    let (mut desk, last) = two_are_asked_to_undo();
    desk.reply(&last, nothing_to_undo());
    desk.undo("booking");
    desk.undo("confirmation");
    desk.undo("payment");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn an_undo_asks_nobody_while_another_is_stuck() {
    let (mut desk, last) = two_are_asked_to_undo();
    desk.silence("booking", Compensate);
    desk.stuck(Cause::CompensationExhausted, "booking");
    let sent = desk.sent.len();
    desk.reply(&last, nothing_to_undo());
    desk.stuck(Cause::CompensationExhausted, "booking");
    assert_eq!(desk.sent.len(), sent);
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("booking");
    desk.undo("confirmation");
    desk.undo("payment");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_step_that_is_stuck_before_it_was_sent_is_not_counted_as_sent() {
    let mut desk = Desk::booking();
    desk.answer("booking", Execute, Outcome::succeeded(json!({})));
    desk.stuck(Cause::PayloadMapping, "payment");
    assert!(!desk.saga.steps.contains_key("payment"));
}

#[test]
fn what_was_made_and_refused_and_is_not_there_needs_a_person() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    let charge = desk.succeed("payment");
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    assert_eq!(desk.reply(&charge, Outcome::refused("card_declined", "")), None);
    desk.operate(Action::Compensate).expect("is possible");
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.answer("payment", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "payment");
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn what_a_person_made_by_hand_is_undone_by_hand() {
    let mut desk = Desk::booking();
    desk.answer("booking", Execute, Outcome::succeeded(json!({})));
    desk.stuck(Cause::PayloadMapping, "payment");
    desk.operate(Action::Skip(outputs("payment"))).expect("is possible");
    desk.stuck(Cause::PayloadMapping, "confirmation");
    desk.operate(Action::Compensate).expect("is possible");
    desk.answer("payment", Compensate, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "payment");
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn what_was_not_understood_is_no_word_about_an_effect() {
    let mut desk = at_pivot();
    let charge = desk.sent[1].clone();
    assert_eq!(desk.reply(&charge, Outcome::refused("contract_violation", "")), Some(Ignored::Duplicate));
    let confirm = desk.expect("confirmation", Execute);
    desk.reply(&confirm, Outcome::refused("contract_violation", ""));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Cancel).expect("is stored");
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    desk.reply(&fence, nothing_to_undo());
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_step_without_effect_that_contradicted_itself_holds_no_undo() {
    let mut definition = catalog::booking();
    definition.steps[1].without_effect = true;
    let mut desk = Desk::with(definition);
    desk.succeed("booking");
    let check = desk.succeed("payment");
    desk.reply(&check, Outcome::refused("no", ""));
    desk.stuck(Cause::ContractViolation, "payment");
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_step_without_effect_that_contradicts_itself_meanwhile_holds_no_undo() {
    let mut definition = catalog::booking();
    definition.steps[1].without_effect = true;
    let mut desk = Desk::with(definition);
    desk.succeed("booking");
    let check = desk.succeed("payment");
    desk.answer("confirmation", Execute, Outcome::refused("doctor_away", ""));
    assert_eq!(desk.reply(&check, Outcome::refused("no", "")), None);
    assert_eq!(desk.reply(&check, Outcome::refused("no", "")), Some(Ignored::Duplicate));
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_pivot_that_is_asked_again_may_say_that_it_stands_although_its_fence_had_said_otherwise() {
    let mut desk = at_pivot();
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.reply(&fence, nothing_to_undo());
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Retry).expect("is possible");
    let copy = desk.reply(&fence, nothing_to_undo());
    assert_eq!(copy, Some(Ignored::Duplicate), "a person was told of it and asked again");
    desk.succeed("confirmation");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_refusal_to_undo_is_no_word_about_the_effect() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    let refused = Outcome::refused("contract_violation", "");
    assert_eq!(desk.reply(&fence, refused.clone()), Some(Ignored::Duplicate));
    let refund = desk.expect("payment", Compensate);
    desk.reply(&refund, refused.clone());
    desk.stuck(Cause::CompensationRefused, "payment");
    desk.operate(Action::Retry).expect("is possible");
    desk.undo("payment");
    assert_eq!(desk.reply(&refund, refused.clone()), Some(Ignored::Duplicate), "from before it was undone");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
    assert_eq!(desk.reply(&refund, refused), Some(Ignored::Duplicate));
}

#[test]
fn that_an_undo_is_refused_for_ever_speaks_against_a_tombstone_and_a_refusal() {
    let refused = Outcome::refused("cannot_undo", "");
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.silence("payment", Execute);
    let refund = desk.expect("payment", Compensate);
    desk.reply(&refund, nothing_to_undo());
    assert_eq!(desk.reply(&refund, refused.clone()), None);
    desk.stuck(Cause::ContractViolation, "payment");

    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::refused("doctor_away", ""));
    assert_eq!(desk.reply(&fence, refused), None);
    desk.stuck(Cause::ContractViolation, "confirmation");
}

#[test]
fn what_was_said_in_two_ways_is_shown_as_not_known() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&fence, nothing_to_undo());
    desk.reply(&confirm, Outcome::succeeded(outputs("confirmation")));
    desk.stuck(Cause::ContractViolation, "confirmation");
    // The payment's undo was asked, too, and is not answered.
    assert_eq!(held(&desk), [Some(true), None, None, Some(false)]);

    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    assert_eq!(held(&desk)[0], None);
    desk.operate(Action::Retry).expect("is possible");
    desk.succeed("booking");
    assert_eq!(held(&desk)[0], Some(true), "it was asked again");
}

/// Whether each step is shown to hold an effect.
fn held(desk: &Desk) -> Vec<Option<bool>> {
    saga_core::view::steps(&catalog::booking(), &desk.saga).iter().map(|step| step.holds_effect).collect()
}

#[test]
fn what_a_person_says_is_made_is_shown_as_made_whatever_the_fence_had_said() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.silence("confirmation", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.reply(&fence, nothing_to_undo());
    desk.operate(Action::Retry).expect("is possible");
    desk.reply(&fence, nothing_to_undo());
    desk.reply(&confirm, Outcome::refused("fenced", ""));
    desk.stuck(Cause::ContractViolation, "confirmation");
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    assert_eq!(held(&desk)[2], Some(true));
}
