//! The inbox table of the participant contract, as a pure function: what a verb means for an effect, given what is
//! known of that effect.
//!
//! Not for storing: rows live in the module `rows`, or in memory. Must hold: every combination has one entry, so that
//! each shape of participant answers alike; nothing here looks at a clock or at a payload.

use saga_defs::message::{ALREADY_EXECUTED, CONTRACT_VIOLATION, FENCED, NOTHING_TO_UNDO};
use saga_defs::{Command, Outcome, Timestamp, Verb};
use serde_json::json;

/// How long a `retry` asks to wait while an external call is open. Generous: when the call is done its reply leaves by
/// itself, and each `retry` uses up an attempt of the saga's step. With four attempts a saga waits three times as long: longer
/// than the lease of a call whose process died, which nobody else makes before.
pub const OPEN_RETRY_MS: u64 = 15_000;

/// What is known of an effect. An effect without a row is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// An external `execute` is under way.
    Intent,
    /// The effect stands.
    Executed,
    /// The effect was refused and never will be.
    Refused,
    /// `compensate` came first: the effect never will be.
    Tombstoned,
    /// An external undo is under way.
    Undoing,
    /// The effect was made and undone.
    Undone,
    /// The effect stands, and its undo was refused for ever.
    UndoRefused,
}

impl State {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Intent, Self::Executed, Self::Refused, Self::Tombstoned, Self::Undoing, Self::Undone, Self::UndoRefused];

    /// The state's name in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Executed => "executed",
            Self::Refused => "refused",
            Self::Tombstoned => "tombstoned",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoRefused => "undo_refused",
        }
    }

    /// Reads the state's name in the table.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// Whether a command fits the row that its key led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Same participant, and the same payload where one is known.
    Same,
    /// Another `execute` payload under the same key.
    OtherPayload,
    /// Another participant's row.
    OtherParticipant,
}

/// What is to be done about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Make the effect.
    Execute,
    /// Undo the effect.
    Undo,
    /// Note that the effect never may be made, and answer that there was nothing to undo.
    Tombstone,
    /// Note that the open call's effect is to be undone, and answer `retry`.
    RequestUndo,
    /// Answer at once; the row stays as it is.
    Answer(Answer),
}

/// An answer that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The stored outcome of this verb.
    Stored,
    /// Success: there is nothing to undo.
    NothingToUndo,
    /// Refusal: the effect was compensated or fenced before.
    Fenced,
    /// Refusal: the effect stands and can't be undone.
    AlreadyExecuted,
    /// Refusal: the key belongs to another payload or participant.
    ContractViolation,
    /// Not now: an external call is open.
    Retry,
}

/// The table: what `verb` means for an effect, given its state and whether the command fits its row, where it has one.
#[must_use]
pub fn decide(known: Option<(State, Fit)>, verb: Verb, undoable: bool) -> Decision {
    let Some((state, fit)) = known else {
        return match verb {
            Verb::Execute => Decision::Execute,
            Verb::Compensate => Decision::Tombstone,
        };
    };
    match (fit, verb) {
        (Fit::OtherParticipant, Verb::Execute | Verb::Compensate) | (Fit::OtherPayload, Verb::Execute) => {
            Decision::Answer(Answer::ContractViolation)
        }
        (Fit::Same, Verb::Execute) => Decision::Answer(execute(state)),
        // A compensation has no payload that could differ.
        (Fit::Same | Fit::OtherPayload, Verb::Compensate) => compensate(state, undoable),
    }
}

fn execute(state: State) -> Answer {
    match state {
        State::Intent => Answer::Retry,
        State::Executed | State::Refused | State::UndoRefused => Answer::Stored,
        State::Tombstoned | State::Undoing | State::Undone => Answer::Fenced,
    }
}

fn compensate(state: State, undoable: bool) -> Decision {
    match state {
        // Where nothing can be undone the verdict alone decides: the next attempt meets it.
        State::Intent if !undoable => Decision::Answer(Answer::Retry),
        State::Intent => Decision::RequestUndo,
        State::Executed if undoable => Decision::Undo,
        State::Executed => Decision::Answer(Answer::AlreadyExecuted),
        State::Refused | State::Tombstoned => Decision::Answer(Answer::NothingToUndo),
        State::Undoing => Decision::Answer(Answer::Retry),
        State::Undone | State::UndoRefused => Decision::Answer(Answer::Stored),
    }
}

/// The outcome that an answer sends. `stored` is the row's outcome of this verb; a row that lacks the one it must
/// have breaks the table's own rules and is reported as such rather than guessed at.
#[must_use]
pub fn outcome(answer: Answer, stored: Option<&Outcome>) -> Outcome {
    match answer {
        Answer::Stored => stored.cloned().unwrap_or_else(|| {
            Outcome::refused(CONTRACT_VIOLATION, "the inbox row of this key holds no outcome of this verb")
        }),
        Answer::NothingToUndo => nothing_to_undo(),
        Answer::Fenced => Outcome::refused(FENCED, "the effect was compensated before"),
        Answer::AlreadyExecuted => Outcome::refused(ALREADY_EXECUTED, "the effect stands and can't be undone"),
        Answer::ContractViolation => {
            Outcome::refused(CONTRACT_VIOLATION, "the key belongs to another payload or participant")
        }
        Answer::Retry => Outcome::Retry { after_ms: OPEN_RETRY_MS },
    }
}

