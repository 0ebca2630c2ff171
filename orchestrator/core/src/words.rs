//! What a participant says of an effect, and what follows for what is known of it.
//!
//! Not for what the saga does then. Must hold: a word stays said until the effect is asked about anew, whatever else is said, so that
//! the order in which words come decides nothing; words that can't all be so are doubt, and never resolved by guessing.
//! The rules are told in `docs/sagas.md`, "What a participant says".

use saga_defs::{Step, Verb, message};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::Fact;
use crate::state::Saga;
use crate::step::{Effect, StepState};

/// What a participant can say of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// It was made.
    Made,
    /// It was not made and never will be.
    Refused,
    /// It was undone.
    Undone,
    /// It was never made and never will be: a tombstone stands.
    NothingToUndo,
    /// It was made, and can't be undone.
    AlreadyExecuted,
    /// It is not undone, which may be mended.
    UndoRefused,
}

impl Word {
    /// Every word.
    pub const ALL: [Self; 6] =
        [Self::Made, Self::Refused, Self::Undone, Self::NothingToUndo, Self::AlreadyExecuted, Self::UndoRefused];

    /// What a verdict says of the effect.
    #[must_use]
    pub fn of(verb: Verb, fact: &Fact) -> Self {
        match (verb, fact) {
            (Verb::Execute, Fact::Succeeded(_)) => Self::Made,
            (Verb::Execute, Fact::Refused(_)) => Self::Refused,
            (Verb::Compensate, Fact::Succeeded(output)) if nothing_to_undo(output) => Self::NothingToUndo,
            (Verb::Compensate, Fact::Succeeded(_)) => Self::Undone,
            (Verb::Compensate, Fact::Refused(code)) if code == message::ALREADY_EXECUTED => Self::AlreadyExecuted,
            (Verb::Compensate, Fact::Refused(_)) => Self::UndoRefused,
        }
    }
}

/// Each says that an effect stands, or did.
const STANDS: [Word; 3] = [Word::Made, Word::AlreadyExecuted, Word::UndoRefused];

/// What a person makes, or asks to be made, is no more refused, and was not undone. That it can't be undone may still be so.
pub(crate) const OF_MAKING: [Word; 4] = [Word::Made, Word::Refused, Word::Undone, Word::NothingToUndo];

/// What the answer to an undo that is asked again takes the place of.
pub(crate) const OF_UNDOING: [Word; 4] = [Word::Undone, Word::NothingToUndo, Word::AlreadyExecuted, Word::UndoRefused];

fn nothing_to_undo(output: &Value) -> bool {
    output.get(message::NOTHING_TO_UNDO).and_then(Value::as_bool).unwrap_or(false)
}

/// What the words about an effect are weighed against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighed {
    /// The saga goes forward or stands, and so counts on what was made.
    pub(crate) counted_on: bool,
    /// The effect is the pivot's: once asked, its fence has the last word.
    pub(crate) pivot: bool,
}

impl Weighed {
    /// For a step of this saga.
    pub(crate) fn of(saga: &Saga, step: &Step) -> Self {
        Self { counted_on: saga.counts_on_effects(), pivot: step.pivot }
    }
}

impl StepState {
    /// Whether its participant said so since it was last asked about anew.
    pub(crate) fn says(&self, word: Word) -> bool {
        let counts = match &self.effect {
            Effect::Succeeded(_) => word == Word::Made,
            Effect::Refused(_) => word == Word::Refused,
            Effect::Unknown | Effect::Skipped(_) => false,
        };
        counts || self.said.contains(&word)
    }

    /// Whether its participant ever said so.
    fn ever_said(&self, word: Word) -> bool {
        self.says(word) || self.before.contains(&word)
    }

    /// Whether it was ever said to be made.
    pub(crate) fn was_made(&self) -> bool {
        self.ever_said(Word::Made)
    }

    /// Whether nothing of it stands, if its participant, or a person, is right.
    pub(crate) fn is_gone(&self) -> bool {
        self.undo_skipped || self.says(Word::Undone) || self.says(Word::NothingToUndo)
    }

    /// Whether nothing stands under its key because it was refused, and was never said to be made or to stand.
    pub(crate) fn is_known_refused(&self) -> bool {
        let stood = STANDS.iter().any(|word| self.ever_said(*word));
        matches!(self.effect, Effect::Refused(_)) && !stood
    }

