//! A random world: a saga at its desk, a network that loses, repeats and reorders, people who press buttons.

use std::collections::{BTreeMap, BTreeSet};

use saga_core::state::Cause;
use saga_core::{Action, Decision, Ignored, Input};
use saga_defs::{Command, Reply, Verb, catalog};
use uuid::Uuid;

use crate::common::{Desk, outputs};
use crate::oracle::{Word, contradict, word};
use crate::participants::Row;

/// What confirming is in a world's definition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Confirming {
    /// The pivot, which its participant can undo.
    Undoable,
    /// The pivot, for ever.
    Final,
    /// A step like the others: there is no pivot, and all can be undone.
    Ordinary,
}

pub(crate) struct World {
    pub(crate) desk: Desk,
    pub(crate) rows: BTreeMap<Uuid, (String, Row)>,
    pub(crate) commands: Vec<Command>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) sent_before: usize,
    pub(crate) transitions_before: usize,
    pub(crate) choices: std::vec::IntoIter<u16>,
    /// A person decided against the participants' word, so effects need not match the end.
    pub(crate) overruled: bool,
    pub(crate) healed: bool,
    pub(crate) confirming: Confirming,
    /// Participants may say what is not so.
    pub(crate) lying: bool,
    /// Paying only checks something, and leaves nothing behind.
    pub(crate) checking: bool,
    /// Words that reached the saga before its end, by step and in their order; no copies of what was known when a step was asked
    /// about anew.
    pub(crate) told: Vec<(String, Word)>,
    /// What had been said of a step, and how many commands had been sent, when a person or the fence asked about it anew.
    pub(crate) anew: BTreeMap<String, (Vec<Word>, usize)>,
    /// Words that reached the saga before its end, by effect, copies and all.
    pub(crate) words: BTreeMap<Uuid, (String, BTreeSet<Word>)>,
    /// Effects of which a word is kept beside the saga, as it contradicts or was overruled.
    pub(crate) kept: BTreeSet<Uuid>,
    pub(crate) plan: Option<Vec<String>>,
    pub(crate) decision: Option<Decision>,
}

impl World {
    pub(crate) fn new(
        choices: Vec<u16>,
        deadline_ms: Option<u64>,
        confirming: Confirming,
        lying: bool,
        checking: bool,
    ) -> Self {
        let mut definition = catalog::booking();
        definition.deadline_ms = deadline_ms;
        for step in &mut definition.steps {
            // Small budgets, so that they run out.
            step.retry.attempts = 2;
            step.compensate_retry.attempts = 2;
            step.pivot &= confirming != Confirming::Ordinary;
            step.without_effect = checking && step.name == "payment";
        }
        let desk = Desk::with(definition);
        let mut world = Self {
            desk,
            rows: BTreeMap::new(),
            commands: Vec::new(),
            replies: Vec::new(),
            sent_before: 0,
            transitions_before: 0,
            choices: choices.into_iter(),
            overruled: false,
            healed: false,
            confirming,
            lying,
            checking,
            told: Vec::new(),
            anew: BTreeMap::new(),
            words: BTreeMap::new(),
            kept: BTreeSet::new(),
            plan: None,
            decision: None,
        };
        world.collect();
        world
    }

    pub(crate) fn choose(&mut self, below: usize) -> usize {
        usize::from(self.choices.next().unwrap_or(0)) % below.max(1)
    }

    pub(crate) fn collect(&mut self) {
        self.note_questions();
        let sent = self.desk.sent[self.sent_before..].to_vec();
        sent.iter().filter(|command| command.verb == Verb::Compensate).for_each(|undo| self.check_undo(undo));
        self.commands.extend(sent);
        self.sent_before = self.desk.sent.len();
    }

    /// One step of a random world.
    pub(crate) fn step(&mut self) {
        match self.choose(12) {
            0..=3 => self.deliver_command(),
            4..=7 => self.deliver_reply(),
            8 => self.lose(),
            9 => self.tick(),
            10 => self.desk.now = self.desk.now.plus_ms(1_000),
            _ => self.press(),
        }
        self.collect();
        self.check();
    }

    pub(crate) fn deliver_command(&mut self) {
        if self.commands.is_empty() {
            return;
        }
        let index = self.choose(self.commands.len());
        let again = !self.healed && self.choose(4) == 0;
        let command = if again { self.commands[index].clone() } else { self.commands.remove(index) };
        let reply = self.participate(&command);
        self.replies.push(reply);
    }

