//! The participant contract as a suite, for every shape of participant.
//!
//! Not for what a shape does beyond the contract, such as open calls. Each rule is a function over a [`Harness`] and
//! panics when the rule is broken; [`all`] runs every rule. Rules use keys of their own and can share a harness.

use std::time::Duration;

use async_trait::async_trait;
use saga_defs::message::{ALREADY_EXECUTED, CONTRACT_VIOLATION, FENCED, NOTHING_TO_UNDO, VERSION};
use saga_defs::{Command, Outcome, Timestamp, Verb, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Effect;

/// Most times a command is sent again before a rule gives up waiting for a definite answer.
const ATTEMPTS_MAX: u32 = 400;
/// Wait between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);

/// A participant under test. Its effect answers as the `execute` payload says, see [`scripted`].
#[async_trait]
pub trait Harness: Send + Sync {
    /// The participant's name.
    fn participant(&self) -> &'static str;

    /// Whether the effect can be undone.
    fn undoable(&self) -> bool;

    /// Hands over commands as one batch; the first answer to each, in order.
    async fn send(&self, commands: &[Command]) -> Vec<Outcome>;

    /// Tells it of sagas that have ended; how many rows it forgot.
    async fn forget(&self, sagas: &[Uuid]) -> u64;

    /// How often the effect of `key` was made with success. What was rolled back was not made.
    async fn made(&self, key: Uuid) -> usize;

    /// How often the effect of `key` was undone with success. What was rolled back was not undone.
    async fn undone(&self, key: Uuid) -> usize;
}

/// What a participant under test answers to an `execute`: success with the payload's `n` as output, unless the payload
/// has a `refuse` code, or asks by `retries` to be put off that often first.
#[must_use]
pub fn scripted(payload: &Value, calls_before: u64) -> Outcome {
    if calls_before < payload["retries"].as_u64().unwrap_or(0) {
        return Outcome::Retry { after_ms: 1 };
    }
    match payload["refuse"].as_str() {
        Some(code) => Outcome::refused(code, "as the payload asked"),
        None => Outcome::succeeded(json!({ "n": payload["n"] })),
    }
}

/// A command to `participant`.
#[must_use]
pub fn command(participant: &str, key: Uuid, verb: Verb, attempt: u32, payload: Value) -> Command {
    Command {
        v: VERSION,
        command_id: ids::command_id(key, verb, attempt),
        key,
        saga_id: key,
        tenant: "default".to_owned(),
        definition: "conformance@1".to_owned(),
        step: "step".to_owned(),
        participant: participant.to_owned(),
        verb,
        command: format!("{participant}.{verb}"),
        attempt,
        first_sent_at: Timestamp(0),
        dedupe_until: Timestamp(i64::MAX),
        deadline: Timestamp(i64::MAX),
        payload,
    }
}

/// The first call for a saga's step that is named like its participant.
#[must_use]
pub fn effect(participant: &str, saga_id: Uuid, payload: Value) -> Effect {
    let key = ids::effect_key(saga_id, participant, 0);
    let command = Command { saga_id, ..command(participant, key, Verb::Execute, 1, payload) };
    let provider_key = ids::provider_key(key, Verb::Execute);
    Effect { command, provider_key, provider_ref: None, output: None, interrupted: false, unwanted: false }
}

/// Runs every rule.
pub async fn all(harness: &dyn Harness) {
    an_effect_is_made_once(harness).await;
    a_refusal_is_sticky(harness).await;
    retry_stores_nothing(harness).await;
    another_payload_is_a_violation(harness).await;
    compensate_first_is_a_tombstone(harness).await;
    compensate_after_refusal_finds_nothing(harness).await;
    compensate_after_execute(harness).await;
    one_batch_with_both_verbs(harness).await;
    one_batch_with_both_verbs_the_other_way_round(harness).await;
    one_batch_with_a_command_twice(harness).await;
    neighbours_do_not_disturb_each_other(harness).await;
    what_is_over_is_forgotten_with_its_saga(harness).await;
}

/// One effect under test.
struct Subject<'a> {
    harness: &'a dyn Harness,
    key: Uuid,
}

impl<'a> Subject<'a> {
    fn new(harness: &'a dyn Harness) -> Self {
        Self { harness, key: Uuid::new_v4() }
    }

    fn execute(&self, payload: Value) -> Command {
        command(self.harness.participant(), self.key, Verb::Execute, 1, payload)
    }

    fn compensate(&self) -> Command {
        command(self.harness.participant(), self.key, Verb::Compensate, 1, Value::Null)
    }