    /// Whether what was said, and maybe `also`, can't all be true, or speaks against what the saga counts on or a person said.
    /// That an undo was refused may change; what is undone is gone, whatever was said before.
    pub(crate) fn is_in_doubt(&self, weighed: Weighed, also: Option<Word>) -> bool {
        let says = |word| self.says(word) || also == Some(word);
        if self.undo_skipped {
            return false;
        }
        if says(Word::Undone) {
            return weighed.counted_on || says(Word::AlreadyExecuted);
        }
        let stands = STANDS.iter().any(|word| says(*word));
        let stood_before = !weighed.pivot && STANDS.iter().any(|word| self.before.contains(word));
        let made_by_hand = matches!(self.effect, Effect::Skipped(_));
        let not_there = says(Word::NothingToUndo) && (weighed.counted_on || stands || stood_before || made_by_hand);
        not_there || (says(Word::Refused) && stands)
    }

    /// Whether a word says the opposite of what was said of the effect's making, be it gone or not.
    pub(crate) fn is_denied_by(&self, word: Word) -> bool {
        match word {
            Word::Made => self.says(Word::Refused),
            Word::Refused => self.says(Word::Made),
            // To whom the dedupe window is over, nothing is there.
            Word::NothingToUndo | Word::Undone | Word::AlreadyExecuted | Word::UndoRefused => false,
        }
    }

    /// Whether a word that answers `attempt` of `verb` is no news: it is said already, or it is from before the effect was asked
    /// about anew, and was known then. A refusal to undo answers each undo that was sent after the last one.
    pub(crate) fn is_no_news(&self, verb: Verb, attempt: u32, word: Word) -> bool {
        let asked = self.asked(verb);
        let said = match word {
            Word::AlreadyExecuted | Word::UndoRefused => self.says(word) && attempt <= asked.undo_refused,
            Word::Made | Word::Refused | Word::Undone | Word::NothingToUndo => self.says(word),
        };
        said || (self.before.contains(&word) && attempt <= asked.old)
    }

    /// Whether what was known when the effect was asked about anew overtakes a word from before.
    pub(crate) fn is_overtaken(&self, verb: Verb, attempt: u32, word: Word, counted_on: bool) -> bool {
        let before = |words: &[Word]| words.iter().any(|word| self.before.contains(word));
        let overtaken = match word {
            Word::Made => before(&[Word::Undone]) || (counted_on && before(&[Word::NothingToUndo])),
            Word::NothingToUndo => before(&[Word::AlreadyExecuted, Word::UndoRefused]),
            Word::Refused | Word::Undone | Word::AlreadyExecuted | Word::UndoRefused => false,
        };
        overtaken && attempt <= self.asked(verb).old
    }

    /// Whether `fenced`, in answer to `attempt` of `execute`, only says that the command came after an undo. Whether an earlier one
    /// had made the effect is the undo's answer to give: the two may overtake each other. A saga that counts on the effect takes
    /// the word as it is, unless the command left before the undo found the effect made.
    pub(crate) fn is_echo_of_undo(&self, attempt: u32, counted_on: bool) -> bool {
        let found = self.says(Word::AlreadyExecuted) && attempt <= self.execute.undo_refused;
        self.compensate.sent > 0 && (!counted_on || found)
    }

    /// Its participant says that it was made, which counts whatever else is said.
    pub(crate) fn hear_made(&mut self, output: &Value) {
        match &self.effect {
            Effect::Skipped(_) => return self.hear(Word::Made),
            Effect::Refused(_) => self.hear(Word::Refused),
            Effect::Unknown | Effect::Succeeded(_) => {}
        }
        self.effect = Effect::Succeeded(output.clone());
    }

    /// Its participant says that it was not made and never will be.
    pub(crate) fn hear_refused(&mut self, code: &str) {
        match &self.effect {
            Effect::Unknown | Effect::Refused(_) => self.effect = Effect::Refused(code.to_owned()),
            Effect::Succeeded(_) | Effect::Skipped(_) => self.hear(Word::Refused),
        }
    }

    /// Its participant says something besides. What refuses an undo was said of the commands that had left.
    pub(crate) fn hear(&mut self, word: Word) {
        self.said.insert(word);
        if word == Word::AlreadyExecuted {
            self.execute.undo_refused = self.execute.sent;
        }
        if matches!(word, Word::AlreadyExecuted | Word::UndoRefused) {
            self.compensate.undo_refused = self.compensate.sent;
        }
    }

    /// Asks about the effect anew: these words say nothing of what is said from now on.
    pub(crate) fn set_aside(&mut self, words: &[Word]) {
        let known = words.iter().copied().filter(|word| self.says(*word)).collect::<Vec<Word>>();
        if known.is_empty() {
            return;
        }
        if known.iter().any(|word| matches!(word, Word::Made | Word::Refused)) {
            self.effect = Effect::Unknown;
        }
        self.said.retain(|word| !known.contains(word));
        if known.iter().any(|word| OF_MAKING.contains(word)) {
            self.execute.old = self.execute.sent;
        }
        if known.iter().any(|word| OF_UNDOING.contains(word)) {
            self.compensate.old = self.compensate.sent;
        }
        self.before.extend(known);
    }
}
