//! What must hold in every world, found out without the state machine: from what was said, sent and written down.

use std::collections::BTreeSet;

use saga_core::Decision;
use saga_core::event::Event;
use saga_core::state::{Cause, End, Phase};
use saga_defs::{Command, Outcome, Reply, Verb, message};
use serde_json::json;

use crate::world::{Confirming, World};

/// What a participant says of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Word {
    Made,
    Refused,
    Fenced,
    Undone,
    NothingToUndo,
    Stands,
    UndoRefused,
}

pub(crate) fn word(reply: &Reply) -> Option<Word> {
    match (reply.verb, &reply.outcome) {
        (Verb::Execute, Outcome::Succeeded { .. }) => Some(Word::Made),
        (Verb::Execute, Outcome::Refused { code, .. }) if code == message::FENCED => Some(Word::Fenced),
        (Verb::Compensate, outcome) if *outcome == nothing() => Some(Word::NothingToUndo),
        (Verb::Compensate, Outcome::Succeeded { .. }) => Some(Word::Undone),
        (Verb::Compensate, Outcome::Refused { code, .. }) if code == message::ALREADY_EXECUTED => Some(Word::Stands),
        (_, Outcome::Refused { code, .. }) if code == message::CONTRACT_VIOLATION => None,
        (Verb::Execute, Outcome::Refused { .. }) => Some(Word::Refused),
        (Verb::Compensate, Outcome::Refused { .. }) => Some(Word::UndoRefused),
        (_, Outcome::Retry { .. }) => None,
    }
}

/// Whether these can't all be true, in whatever order they were said. That an undo was refused may change.
pub(crate) fn contradict(words: &BTreeSet<Word>) -> bool {
    use Word::{Made, NothingToUndo, Refused, Stands, UndoRefused, Undone};
    let has = |others: &[Word]| others.iter().any(|word| words.contains(word));
    let refused = has(&[Refused]) && has(&[Made, Undone, Stands, UndoRefused]);
    let nothing = has(&[NothingToUndo]) && !has(&[Undone]) && has(&[Made, Stands, UndoRefused]);
    refused || nothing
}

pub(crate) fn nothing() -> Outcome {
    Outcome::succeeded(json!({"nothing_to_undo": true}))
}

impl World {
    pub(crate) fn is_news(&self, reply: &Reply, step: &str, word: Word) -> bool {
        let Some((known, sent)) = self.anew.get(step) else { return true };
        let old = self.desk.sent.iter().take(*sent).any(|command| command.command_id == reply.command_id);
        let was_gone = known.contains(&Word::Undone) || known.contains(&Word::NothingToUndo);
        let not_made = [Word::Refused, Word::Fenced];
        let refused = not_made.contains(&word) && known.iter().any(|word| not_made.contains(word));
        !(old && (known.contains(&word) || refused || (word == Word::Made && was_gone)))
    }

    /// Finds in history where a person, or the pivot's fence, asked about a step anew.
    pub(crate) fn note_questions(&mut self) {
        let sent_in = |events: &Vec<Event>| events.iter().filter(|event| matches!(event, Event::Sent { .. })).count();
        for at in self.transitions_before..self.desk.history.len() {
            let (before, now) = (&self.desk.history[..at], &self.desk.history[at]);
            let sent = before.iter().map(sent_in).sum();
            for event in now {
                if let Event::FenceStarted { step, .. } | Event::Renewed { step, .. } | Event::Skipped { step, .. } =
                    event
                {
                    let said: Vec<Word> =
                        self.told.iter().filter(|(of, _)| of == step).map(|(_, word)| *word).collect();
                    // A question that nothing was said since the last one of is the same question.
                    if self.anew.get(step).is_none_or(|(known, _)| known.len() < said.len()) {
                        self.anew.insert(step.clone(), (said, sent));
                    }
                }
            }
        }
        self.transitions_before = self.desk.history.len();
    }

    pub(crate) fn check(&mut self) {
        self.desk.check();
        let saga = &self.desk.saga;
        if let Some(decision) = self.decision {
            assert_eq!(saga.decision, Some(decision), "a decision is set once");
        }
        self.decision = saga.decision;
        // A person's word can be against a participant's: then it is right to ask a person again.
        if let Some(stuck) = saga.stuck.as_ref().filter(|_| !self.overruled && !self.lying) {
            assert_ne!(stuck.cause, Cause::ContractViolation, "these participants keep the contract");
        }
        if let Phase::Undoing(plan) = &saga.phase {
            let frozen = self.plan.get_or_insert_with(|| plan.clone());
            assert_eq!(frozen, plan, "the plan is frozen");
        }
        self.check_end();
    }

