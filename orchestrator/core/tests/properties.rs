//! Random worlds: participants that keep the contract or contradict themselves, a network that loses, repeats and reorders,
//! people who press buttons. The invariants are checked after every step, and every world must end well once it heals.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Desk, outputs};
use proptest::prelude::*;
use saga_core::event::Event;
use saga_core::state::{Cause, End, Phase};
use saga_core::{Action, Decision, Ignored, Input};
use saga_defs::{Command, Outcome, Reply, Verb, catalog, message};
use serde_json::json;
use uuid::Uuid;

/// A participant's inbox row, as the contract has it.
#[derive(Clone, Debug, PartialEq)]
enum Row {
    Executed,
    Refused,
    Tombstoned,
    Undone,
    /// It stands, and is not undone before somebody has mended what is in the way.
    UndoRefused,
}

/// What a saga was told of an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Succeeded,
    /// There was nothing to undo.
    Nothing,
    Refused,
    AlreadyExecuted,
}

/// What confirming is in a world's definition.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Confirming {
    /// The pivot, which its participant can undo.
    Undoable,
    /// The pivot, for ever.
    Final,
    /// A step like the others: there is no pivot, and all can be undone.
    Ordinary,
}

struct World {
    desk: Desk,
    rows: BTreeMap<Uuid, (String, Row)>,
    commands: Vec<Command>,
    replies: Vec<Reply>,
    sent_before: usize,
    choices: std::vec::IntoIter<u16>,
    /// A person decided against the participants' word, so effects need not match the end.
    overruled: bool,
    healed: bool,
    confirming: Confirming,
    /// Participants may say what is not so.
    lying: bool,
    /// Paying only checks something, and leaves nothing behind.
    checking: bool,
    /// Verdicts that reached the saga before its end, in their order.
    told: Vec<(String, Verb, Verdict)>,
    /// The same by effect, as its participant's words.
    words: BTreeMap<Uuid, (String, BTreeSet<Word>)>,
    /// Effects of which a word is kept beside the saga, as it contradicts or was overruled.
    kept: BTreeSet<Uuid>,
    plan: Option<Vec<String>>,
    decision: Option<Decision>,
}

