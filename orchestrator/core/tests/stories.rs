//! The booking saga told as stories: given a saga, when something happens, then a command or an end.

mod common;

use common::{Desk, at_pivot, nothing_to_undo, outputs};
use saga_core::state::{CancelOutcome, Cause};
use saga_core::{Action, Decision, Ignored, Input, Operation, Refusal, Status};
use saga_defs::Verb::{Compensate, Execute};
use saga_defs::{Outcome, catalog};
use serde_json::json;
use uuid::Uuid;

fn declined() -> Outcome {
    Outcome::refused("card_declined", "the issuer said no")
}

fn in_tail() -> Desk {
    let mut desk = at_pivot();
    desk.succeed("confirmation");
    desk.expect("notify", Execute);
    desk
}

#[test]
fn a_booking_that_works() {
    let mut desk = Desk::booking();
    let reserve = desk.succeed("booking");
    assert_eq!(reserve.payload["slot_id"], desk.input["slot_id"]);
    let charge = desk.succeed("payment");
    assert_eq!(charge.payload, json!({"amount": outputs("booking")["price"], "payment_method": "tok_visa"}));
    desk.succeed("confirmation");
    desk.ends(Status::Running, Some(Decision::Committed));
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn what_is_over_is_written_last_and_stays_as_it_was() {
    let mut desk = Desk::booking();
    let mut texts = Vec::new();
    for step in ["booking", "payment", "confirmation"] {
        desk.now = desk.now.plus_ms(1);
        desk.succeed(step);
        texts.push(serde_json::to_string(&desk.saga).unwrap());
    }
    for (step, pair) in ["booking", "payment"].iter().zip(texts.windows(2)) {
        let over = pair[0].find(&format!("\"{step}\":{{")).unwrap();
        assert!(pair[1].ends_with(&pair[0][over..]), "{pair:?}");
    }
}

#[test]
fn a_taken_slot_is_refused_and_nothing_is_undone() {
    let mut desk = Desk::booking();
    desk.answer("booking", Execute, Outcome::refused("slot_taken", ""));
    desk.ends(Status::Compensated, Some(Decision::Refused));
    assert_eq!(desk.sent.len(), 1);
    assert_eq!(desk.saga.failure.as_ref().map(|failure| failure.code.as_str()), Some("slot_taken"));
}

#[test]
fn a_declined_card_frees_the_slot() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.answer("payment", Execute, declined());
    desk.ends(Status::Compensating, None);
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn an_expired_reservation_gives_the_money_back_first() {
    let mut desk = at_pivot();
    desk.answer("confirmation", Execute, Outcome::refused("reservation_expired", ""));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn silence_is_not_failure_and_the_unknown_step_is_undone_too() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let first = desk.expect("payment", Execute);
    desk.silence("payment", Execute);
    let attempts = desk.sent.iter().filter(|command| command.step == "payment" && command.verb == Execute);
    let attempts: Vec<_> = attempts.cloned().collect();
    assert_eq!(attempts.len(), 4);
    assert!(attempts.iter().all(|command| command.key == first.key && command.first_sent_at == first.first_sent_at));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn retry_is_not_knowledge() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    for attempt in 1..=4 {
        let command = desk.expect("payment", Execute);
        assert_eq!(command.attempt, attempt);
        desk.reply(&command, Outcome::Retry { after_ms: 60_000 });
        let earliest = desk.now.plus_ms(60_000);
        if attempt < 4 {
            assert!(desk.saga.wake_at().expect("waits") >= earliest, "the participant's wish is kept");
            desk.wake();
        }
    }
    assert_eq!(desk.expect("payment", Compensate).attempt, 1, "the effect stays unknown, so it is in the plan");
}

#[test]
fn an_old_attempts_retry_changes_nothing() {
    let mut desk = Desk::booking();
    let first = desk.expect("booking", Execute);
    desk.wake();
    desk.wake();
    desk.expect("booking", Execute);
    assert_eq!(desk.reply(&first, Outcome::Retry { after_ms: 1 }), Some(Ignored::Duplicate));
}

#[test]
fn a_reply_to_any_attempt_counts_and_its_duplicate_does_not() {
    let mut desk = Desk::booking();
    let first = desk.expect("booking", Execute);
    desk.wake();
    desk.wake();
    let second = desk.expect("booking", Execute);
    assert_ne!(first.command_id, second.command_id);
    assert_eq!(desk.reply(&first, Outcome::succeeded(outputs("booking"))), None);
    desk.expect("payment", Execute);
    let version = desk.saga.version;
    assert_eq!(desk.reply(&second, Outcome::succeeded(outputs("booking"))), Some(Ignored::Duplicate));
    assert_eq!(desk.saga.version, version);
}

#[test]
fn a_reply_that_answers_nothing_is_an_orphan() {
    let mut desk = Desk::booking();
    let mut command = desk.expect("booking", Execute);
    command.command_id = Uuid::from_u128(1);
    assert_eq!(desk.reply(&command, Outcome::succeeded(json!({}))), Some(Ignored::Orphan));
    command.key = Uuid::from_u128(2);
    assert_eq!(desk.reply(&command, Outcome::succeeded(json!({}))), Some(Ignored::Orphan));
}

#[test]
fn late_success_after_compensation_is_a_fact_and_changes_no_plan() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let charge = desk.expect("payment", Execute);
    desk.silence("payment", Execute);
    let refund = desk.expect("payment", Compensate);
    assert_eq!(desk.reply(&charge, Outcome::succeeded(outputs("payment"))), None);
    desk.ends(Status::Compensating, None);
    desk.reply(&refund, Outcome::succeeded(json!({})));
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
    assert_eq!(desk.reply(&charge, Outcome::succeeded(outputs("payment"))), Some(Ignored::Duplicate));
    assert_eq!(desk.reply(&charge, Outcome::refused("fenced", "")), Some(Ignored::Duplicate));
}