    /// Sends a command until its answer is not `retry`.
    async fn settle(&self, mut command: Command) -> Outcome {
        for attempt in 1..=ATTEMPTS_MAX {
            command.attempt = attempt;
            command.command_id = ids::command_id(command.key, command.verb, attempt);
            let outcomes = self.harness.send(std::slice::from_ref(&command)).await;
            match &outcomes[0] {
                Outcome::Retry { .. } => tokio::time::sleep(ATTEMPT_PAUSE).await,
                definite @ (Outcome::Succeeded { .. } | Outcome::Refused { .. }) => return definite.clone(),
            }
        }
        panic!("no definite answer to {command:?} after {ATTEMPTS_MAX} attempts");
    }

    async fn counts(&self) -> (usize, usize) {
        (self.harness.made(self.key).await, self.harness.undone(self.key).await)
    }
}

fn assert_refused(outcome: &Outcome, expected: &str) {
    match outcome {
        Outcome::Refused { code, .. } => assert_eq!(code, expected),
        Outcome::Succeeded { .. } | Outcome::Retry { .. } => panic!("{outcome:?} must refuse with {expected}"),
    }
}

fn assert_nothing_to_undo(outcome: &Outcome) {
    match outcome {
        Outcome::Succeeded { output } => assert_eq!(output[NOTHING_TO_UNDO], json!(true)),
        Outcome::Refused { .. } | Outcome::Retry { .. } => panic!("{outcome:?} must say there was nothing to undo"),
    }
}

fn assert_made(outcome: &Outcome, n: u64) {
    assert_eq!(*outcome, Outcome::succeeded(json!({ "n": n })));
}

/// A repeated `execute` is answered from the inbox.
pub async fn an_effect_is_made_once(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    for _ in 0..3 {
        assert_made(&subject.settle(subject.execute(json!({"n": 7}))).await, 7);
    }
    assert_eq!(subject.counts().await, (1, 0));
}

/// A refusal is stored like a success.
pub async fn a_refusal_is_sticky(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    for _ in 0..2 {
        assert_refused(&subject.settle(subject.execute(json!({"refuse": "sold_out"}))).await, "sold_out");
    }
    assert_eq!(subject.counts().await, (0, 0));
}

/// `retry` speaks of one attempt: a later one succeeds, and `compensate` in between may still fence.
pub async fn retry_stores_nothing(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    let first = harness.send(&[subject.execute(json!({"n": 1, "retries": 1}))]).await;
    assert!(matches!(first[0], Outcome::Retry { .. }), "the script asks for a retry, got {:?}", first[0]);
    assert_made(&subject.settle(subject.execute(json!({"n": 1, "retries": 1}))).await, 1);
    assert_eq!(subject.counts().await, (1, 0));
}

/// The same key with another payload is refused, and what is stored stays.
pub async fn another_payload_is_a_violation(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    assert_made(&subject.settle(subject.execute(json!({"n": 1}))).await, 1);
    assert_refused(&subject.settle(subject.execute(json!({"n": 2}))).await, CONTRACT_VIOLATION);
    assert_made(&subject.settle(subject.execute(json!({"n": 1}))).await, 1);
    assert_eq!(subject.counts().await, (1, 0));
}

/// `compensate` before `execute` fences the effect for ever.
pub async fn compensate_first_is_a_tombstone(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    for _ in 0..2 {
        assert_nothing_to_undo(&subject.settle(subject.compensate()).await);
        assert_refused(&subject.settle(subject.execute(json!({"n": 1}))).await, FENCED);
    }
    assert_eq!(subject.counts().await, (0, 0));
}

/// A refused effect needs no undo.
pub async fn compensate_after_refusal_finds_nothing(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    assert_refused(&subject.settle(subject.execute(json!({"refuse": "sold_out"}))).await, "sold_out");
    assert_nothing_to_undo(&subject.settle(subject.compensate()).await);
    assert_refused(&subject.settle(subject.execute(json!({"refuse": "sold_out"}))).await, "sold_out");
    assert_eq!(subject.counts().await, (0, 0));
}

/// An executed effect is undone once and then fenced; or, where it can't be undone, stands.
pub async fn compensate_after_execute(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    assert_made(&subject.settle(subject.execute(json!({"n": 1}))).await, 1);
    if harness.undoable() {
        let first = subject.settle(subject.compensate()).await;
        assert!(matches!(first, Outcome::Succeeded { .. }), "{first:?}");
        assert_eq!(subject.settle(subject.compensate()).await, first);
        assert_refused(&subject.settle(subject.execute(json!({"n": 1}))).await, FENCED);
        assert_eq!(subject.counts().await, (1, 1));
    } else {
        assert_refused(&subject.settle(subject.compensate()).await, ALREADY_EXECUTED);
        assert_made(&subject.settle(subject.execute(json!({"n": 1}))).await, 1);
        assert_eq!(subject.counts().await, (1, 0));
    }
}