    /// An undo that is sent, whoever lies and whatever a person said: never of a confirmed booking, and never before it is
    /// known that the pivot will not happen.
    pub(crate) fn check_undo(&self, undo: &Command) {
        let saga = &self.desk.saga;
        assert_ne!(saga.decision, Some(Decision::Committed), "{} is undone after the pivot: {saga:#?}", undo.step);
        let is_pivot = |step: &str| step == "confirmation" && self.confirming != Confirming::Ordinary;
        let under_way = self.desk.sent.iter().any(|sent| is_pivot(&sent.step) && sent.verb == Verb::Execute);
        if under_way && !is_pivot(&undo.step) {
            let stopped = |(step, word): &(String, Word)| match word {
                Word::Refused | Word::Fenced | Word::Undone | Word::NothingToUndo => is_pivot(step),
                Word::Made | Word::Stands | Word::UndoRefused => false,
            };
            let known = self.overruled || self.told.iter().any(stopped);
            assert!(known, "{} is undone while the pivot may still happen: {saga:#?}", undo.step);
        }
    }

    /// Of an effect that was said to be two things at once, history tells, whatever the saga ended on.
    pub(crate) fn check_told(&self) {
        let saga = &self.desk.saga;
        if !matches!(saga.phase, Phase::Ended(End::Completed | End::Compensated)) {
            return;
        }
        let unkept = self.words.iter().filter(|(key, _)| !self.kept.contains(*key));
        for (_, (step, words)) in unkept.filter(|(_, (_, words))| contradict(words)) {
            let tells = |event: &Event| {
                matches!(
                    event,
                    Event::Stuck { cause: Cause::ContractViolation | Cause::CompensationRefused, step: of, .. }
                    | Event::Late { step: of, .. } if of == step
                )
            };
            let told = self.desk.history.iter().flatten().any(tells);
            assert!(told, "nobody is told of {words:?} of {step}: {:?} {saga:?}", self.desk.history);
        }
    }

    pub(crate) fn check_end(&self) {
        let saga = &self.desk.saga;
        self.check_told();
        if self.overruled {
            return;
        }
        if self.lying {
            return self.check_accounts();
        }
        if saga.decision == Some(Decision::Committed) {
            assert!(self.stands("booking") && self.stands("payment") && self.stands("confirmation"));
        }
        match saga.phase {
            Phase::Ended(End::Completed) => assert!(self.stands("notify")),
            Phase::Ended(End::Compensated) => {
                assert!(!self.stands("booking") && !self.stands("confirmation"));
                assert!(self.checking || !self.stands("payment"));
                assert!(!self.stands("notify") || self.confirming != Confirming::Ordinary);
            }
            Phase::Ended(End::Closed) | Phase::Forward | Phase::Fencing | Phase::Undoing(_) => {}
        }
    }

    /// What an end says, by what the saga was told before it: of what is compensated every effect was undone, and of what is
    /// completed none was.
    pub(crate) fn check_accounts(&self) {
        for step in ["booking", "payment", "confirmation", "notify"] {
            let last = |word: Word| self.told.iter().rposition(|(of, told)| of == step && *told == word);
            let (undone, nothing) = (last(Word::Undone), last(Word::NothingToUndo));
            let refused = last(Word::Refused).max(last(Word::Fenced));
            let made = last(Word::Made);
            let stands = made.max(last(Word::Stands));
            let right = match self.desk.saga.phase {
                // Of a pivot its fence has the last word.
                Phase::Ended(End::Compensated) if step == "confirmation" => undone.is_some() || stands <= nothing,
                Phase::Ended(End::Compensated) => {
                    undone.is_some() || made.is_none() || (step == "payment" && self.checking)
                }
                Phase::Ended(End::Completed) if step == "notify" => stands.is_some(),
                Phase::Ended(End::Completed) => stands > undone.max(nothing).max(refused),
                Phase::Ended(End::Closed) | Phase::Forward | Phase::Fencing | Phase::Undoing(_) => true,
            };
            assert!(right, "{step} is not as the end says: {:?} {:#?}", self.told, self.desk.saga);
        }
    }
}