    pub(crate) fn deliver_reply(&mut self) {
        if self.replies.is_empty() {
            return;
        }
        let index = self.choose(self.replies.len());
        let again = !self.healed && self.choose(4) == 0;
        let reply = if again { self.replies[index].clone() } else { self.replies.remove(index) };
        let ended = self.desk.saga.is_ended();
        let command = self.desk.sent.iter().find(|sent| sent.key == reply.key).expect("it was asked");
        if let (false, Some(word)) = (ended, word(&reply).filter(|word| self.is_news(&reply, &command.step, *word))) {
            self.told.push((command.step.clone(), word));
        }
        let (_, words) = self.words.entry(reply.key).or_insert_with(|| (command.step.clone(), BTreeSet::new()));
        let with: BTreeSet<Word> = words.iter().copied().chain(word(&reply)).collect();
        // That it was fenced says no less than a refusal, where it is taken as a word.
        let known = word(&reply) == Some(Word::Refused) && words.contains(&Word::Fenced);
        let against = contradict(&with) && !contradict(words) && !known;
        if !ended {
            *words = with;
        }
        let said = self.desk.put(&Input::Reply(reply.clone())).expect("replies are never turned down");
        if matches!(said, Some(Ignored::LateContradiction | Ignored::Overruled)) {
            self.kept.insert(reply.key);
        }
        // Whatever it did, a copy of it does nothing more.
        let after = self.desk.saga.clone();
        self.desk.put(&Input::Reply(reply.clone())).expect("replies are never turned down");
        assert!(self.desk.saga == after, "a copy of {reply:?} changes something: {:?} {after:?}", self.desk.history);
        // That it is gone fits every end but one that counts on it, which is told all the same.
        if ended && against && word(&reply) != Some(Word::Undone) {
            let kept = [Ignored::LateContradiction, Ignored::LateFact, Ignored::Overruled];
            assert!(said.is_some_and(|said| kept.contains(&said)), "{reply:?} is {said:?}: {:#?}", self.desk.saga);
        }
    }

    pub(crate) fn lose(&mut self) {
        if !self.commands.is_empty() && self.choose(2) == 0 {
            let index = self.choose(self.commands.len());
            self.commands.remove(index);
        } else if !self.replies.is_empty() {
            let index = self.choose(self.replies.len());
            self.replies.remove(index);
        }
    }

    pub(crate) fn tick(&mut self) {
        if let Some(wake) = self.desk.saga.wake_at() {
            self.desk.now = self.desk.now.max(wake);
        }
        self.desk.put(&Input::Tick).expect("ticks are never turned down");
    }

    pub(crate) fn press(&mut self) {
        let stuck = self.desk.saga.stuck.as_ref().map(|stuck| stuck.step.clone());
        let action = match self.choose(12) {
            0..=3 => Action::Retry,
            4 => Action::Compensate,
            5..=7 => Action::Cancel,
            8 => Action::Skip(outputs(&stuck.unwrap_or_default())),
            9 => Action::Close,
            _ => return,
        };
        let overrules = matches!(action, Action::Skip(_) | Action::Close);
        if self.desk.operate(action).is_ok() && overrules {
            self.overruled = true;
        }
    }

    /// Everything works again, and a person retries what is stuck: the saga must end.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        for round in 0..200 {
            if self.desk.saga.is_ended() {
                break;
            }
            if let Some(stuck) = &self.desk.saga.stuck {
                // What was said wrong may never come to agree with what is so; then it is a person's to say.
                let contradicted = stuck.cause == Cause::ContractViolation;
                let given_up = contradicted && (self.overruled || round > 100);
                if given_up || self.desk.operate(Action::Retry).is_err() {
                    assert!(contradicted && (self.overruled || self.lying), "it can be retried: {:#?}", self.desk.saga);
                    self.overruled = true;
                    self.desk.operate(Action::Close).expect("a stuck saga can be closed");
                }
            } else if self.commands.is_empty() && self.replies.is_empty() {
                self.tick();
            }
            self.collect();
            while !self.commands.is_empty() || !self.replies.is_empty() {
                self.deliver_command();
                self.deliver_reply();
                self.collect();
                self.check();
            }
        }
        assert!(self.desk.saga.is_ended(), "a healed world ends: {:#?}", self.desk.saga);
        // Stragglers change nothing any more.
        let before = self.desk.saga.clone();
        for command in self.desk.sent.clone() {
            let reply = self.participate(&command);
            self.desk.put(&Input::Reply(reply)).expect("replies are never turned down");
        }
        assert_eq!(self.desk.saga, before);
        self.check_end();
    }
}
