//! Participants of a random world: they keep the contract's table, or say anything.

use saga_defs::{Command, Outcome, Reply, Verb, message};
use serde_json::json;

use crate::common::outputs;
use crate::oracle::{Word, nothing, word};
use crate::world::{Confirming, World};

/// A participant's inbox row, as the contract has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Row {
    Executed,
    Refused,
    Tombstoned,
    Undone,
    /// It stands, and is not undone before somebody has mended what is in the way.
    UndoRefused,
}

impl World {
    /// What a participant answers: the contract's table.
    pub(crate) fn participate(&mut self, command: &Command) -> Reply {
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
    pub(crate) fn lie(&mut self, command: &Command) -> Reply {
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

    /// Any word, whatever is so, but for `fenced`, which is one only where the saga counts on the effect. Worlds that have nothing
    /// to choose any more say that it was made.
    pub(crate) fn say(&mut self, command: &Command) -> Reply {
        loop {
            let reply = self.lie(command);
            if word(&reply).is_some_and(|word| word != Word::Fenced) {
                return reply;
            }
        }
    }

    pub(crate) fn execute(&mut self, command: &Command) -> Outcome {
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

    pub(crate) fn store(&mut self, command: &Command, row: Row) {
        self.rows.insert(command.key, (command.step.clone(), row));
    }

    pub(crate) fn stands(&self, step: &str) -> bool {
        self.rows.values().any(|(name, row)| name == step && matches!(row, Row::Executed | Row::UndoRefused))
    }
}
