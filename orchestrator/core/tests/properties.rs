//! Random worlds: participants that keep the contract, a network that loses, repeats and reorders, people who press
//! buttons. The invariants are checked after every step, and every world must end well once it heals.

mod common;

use std::collections::BTreeMap;

use common::{Desk, outputs};
use proptest::prelude::*;
use saga_core::state::{Cause, End, Phase};
use saga_core::{Action, Decision, Input};
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
    undoable_pivot: bool,
    plan: Option<Vec<String>>,
    decision: Option<Decision>,
}

impl World {
    fn new(choices: Vec<u16>, deadline_ms: Option<u64>, undoable_pivot: bool) -> Self {
        let mut definition = catalog::booking();
        definition.deadline_ms = deadline_ms;
        for step in &mut definition.steps {
            // Small budgets, so that they run out.
            step.retry.attempts = 2;
            step.compensate_retry.attempts = 2;
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
            undoable_pivot,
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
        self.commands.extend_from_slice(&self.desk.sent[self.sent_before..]);
        self.sent_before = self.desk.sent.len();
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
        self.desk.put(&Input::Reply(reply)).expect("replies are never turned down");
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
        let action = match self.choose(12) {
            0..=3 => Action::Retry,
            4 => Action::Compensate,
            5..=7 => Action::Cancel,
            8 => Action::Skip(json!({"by": "hand"})),
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
            "confirmation" => self.undoable_pivot,
            _ => false,
        };
        let row = self.rows.get(&command.key).map(|(_, row)| row.clone());
        let outcome = match (command.verb, row) {
            (Verb::Execute, None) => self.execute(command),
            (Verb::Execute, Some(Row::Executed)) => Outcome::succeeded(outputs(&command.step)),
            (Verb::Execute, Some(Row::Refused)) => Outcome::refused("no", ""),
            (Verb::Execute, Some(Row::Tombstoned | Row::Undone)) => Outcome::refused(message::FENCED, ""),
            (Verb::Compensate, None) => {
                self.store(command, Row::Tombstoned);
                nothing()
            }
            (Verb::Compensate, Some(Row::Executed)) if !undoable => Outcome::refused(message::ALREADY_EXECUTED, ""),
            (Verb::Compensate, Some(Row::Executed)) => {
                if !self.healed && self.choose(4) == 0 {
                    Outcome::Retry { after_ms: 100 }
                } else {
                    self.store(command, Row::Undone);
                    Outcome::succeeded(json!({}))
                }
            }
            (Verb::Compensate, Some(Row::Undone)) => Outcome::succeeded(json!({})),
            (Verb::Compensate, Some(Row::Refused | Row::Tombstoned)) => nothing(),
        };
        command.reply(outcome)
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
        self.rows.values().any(|(name, row)| name == step && *row == Row::Executed)
    }

    fn check(&mut self) {
        self.desk.check();
        let saga = &self.desk.saga;
        if let Some(decision) = self.decision {
            assert_eq!(saga.decision, Some(decision), "a decision is set once");
        }
        self.decision = saga.decision;
        // A person's word can be against a participant's: then it is right to ask a person again.
        if let Some(stuck) = saga.stuck.as_ref().filter(|_| !self.overruled) {
            assert_ne!(stuck.cause, Cause::ContractViolation, "these participants keep the contract");
        }
        if let Phase::Undoing(plan) = &saga.phase {
            let frozen = self.plan.get_or_insert_with(|| plan.clone());
            assert_eq!(frozen, plan, "the plan is frozen");
        }
        self.check_end();
    }

    fn check_end(&self) {
        let saga = &self.desk.saga;
        if self.overruled {
            return;
        }
        if saga.decision == Some(Decision::Committed) {
            assert!(self.stands("booking") && self.stands("payment") && self.stands("confirmation"));
        }
        match saga.phase {
            Phase::Ended(End::Completed) => assert!(self.stands("notify")),
            Phase::Ended(End::Compensated) => {
                assert!(!self.stands("booking") && !self.stands("payment") && !self.stands("confirmation"));
            }
            Phase::Ended(End::Closed) | Phase::Forward | Phase::Fencing | Phase::Undoing(_) => {}
        }
    }

    /// Everything works again, and a person retries what is stuck: the saga must end.
    fn heal(&mut self) {
        self.healed = true;
        for _ in 0..200 {
            if self.desk.saga.is_ended() {
                break;
            }
            if let Some(stuck) = &self.desk.saga.stuck {
                let contradicted = self.overruled && stuck.cause == Cause::ContractViolation;
                let action = if contradicted { Action::Close } else { Action::Retry };
                self.desk.operate(action).expect("a stuck saga can be retried and closed");
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

fn nothing() -> Outcome {
    Outcome::succeeded(json!({"nothing_to_undo": true}))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_world_keeps_the_invariants_and_ends_once_healed(
        choices in prop::collection::vec(any::<u16>(), 0..300),
        steps in 0_usize..120,
        deadline_ms in prop::option::of(1_000_u64..200_000),
        undoable_pivot in any::<bool>(),
    ) {
        let mut world = World::new(choices, deadline_ms, undoable_pivot);
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
        let mut world = World::new(choices, None, seed.is_multiple_of(2));
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