impl World {
    fn new(choices: Vec<u16>, deadline_ms: Option<u64>, confirming: Confirming, lying: bool, checking: bool) -> Self {
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
            choices: choices.into_iter(),
            overruled: false,
            healed: false,
            confirming,
            lying,
            checking,
            told: Vec::new(),
            words: BTreeMap::new(),
            kept: BTreeSet::new(),
            plan: None,
            decision: None,
        };
        world.collect();
        world
    }

    fn choose(&mut self, below: usize) -> usize {
        usize::from(self.choices.next().unwrap_or(0)) % below.max(1)
    }

    fn collect(&mut self) {
        let sent = self.desk.sent[self.sent_before..].to_vec();
        sent.iter().filter(|command| command.verb == Verb::Compensate).for_each(|undo| self.check_undo(undo));
        self.commands.extend(sent);
        self.sent_before = self.desk.sent.len();
    }

    /// An undo that is sent, whoever lies and whatever a person said: never of a confirmed booking, and never before it is
    /// known that the pivot will not happen.
    fn check_undo(&self, undo: &Command) {
        let saga = &self.desk.saga;
        assert_ne!(saga.decision, Some(Decision::Committed), "{} is undone after the pivot: {saga:#?}", undo.step);
        let is_pivot = |step: &str| step == "confirmation" && self.confirming != Confirming::Ordinary;
        let under_way = self.desk.sent.iter().any(|sent| is_pivot(&sent.step) && sent.verb == Verb::Execute);
        if under_way && !is_pivot(&undo.step) {
            let stopped = |(step, verb, verdict): &(String, Verb, Verdict)| match (verb, verdict) {
                (Verb::Execute, Verdict::Refused) | (Verb::Compensate, Verdict::Succeeded | Verdict::Nothing) => {
                    is_pivot(step)
                }
                (Verb::Execute, Verdict::Succeeded | Verdict::Nothing | Verdict::AlreadyExecuted)
                | (Verb::Compensate, Verdict::Refused | Verdict::AlreadyExecuted) => false,
            };
            let known = self.overruled || self.told.iter().any(stopped);
            assert!(known, "{} is undone while the pivot may still happen: {saga:#?}", undo.step);
        }
    }

    /// One step of a random world.
    fn step(&mut self) {
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

    fn deliver_command(&mut self) {
        if self.commands.is_empty() {
            return;
        }
        let index = self.choose(self.commands.len());
        let again = !self.healed && self.choose(4) == 0;
        let command = if again { self.commands[index].clone() } else { self.commands.remove(index) };
        let reply = self.participate(&command);
        self.replies.push(reply);
    }

    fn deliver_reply(&mut self) {
        if self.replies.is_empty() {
            return;
        }
        let index = self.choose(self.replies.len());
        let again = !self.healed && self.choose(4) == 0;
        let reply = if again { self.replies[index].clone() } else { self.replies.remove(index) };
        let ended = self.desk.saga.is_ended();
        let command = self.desk.sent.iter().find(|sent| sent.key == reply.key).expect("it was asked");
        if let (false, Some(verdict)) = (ended, verdict(&reply.outcome)) {
            self.told.push((command.step.clone(), reply.verb, verdict));
        }
        let (_, words) = self.words.entry(reply.key).or_insert_with(|| (command.step.clone(), BTreeSet::new()));
        let with: BTreeSet<Word> = words.iter().copied().chain(word(&reply)).collect();
        let against = contradict(&with) && !contradict(words);
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

    fn lose(&mut self) {
        if !self.commands.is_empty() && self.choose(2) == 0 {
            let index = self.choose(self.commands.len());
            self.commands.remove(index);
        } else if !self.replies.is_empty() {
            let index = self.choose(self.replies.len());
            self.replies.remove(index);
        }
    }

    fn tick(&mut self) {
        if let Some(wake) = self.desk.saga.wake_at() {
            self.desk.now = self.desk.now.max(wake);
        }
        self.desk.put(&Input::Tick).expect("ticks are never turned down");
    }

    fn press(&mut self) {
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

    /// What a participant answers: the contract's table.
    fn participate(&mut self, command: &Command) -> Reply {
        let undoable = match command.step.as_str() {
            "booking" | "payment" => true,
            "confirmation" => self.confirming != Confirming::Final,
            _ => self.confirming == Confirming::Ordinary,
        };
        if self.lying && !self.healed && self.choose(2) == 0 {
            return self.lie(command);
        }
        let row = self.rows.get(&command.key).map(|(_, row)| row.clone());
        let outcome = match (command.verb, row) {
            (Verb::Execute, None) => self.execute(command),
            (Verb::Execute, Some(Row::Executed | Row::UndoRefused)) => Outcome::succeeded(outputs(&command.step)),
            (Verb::Execute, Some(Row::Refused)) => Outcome::refused("no", ""),
            (Verb::Execute, Some(Row::Tombstoned | Row::Undone)) => Outcome::refused(message::FENCED, ""),
            (Verb::Compensate, None) => {
                self.store(command, Row::Tombstoned);
                nothing()
            }
            (Verb::Compensate, Some(Row::Executed)) if !undoable => Outcome::refused(message::ALREADY_EXECUTED, ""),
            (Verb::Compensate, Some(Row::Executed)) => match self.choose(8) {
                0 | 1 if !self.healed => Outcome::Retry { after_ms: 100 },
                2 if !self.healed => {
                    self.store(command, Row::UndoRefused);
                    Outcome::refused("locked", "")
                }
                _ => {
                    self.store(command, Row::Undone);
                    Outcome::succeeded(json!({}))
                }
            },
            (Verb::Compensate, Some(Row::UndoRefused)) if !self.healed && self.choose(2) == 0 => {
                Outcome::refused("locked", "")
            }
            (Verb::Compensate, Some(Row::UndoRefused)) => {
                self.store(command, Row::Undone);
                Outcome::succeeded(json!({}))
            }
            (Verb::Compensate, Some(Row::Undone)) => Outcome::succeeded(json!({})),
            (Verb::Compensate, Some(Row::Refused | Row::Tombstoned)) => nothing(),
        };
        command.reply(outcome)
    }

    /// Any answer, whatever is so.
    fn lie(&mut self, command: &Command) -> Reply {
        let undo = command.verb == Verb::Compensate;
        command.reply(match self.choose(7) {
            0 => Outcome::succeeded(outputs(&command.step)),
            1 => Outcome::refused("no", ""),
            2 => Outcome::refused(message::FENCED, ""),
            3 if undo => Outcome::refused(message::ALREADY_EXECUTED, ""),
            4 if undo => nothing(),
            5 if !undo => Outcome::refused(message::CONTRACT_VIOLATION, ""),
            _ => Outcome::Retry { after_ms: 100 },
        })
    }

    fn execute(&mut self, command: &Command) -> Outcome {
        match self.choose(8) {
            0 if !self.healed => Outcome::Retry { after_ms: 100 },
            1 | 2 if command.step != "notify" || !self.healed => {
                self.store(command, Row::Refused);
                Outcome::refused("no", "")
            }
            _ => {
                self.store(command, Row::Executed);
                Outcome::succeeded(outputs(&command.step))
            }
        }
    }

    fn store(&mut self, command: &Command, row: Row) {
        self.rows.insert(command.key, (command.step.clone(), row));
    }

    fn stands(&self, step: &str) -> bool {
        self.rows.values().any(|(name, row)| name == step && matches!(row, Row::Executed | Row::UndoRefused))
    }

    fn check(&mut self) {
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

    /// Of an effect that was said to be two things at once, history tells, whatever the saga ended on.
    fn check_told(&self) {
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
                    | Event::Contradicted { step: of, .. }
                    | Event::Late { step: of, .. } if of == step
                )
            };
            let told = self.desk.history.iter().flatten().any(tells);
            assert!(told, "nobody is told of {words:?} of {step}: {:?} {saga:?}", self.desk.history);
        }
    }

    fn check_end(&self) {
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
    fn check_accounts(&self) {
        for step in ["booking", "payment", "confirmation", "notify"] {
            let of_step = |told: &&(String, Verb, Verdict), verb: Verb, verdict: Verdict| {
                told.0 == step && (told.1, told.2) == (verb, verdict)
            };
            let last = |verb: Verb, verdict: Verdict| self.told.iter().rposition(|told| of_step(&told, verb, verdict));
            let (undone, nothing) =
                (last(Verb::Compensate, Verdict::Succeeded), last(Verb::Compensate, Verdict::Nothing));
            let refused = last(Verb::Execute, Verdict::Refused);
            let made = last(Verb::Execute, Verdict::Succeeded);
            let stands = made.max(last(Verb::Compensate, Verdict::AlreadyExecuted));
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

    /// Everything works again, and a person retries what is stuck: the saga must end.
    fn heal(&mut self) {
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

/// What a participant says of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Made,
    Refused,
    Fenced,
    Undone,
    NothingToUndo,
    Stands,
    UndoRefused,
}

fn word(reply: &Reply) -> Option<Word> {
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
fn contradict(words: &BTreeSet<Word>) -> bool {
    use Word::{Made, NothingToUndo, Refused, Stands, UndoRefused, Undone};
    let has = |others: &[Word]| others.iter().any(|word| words.contains(word));
    let refused = has(&[Refused]) && has(&[Made, Undone, Stands, UndoRefused]);
    let nothing = has(&[NothingToUndo]) && !has(&[Undone]) && has(&[Made, Stands, UndoRefused]);
    refused || nothing
}

/// None of what settles nothing.
fn verdict(outcome: &Outcome) -> Option<Verdict> {
    match outcome {
        Outcome::Succeeded { .. } if *outcome == nothing() => Some(Verdict::Nothing),
        Outcome::Succeeded { .. } => Some(Verdict::Succeeded),
        Outcome::Refused { code, .. } if code == message::ALREADY_EXECUTED => Some(Verdict::AlreadyExecuted),
        Outcome::Refused { code, .. } if code == message::CONTRACT_VIOLATION => None,
        Outcome::Refused { .. } => Some(Verdict::Refused),
        Outcome::Retry { .. } => None,
    }
}

fn nothing() -> Outcome {
    Outcome::succeeded(json!({"nothing_to_undo": true}))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_world_keeps_the_invariants_and_ends_once_healed(
        choices in prop::collection::vec(any::<u16>(), 0..300),
        steps in 0_usize..120,
        deadline_ms in prop::option::of(1_000_u64..200_000),
        confirming in prop::sample::select(vec![Confirming::Undoable, Confirming::Final, Confirming::Ordinary]),
        lying in any::<bool>(),
        checking in any::<bool>(),
    ) {
        let mut world = World::new(choices, deadline_ms, confirming, lying, checking);
        for _ in 0..steps {
            world.step();
        }
        world.heal();
    }
}

/// The worlds above are worth something only if they go everywhere.
#[test]
fn random_worlds_reach_every_end() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0_u64..800 {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u16::try_from(state >> 48).expect("sixteen bits")
        };
        let choices = (0..300).map(|_| next()).collect();
        let confirming = if seed.is_multiple_of(2) { Confirming::Undoable } else { Confirming::Final };
        let mut world = World::new(choices, None, confirming, false, false);
        for _ in 0..60 {
            world.step();
            if let Some(stuck) = &world.desk.saga.stuck {
                *seen.entry(format!("stuck {:?}", stuck.cause)).or_default() += 1;
            }
            if world.desk.saga.phase == Phase::Fencing {
                *seen.entry("fencing".to_owned()).or_default() += 1;
            }
        }
        world.heal();
        *seen.entry(format!("{:?} {:?}", world.desk.saga.status(), world.desk.saga.decision)).or_default() += 1;
    }
    println!("reached: {seen:#?}");
    for place in [
        "Completed Some(Committed)",
        "Compensated Some(Refused)",
        "Compensated Some(Undone)",
        "Closed Some(Abandoned)",
        "fencing",
        "stuck AttemptsExhausted",
        "stuck CompensationExhausted",
        "stuck RefusedAfterPivot",
    ] {
        assert!(seen.contains_key(place), "never reached {place}: {seen:#?}");
    }
}