#[test]
fn fenced_after_an_undo_is_no_verdict_about_the_past() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let first = desk.expect("payment", Execute);
    desk.wake();
    desk.wake();
    let second = desk.expect("payment", Execute);
    desk.silence("payment", Execute);
    let refund = desk.expect("payment", Compensate);
    // The first command was executed and undone; the second came after that, and its answer overtakes both others.
    assert_eq!(desk.reply(&second, Outcome::refused("fenced", "")), Some(Ignored::Duplicate));
    assert_eq!(desk.reply(&first, Outcome::succeeded(outputs("payment"))), None);
    assert_eq!(desk.reply(&refund, Outcome::succeeded(json!({}))), None);
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn an_unknown_pivot_is_fenced_and_the_fence_decides() {
    let mut desk = at_pivot();
    desk.silence("confirmation", Execute);
    desk.ends(Status::Running, None);
    desk.answer("confirmation", Compensate, nothing_to_undo());
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_fence_that_finds_the_pivot_executed_commits_and_asks_for_the_output() {
    let mut desk = at_pivot();
    desk.silence("confirmation", Execute);
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    desk.ends(Status::Running, Some(Decision::Committed));
    assert_eq!(desk.expect("confirmation", Execute).attempt, 5);
    desk.succeed("confirmation");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_late_verdict_of_the_pivot_waits_for_its_fence() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    assert_eq!(desk.reply(&confirm, Outcome::succeeded(outputs("confirmation"))), None);
    desk.ends(Status::Running, None);
    desk.reply(&fence, Outcome::refused("already_executed", ""));
    desk.ends(Status::Running, Some(Decision::Committed));
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_pivot_whose_participant_can_undo_is_undone_by_its_fence() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.operate(Action::Cancel).expect("is stored");
    let fence = desk.expect("confirmation", Compensate);
    assert_eq!(desk.reply(&confirm, Outcome::succeeded(outputs("confirmation"))), None);
    desk.ends(Status::Running, None);
    desk.reply(&fence, Outcome::succeeded(json!({})));
    assert_eq!(desk.saga.cancel.as_ref().map(|cancel| cancel.outcome), Some(CancelOutcome::Granted));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_word_against_a_persons_decision_is_kept_beside_the_saga() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.answer("payment", Execute, declined());
    let release = desk.expect("booking", Compensate);
    desk.silence("booking", Compensate);
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    desk.ends(Status::Compensated, Some(Decision::Undone));
    assert_eq!(desk.reply(&release, Outcome::succeeded(json!({}))), Some(Ignored::Overruled));
}

#[test]
fn a_pivot_that_refuses_while_fenced_is_undone() {
    let mut desk = at_pivot();
    let confirm = desk.expect("confirmation", Execute);
    desk.silence("confirmation", Execute);
    let fence = desk.expect("confirmation", Compensate);
    desk.reply(&confirm, Outcome::refused("reservation_expired", ""));
    desk.expect("payment", Compensate);
    assert_eq!(desk.reply(&fence, nothing_to_undo()), None);
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_notice_that_can_not_be_sent_is_stuck_and_never_undoes_a_booking() {
    let mut desk = in_tail();
    let notice = desk.expect("notify", Execute);
    desk.silence("notify", Execute);
    desk.stuck(Cause::AttemptsExhausted, "notify");
    desk.ends(Status::Stuck, Some(Decision::Committed));
    assert_eq!(
        desk.reply(&notice, Outcome::succeeded(outputs("notify"))),
        None,
        "knowledge ends the trouble by itself"
    );
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn a_refusal_in_the_tail_is_stuck_and_its_retry_is_a_new_effect() {
    let mut desk = in_tail();
    let refused = desk.expect("notify", Execute);
    desk.reply(&refused, Outcome::refused("no_such_number", ""));
    desk.stuck(Cause::RefusedAfterPivot, "notify");
    assert_eq!(desk.operate(Action::Retry), Ok(None));
    let again = desk.expect("notify", Execute);
    assert_ne!(again.key, refused.key, "the refusal is sticky under its key");
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn an_undo_without_verdict_is_stuck_and_a_retry_mends_it() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.answer("payment", Execute, declined());
    desk.silence("booking", Compensate);
    assert_eq!(desk.sent.iter().filter(|command| command.verb == Compensate).count(), 12);
    desk.stuck(Cause::CompensationExhausted, "booking");
    assert_eq!(desk.operate(Action::Retry), Ok(None));
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn an_undo_that_is_refused_is_stuck_and_can_be_skipped_or_closed() {
    let refuse = || {
        let mut desk = Desk::booking();
        desk.succeed("booking");
        desk.answer("payment", Execute, declined());
        desk.answer("booking", Compensate, Outcome::refused("already_executed", ""));
        desk.stuck(Cause::CompensationRefused, "booking");
        desk
    };
    let mut desk = refuse();
    assert_eq!(desk.operate(Action::Skip(json!({}))), Ok(None));
    desk.ends(Status::Compensated, Some(Decision::Undone));
    let mut desk = refuse();
    assert_eq!(desk.operate(Action::Close), Ok(None));
    desk.ends(Status::Closed, Some(Decision::Abandoned));
}

#[test]
fn cancel_before_the_pivot_is_granted() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let charge = desk.expect("payment", Execute);
    assert_eq!(desk.operate(Action::Cancel), Ok(None));
    assert_eq!(desk.saga.cancel.as_ref().map(|cancel| cancel.outcome), Some(CancelOutcome::Granted));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
    assert_eq!(desk.reply(&charge, Outcome::refused("fenced", "")), Some(Ignored::Duplicate));
}

#[test]
fn cancel_meets_pivot_and_the_verdict_answers() {
    let meet = || {
        let mut desk = at_pivot();
        desk.operate(Action::Cancel).expect("is stored");
        assert_eq!(desk.saga.cancel.as_ref().map(|cancel| cancel.outcome), Some(CancelOutcome::Pending));
        desk
    };
    let mut desk = meet();
    desk.answer("confirmation", Compensate, nothing_to_undo());
    assert_eq!(desk.saga.cancel.as_ref().map(|cancel| cancel.outcome), Some(CancelOutcome::Granted));
    let mut desk = meet();
    desk.answer("confirmation", Compensate, Outcome::refused("already_executed", ""));
    assert_eq!(desk.saga.cancel.as_ref().map(|cancel| cancel.outcome), Some(CancelOutcome::TooLate));
    desk.ends(Status::Running, Some(Decision::Committed));
}

#[test]
fn a_cancel_of_what_a_person_closes_is_answered() {
    let mut desk = at_pivot();
    desk.operate(Action::Cancel).expect("is stored");
    desk.answer("confirmation", Compensate, Outcome::refused("no", ""));
    desk.stuck(Cause::CompensationRefused, "confirmation");
    desk.operate(Action::Close).expect("is possible");
    desk.ends(Status::Closed, Some(Decision::Abandoned));
    assert_eq!(desk.saga.cancel.as_ref().map(|cancel| cancel.outcome), Some(CancelOutcome::TooLate));
}

#[test]
fn cancel_and_compensate_after_the_pivot_are_turned_down() {
    let mut desk = in_tail();
    for action in [Action::Cancel, Action::Compensate] {
        assert!(matches!(desk.operate(action), Err(Refusal::NotAllowed { .. })));
    }
    desk.ends(Status::Running, Some(Decision::Committed));
}

#[test]
fn nothing_cancels_an_undo() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.answer("payment", Execute, declined());
    assert!(matches!(desk.operate(Action::Cancel), Err(Refusal::NotAllowed { .. })));
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn a_deadline_undoes_like_a_cancel() {
    let mut definition = catalog::booking();
    definition.deadline_ms = Some(10_000);
    let mut desk = Desk::with(definition);
    desk.succeed("booking");
    desk.wake();
    assert_eq!(desk.saga.failure.as_ref().map(|failure| failure.code.as_str()), Some("deadline_passed"));
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn skipping_a_stuck_pivot_commits() {
    let mut desk = at_pivot();
    desk.silence("confirmation", Execute);
    desk.silence("confirmation", Compensate);
    desk.stuck(Cause::CompensationExhausted, "confirmation");
    desk.operate(Action::Skip(json!({"by": "phone"}))).expect("is possible");
    desk.ends(Status::Running, Some(Decision::Committed));
    desk.succeed("notify");
    desk.ends(Status::Completed, Some(Decision::Committed));
}

#[test]
fn closing_after_the_decision_keeps_it() {
    let mut desk = in_tail();
    desk.silence("notify", Execute);
    desk.operate(Action::Close).expect("is possible");
    desk.ends(Status::Closed, Some(Decision::Committed));
}

#[test]
fn operations_are_repeatable_and_checked_against_the_seen_version() {
    let mut desk = in_tail();
    desk.silence("notify", Execute);
    let version = desk.saga.version;
    let operation = |id: u128, digest: &str, expected| {
        Input::Operation(Operation {
            id: Uuid::from_u128(id),
            digest: digest.to_owned(),
            expected_version: Some(expected),
            action: Action::Retry,
        })
    };
    assert_eq!(desk.put(&operation(1, "a", version - 1)), Err(Refusal::Stale { current: version }));
    assert_eq!(desk.put(&operation(1, "a", version)), Ok(None));
    assert_eq!(desk.put(&operation(1, "a", version)), Ok(Some(Ignored::Repeated)));
    assert_eq!(desk.put(&operation(1, "b", version)), Err(Refusal::Reused));
    assert_eq!(desk.put(&operation(2, "a", version)), Err(Refusal::Stale { current: version + 1 }));
}

#[test]
fn a_participant_that_does_not_understand_is_never_taken_for_a_refusal() {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    let charge = desk.expect("payment", Execute);
    desk.reply(&charge, Outcome::refused("contract_violation", "unknown field"));
    desk.stuck(Cause::ContractViolation, "payment");
    assert_eq!(desk.reply(&charge, Outcome::refused("contract_violation", "")), Some(Ignored::Duplicate));
    desk.operate(Action::Compensate).expect("is possible");
    desk.undo("payment");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn an_output_that_lacks_what_the_next_step_needs_is_stuck() {
    let mut desk = Desk::booking();
    desk.answer("booking", Execute, Outcome::succeeded(json!({"appointment_id": "a"})));
    desk.stuck(Cause::PayloadMapping, "payment");
    desk.operate(Action::Compensate).expect("is possible");
    desk.undo("booking");
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn nothing_is_sent_after_the_dedupe_window() {
    let mut definition = catalog::booking();
    definition.dedupe_window_ms = 60_000;
    let mut desk = Desk::with(definition);
    desk.wake();
    desk.now = desk.now.plus_ms(60_000);
    desk.put(&Input::Tick).expect("ticks are never turned down");
    desk.stuck(Cause::DedupeWindowOver, "booking");
    assert_eq!(desk.sent.len(), 1);
}

#[test]
fn what_a_person_undid_is_undone_though_nobody_was_asked() {
    let mut definition = catalog::booking();
    definition.dedupe_window_ms = 60_000;
    let mut desk = Desk::with(definition);
    desk.now = desk.now.plus_ms(60_000);
    desk.operate(Action::Cancel).expect("is possible");
    desk.stuck(Cause::DedupeWindowOver, "booking");
    desk.operate(Action::Skip(json!({}))).expect("is possible");
    assert!(desk.sent.iter().all(|command| command.verb == Execute));
    desk.ends(Status::Compensated, Some(Decision::Undone));
}

#[test]
fn an_early_wake_up_changes_nothing() {
    let mut desk = Desk::booking();
    assert_eq!(desk.put(&Input::Tick), Ok(Some(Ignored::NotDue)));
}