/// The answer to a `compensate` that found no effect.
#[must_use]
pub fn nothing_to_undo() -> Outcome {
    Outcome::succeeded(json!({ NOTHING_TO_UNDO: true }))
}

/// How a command is counted that was put off because others blocked it.
pub(crate) const BLOCKED: &str = "blocked";

/// How a command that came too late to make its effect is counted.
pub const EXPIRED: &str = "expired";

/// Whether an effect of which nothing is known must not be made any more: what was known may have been forgotten since
/// the saga ended. See [`crate::Handler::forget`].
#[must_use]
pub fn is_expired(command: &Command, now: Timestamp) -> bool {
    command.dedupe_until < now
}

/// Whether nothing can be expected to be known of the effect: a first attempt to make it, in time. Only a message that came
/// twice, or an undo that came first, can say otherwise.
#[must_use]
pub fn is_news(command: &Command, now: Timestamp) -> bool {
    match command.verb {
        Verb::Execute => command.attempt == 1 && !is_expired(command, now),
        Verb::Compensate => false,
    }
}

/// How a decision is counted.
#[must_use]
pub fn label(decision: Decision) -> &'static str {
    match decision {
        Decision::Execute | Decision::Undo | Decision::Tombstone => "applied",
        Decision::RequestUndo | Decision::Answer(Answer::Retry) => "open",
        Decision::Answer(Answer::Stored | Answer::NothingToUndo) => "duplicate",
        Decision::Answer(Answer::Fenced | Answer::AlreadyExecuted) => "fenced",
        Decision::Answer(Answer::ContractViolation) => "contract_violation",
    }
}

/// Counts one message of a participant's inbox.
pub(crate) fn count(participant: &'static str, result: &'static str) {
    metrics::counter!("bookend_inbox_messages_total", "participant" => participant, "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: [Verb; 2] = [Verb::Execute, Verb::Compensate];
    const FITS: [Fit; 3] = [Fit::Same, Fit::OtherPayload, Fit::OtherParticipant];

    /// The table once more, as the documentation writes it: rows, then what `execute` answers, what `compensate`
    /// answers where the effect can be undone, and where it can't.
    const TABLE: [(Option<State>, Decision, Decision, Decision); 8] = {
        use Answer::{AlreadyExecuted, Fenced, NothingToUndo, Retry, Stored};
        use Decision::{Answer as Say, Execute, RequestUndo, Tombstone, Undo};
        [
            (None, Execute, Tombstone, Tombstone),
            (Some(State::Intent), Say(Retry), RequestUndo, Say(Retry)),
            (Some(State::Executed), Say(Stored), Undo, Say(AlreadyExecuted)),
            (Some(State::Refused), Say(Stored), Say(NothingToUndo), Say(NothingToUndo)),
            (Some(State::Tombstoned), Say(Fenced), Say(NothingToUndo), Say(NothingToUndo)),
            (Some(State::Undoing), Say(Fenced), Say(Retry), Say(Retry)),
            (Some(State::Undone), Say(Fenced), Say(Stored), Say(Stored)),
            (Some(State::UndoRefused), Say(Stored), Say(Stored), Say(Stored)),
        ]
    };

    fn expected(state: Option<State>, verb: Verb, undoable: bool, fit: Fit) -> Decision {
        let violates = match fit {
            Fit::Same => false,
            Fit::OtherPayload => verb == Verb::Execute,
            Fit::OtherParticipant => true,
        };
        if violates && state.is_some() {
            return Decision::Answer(Answer::ContractViolation);
        }
        let row = TABLE.iter().find(|row| row.0 == state).expect("every state has a row");
        match (verb, undoable) {
            (Verb::Execute, _) => row.1,
            (Verb::Compensate, true) => row.2,
            (Verb::Compensate, false) => row.3,
        }
    }

    #[test]
    fn every_combination_is_decided_as_documented() {
        let mut seen = 0;
        for state in std::iter::once(None).chain(State::ALL.map(Some)) {
            for verb in VERBS {
                for undoable in [true, false] {
                    for fit in FITS {
                        let decision = decide(state.map(|state| (state, fit)), verb, undoable);
                        assert_eq!(
                            decision,
                            expected(state, verb, undoable, fit),
                            "{state:?} {verb} {undoable} {fit:?}"
                        );
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 8 * 2 * 2 * 3);
    }

    #[test]
    fn state_names_lead_back_to_the_state() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("parked"), None);
    }

    #[test]
    fn a_row_without_its_outcome_is_reported_not_guessed() {
        let Outcome::Refused { code, .. } = outcome(Answer::Stored, None) else { panic!("must refuse") };
        assert_eq!(code, CONTRACT_VIOLATION);
    }
}