/// `execute` and `compensate` of a key in one batch leave no effect where it can be undone.
pub async fn one_batch_with_both_verbs(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    harness.send(&[subject.execute(json!({"n": 1})), subject.compensate()]).await;
    let last = subject.settle(subject.compensate()).await;
    if harness.undoable() {
        assert!(matches!(last, Outcome::Succeeded { .. }), "{last:?}");
        assert_eq!(subject.counts().await, (1, 1));
    } else {
        assert_refused(&last, ALREADY_EXECUTED);
        assert_eq!(subject.counts().await, (1, 0));
    }
}

/// `compensate` before `execute` in one batch is a tombstone already.
pub async fn one_batch_with_both_verbs_the_other_way_round(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    let outcomes = harness.send(&[subject.compensate(), subject.execute(json!({"n": 1}))]).await;
    assert_nothing_to_undo(&outcomes[0]);
    assert_refused(&outcomes[1], FENCED);
    assert_eq!(subject.counts().await, (0, 0));
}

/// A batch may name a command twice.
pub async fn one_batch_with_a_command_twice(harness: &dyn Harness) {
    let subject = Subject::new(harness);
    let execute = subject.execute(json!({"n": 1}));
    harness.send(&[execute.clone(), execute.clone()]).await;
    assert_made(&subject.settle(execute).await, 1);
    assert_eq!(subject.counts().await, (1, 0));
}

/// Answers come in the order of the commands, each its own.
pub async fn neighbours_do_not_disturb_each_other(harness: &dyn Harness) {
    let (one, two, three) = (Subject::new(harness), Subject::new(harness), Subject::new(harness));
    let outcomes = harness
        .send(&[one.execute(json!({"n": 1})), two.execute(json!({"refuse": "sold_out"})), three.compensate()])
        .await;
    assert_made(&outcomes[0], 1);
    assert_refused(&outcomes[1], "sold_out");
    assert_nothing_to_undo(&outcomes[2]);
    assert_eq!((one.counts().await, two.counts().await, three.counts().await), ((1, 0), (0, 0), (0, 0)));
}

/// Rows that nothing follows go with their sagas, those of other sagas stay.
pub async fn what_is_over_is_forgotten_with_its_saga(harness: &dyn Harness) {
    let subjects: Vec<Subject<'_>> = (0..5).map(|_| Subject::new(harness)).collect();
    let [executed, refused, tombstoned, undone, other] = &subjects[..] else { unreachable!("there are five") };
    for subject in [executed, undone, other] {
        assert_made(&subject.settle(subject.execute(json!({"n": 1}))).await, 1);
    }
    assert_refused(&refused.settle(refused.execute(json!({"refuse": "sold_out"}))).await, "sold_out");
    assert_nothing_to_undo(&tombstoned.settle(tombstoned.compensate()).await);
    undone.settle(undone.compensate()).await;
    // Sagas are named like their effects here.
    let ended = [executed.key, refused.key, tombstoned.key, undone.key, Uuid::new_v4()];
    assert_eq!(harness.forget(&ended).await, 4);
    assert_eq!((harness.forget(&ended).await, harness.forget(&[]).await), (0, 0));
    assert_made(&other.settle(other.execute(json!({"n": 1}))).await, 1);
    assert_eq!(other.counts().await, (1, 0), "it is still known");
    assert_nothing_to_undo(&executed.settle(executed.compensate()).await);
}

/// An effect of which nothing is known is not made after its dedupe window; what is known is still answered. For shapes
/// with a database, which has a clock.
pub async fn an_effect_is_not_made_after_its_window(harness: &dyn Harness) {
    let (known, unknown) = (Subject::new(harness), Subject::new(harness));
    assert_made(&known.settle(known.execute(json!({"n": 1}))).await, 1);
    let late = |subject: &Subject<'_>| Command { dedupe_until: Timestamp(1), ..subject.execute(json!({"n": 1})) };
    let outcomes = harness.send(&[late(&known), late(&unknown)]).await;
    assert_made(&outcomes[0], 1);
    assert!(matches!(outcomes[1], Outcome::Retry { .. }), "{:?}", outcomes[1]);
    assert_eq!((known.counts().await, unknown.counts().await), ((1, 0), (0, 0)));
    assert_nothing_to_undo(&unknown.settle(unknown.compensate()).await);
}
