//! A participant without a database: the inbox as a map, the effects as a closure. For running whole sagas on one
//! thread in paused time.
//!
//! Not for production: what it knows ends with the process. Must hold: it answers by the same table as the shapes
//! that have a database, and passes the same conformance suite.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use saga_defs::{Command, Outcome, Verb, ids};
use uuid::Uuid;

use crate::Error;
use crate::handler::{Handler, Received, Run};
use crate::inbox::{self, Answer, Decision, Fit, State};

type Behaviour = Box<dyn Fn(&Command) -> Outcome + Send + Sync>;

/// A participant in memory.
pub struct InMemory {
    name: &'static str,
    undoable: bool,
    behaviour: Behaviour,
    rows: Mutex<BTreeMap<Uuid, Row>>,
}

#[derive(Clone, Debug)]
struct Row {
    saga_id: Uuid,
    state: State,
    digest: Option<String>,
    execute: Option<Outcome>,
    compensate: Option<Outcome>,
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InMemory({})", self.name)
    }
}

impl InMemory {
    /// A participant whose effects are what `behaviour` says. It is called only where the effect is to be made (a
    /// command with verb `execute`) or undone (`compensate`), and may answer `Retry`, which stores nothing.
    #[must_use]
    pub fn new(
        name: &'static str,
        undoable: bool,
        behaviour: impl Fn(&Command) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self { name, undoable, behaviour: Box::new(behaviour), rows: Mutex::default() }
    }

    /// What is known of an effect.
    #[must_use]
    pub fn state(&self, key: Uuid) -> Option<State> {
        self.rows().get(&key).map(|row| row.state)
    }

    /// Keys of the effects that stand, in order.
    #[must_use]
    pub fn standing(&self) -> Vec<Uuid> {
        let stands = |row: &Row| match row.state {
            State::Executed | State::UndoRefused => true,
            State::Intent | State::Refused | State::Tombstoned | State::Undoing | State::Undone => false,
        };
        self.rows().iter().filter(|(_, row)| stands(row)).map(|(key, _)| *key).collect()
    }

    /// Handles one command.
    pub fn apply(&self, command: &Command) -> Outcome {
        let mut rows = self.rows();
        let fit = |row: &Row| match (command.verb, &row.digest) {
            (Verb::Execute, Some(digest)) if *digest != ids::digest(&command.payload) => Fit::OtherPayload,
            (Verb::Execute | Verb::Compensate, _) => Fit::Same,
        };
        let known = rows.get(&command.key).map(|row| (row.state, fit(row)));
        let decision = inbox::decide(known, command.verb, self.undoable);
        inbox::count(self.name, inbox::label(decision));
        let saga_id = command.saga_id;
        match decision {
            Decision::Execute => {
                let outcome = (self.behaviour)(command);
                if let Some(state) = settled(&outcome, State::Executed, State::Refused) {
                    let digest = Some(ids::digest(&command.payload));
                    let execute = Some(outcome.clone());
                    rows.insert(command.key, Row { saga_id, state, digest, execute, compensate: None });
                }
                outcome
            }
            Decision::Undo => {
                let outcome = (self.behaviour)(command);
                if let (Some(state), Some(row)) =
                    (settled(&outcome, State::Undone, State::UndoRefused), rows.get_mut(&command.key))
                {
                    row.state = state;
                    row.compensate = Some(outcome.clone());
                }
                outcome
            }
            Decision::Tombstone => {
                let row = Row { saga_id, state: State::Tombstoned, digest: None, execute: None, compensate: None };
                rows.insert(command.key, row);
                inbox::nothing_to_undo()
            }
            // Nothing is ever open in memory: a call is made and settled under one lock.
            Decision::RequestUndo => inbox::outcome(Answer::Retry, None),
            Decision::Answer(answer) => {
                let stored = rows.get(&command.key).and_then(|row| match command.verb {
                    Verb::Execute => row.execute.as_ref(),
                    Verb::Compensate => row.compensate.as_ref(),
                });
                inbox::outcome(answer, stored)
            }
        }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Uuid, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settled(outcome: &Outcome, succeeded: State, refused: State) -> Option<State> {
    match outcome {
        Outcome::Succeeded { .. } => Some(succeeded),
        Outcome::Refused { .. } => Some(refused),
        Outcome::Retry { .. } => None,
    }
}

#[async_trait]
impl Handler for InMemory {
    fn participant(&self) -> &'static str {
        self.name
    }

    async fn start(&self, _run: &Run) -> Result<(), Error> {
        Ok(())
    }

    async fn handle(&self, run: &Run, batch: &[Received]) -> Result<(), Error> {
        for received in batch {
            let outcome = self.apply(&received.command);
            run.replies.send(received.command.reply(outcome), received.ticket).await;
        }
        Ok(())
    }

    async fn forget(&self, sagas: &[Uuid]) -> Result<u64, Error> {
        let mut rows = self.rows();
        let before = rows.len();
        // Nothing is ever open here, and nothing is owed.
        rows.retain(|_, row| !sagas.contains(&row.saga_id));
        Ok((before - rows.len()) as u64)
    }
}
