//! The shape whose effects are rows of the participant's own database: inbox, effects and stored replies of a whole
//! batch in one transaction.
//!
//! Not for anything that leaves the database: see [`crate::external`]. Must hold: what is answered was committed;
//! a `retry` leaves nothing behind; a key that a batch names twice is handled in arrival order; inbox rows that are there
//! are locked before any row of the owner, where they are looked for, new ones are written after all of them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use db::{Db, Transaction};
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::DbErr;
use sea_orm::prelude::Uuid;

use crate::handler::{Handler, Received, Run, rounds};
use crate::inbox::{self, Answer, Decision, State};
use crate::rows::{self, Model, Rows};
use crate::{Error, Transactional, forget_sql};

/// Serves a [`Transactional`] participant over the inbox of its database.
pub struct TransactionalHandler<P> {
    db: Db,
    participant: Arc<P>,
}

impl<P: Transactional> fmt::Debug for TransactionalHandler<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionalHandler({})", self.participant.name())
    }
}

impl<P: Transactional> TransactionalHandler<P> {
    /// A handler over `db`, whose ladder must have the inbox table.
    #[must_use]
    pub fn new(db: Db, participant: P) -> Self {
        Self { db, participant: Arc::new(participant) }
    }

    /// Handles commands in one transaction; one outcome each, in order.
    ///
    /// # Errors
    /// When the database failed; nothing happened then.
    pub async fn apply(&self, commands: &[&Command]) -> Result<Vec<Outcome>, Error> {
        let commands: Arc<[Command]> = commands.iter().map(|command| (*command).clone()).collect();
        let participant = Arc::clone(&self.participant);
        let now = self.db.now();
        let look = !commands.iter().all(|command| inbox::is_news(command, now));
        let answers = rows::transaction(&self.db, look, move |tx, look| {
            let batch = Batch { participant: Arc::clone(&participant), commands: Arc::clone(&commands), now };
            Box::pin(async move { batch.apply(tx, look).await })
        })
        .await?;
        for (_, result) in &answers {
            inbox::count(self.participant.name(), result);
        }
        Ok(answers.into_iter().map(|(outcome, _)| outcome).collect())
    }
}

#[async_trait]
impl<P: Transactional> Handler for TransactionalHandler<P> {
    fn participant(&self) -> &'static str {
        self.participant.name()
    }

    async fn start(&self, _run: &Run) -> Result<(), Error> {
        Ok(())
    }

    async fn handle(&self, run: &Run, batch: &[Received]) -> Result<(), Error> {
        let commands: Vec<&Command> = batch.iter().map(|received| &received.command).collect();
        let outcomes = self.apply(&commands).await?;
        for (received, outcome) in batch.iter().zip(outcomes) {
            run.replies.send(received.command.reply(outcome), received.ticket).await;
        }
        Ok(())
    }

    async fn forget(&self, sagas: &[Uuid]) -> Result<u64, Error> {
        forget_sql::forget(&self.db, self.participant.name(), sagas).await
    }
}

/// An outcome and how it is counted.
type Counted = (Outcome, &'static str);

/// What one transaction is about.
struct Batch<P> {
    participant: Arc<P>,
    commands: Arc<[Command]>,
    now: Timestamp,
}

impl<P: Transactional> Batch<P> {
    async fn apply(&self, tx: &Transaction, look: bool) -> Result<Vec<Counted>, DbErr> {
        let name = self.participant.name();
        let mut rows =
            if look { Rows::lock(tx, name, self.now, &self.commands).await? } else { Rows::unlooked(name, self.now) };
        self.participant.lock(tx, &self.commands.iter().collect::<Vec<_>>()).await?;
        let mut answers: Vec<Option<Counted>> = vec![None; self.commands.len()];
        for positions in rounds(self.commands.iter().map(|command| command.key)) {
            let commands: Vec<&Command> = positions.iter().map(|position| &self.commands[*position]).collect();
            for (position, answer) in positions.iter().zip(self.round(tx, &commands, &mut rows).await?) {
                answers[*position] = Some(answer);
            }
        }
        rows.write(tx).await?;
        if !look {
            // Nothing is written for an effect that was put off, so no key would tell that it had been made before.
            let put_off = |answer: &Option<Counted>| matches!(answer, Some((Outcome::Retry { .. }, _)));
            let asked = self.commands.iter().zip(&answers).filter(|(_, answer)| put_off(answer));
            Rows::must_be_new(tx, asked.map(|(command, _)| command.key).collect()).await?;
        }
        answers.into_iter().map(|answer| answer.ok_or_else(|| bug("a command was in no round"))).collect()
    }

    /// Handles commands with different keys.
    async fn round(&self, tx: &Transaction, commands: &[&Command], rows: &mut Rows) -> Result<Vec<Counted>, DbErr> {
        let mut round = Round { answers: vec![None; commands.len()], rows };
        let (mut executes, mut undos) = (Vec::new(), Vec::new());
        for (position, command) in commands.iter().enumerate() {
            let (known, row) = round.rows.of(command)?;
            let decision = inbox::decide(known, command.verb, self.participant.undoable());
            match decision {
                Decision::Execute if inbox::is_expired(command, self.now) => {
                    // Nothing is made, and nothing is stored.
                    round.answers[position] = Some((inbox::outcome(Answer::Retry, None), inbox::EXPIRED));
                }
                Decision::Execute => executes.push((position, row)),
                Decision::Undo => undos.push((position, row)),
                Decision::Tombstone => round.tombstone(position, row, self.now),
                Decision::RequestUndo => return Err(bug("a transactional effect is never open")),
                Decision::Answer(answer) => {
                    let stored = row.outcome(command.verb)?;
                    let outcome = inbox::outcome(answer, stored.as_ref());
                    round.answers[position] = Some((outcome, inbox::label(decision)));
                }
            }
        }
        // Two slices whatever their order in the batch is: who came behind an undo is told as if it had come before.
        self.run(tx, Verb::Execute, commands, executes, &mut round).await?;
        self.run(tx, Verb::Compensate, commands, undos, &mut round).await?;
        round.answers.into_iter().map(|answer| answer.ok_or_else(|| bug("a command has no answer"))).collect()
    }

    /// Lets the participant make or undo a slice of effects.
    async fn run(
        &self,
        tx: &Transaction,
        verb: Verb,
        commands: &[&Command],
        slice: Vec<(usize, Model)>,
        round: &mut Round<'_>,
    ) -> Result<(), DbErr> {
        if slice.is_empty() {
            return Ok(());
        }
        let asked: Vec<&Command> = slice.iter().map(|(position, _)| commands[*position]).collect();
        let outcomes = match verb {
            Verb::Execute => self.participant.execute(tx, self.now, &asked).await?,
            Verb::Compensate => self.participant.undo(tx, self.now, &asked).await?,
        };
        if outcomes.len() != slice.len() {
            return Err(bug("a participant must give one outcome per command"));
        }
        for ((position, row), outcome) in slice.into_iter().zip(outcomes) {
            round.settle(position, row, verb, outcome, self.now)?;
        }
        Ok(())
    }
}

/// What one round comes to.
struct Round<'a> {
    answers: Vec<Option<Counted>>,
    rows: &'a mut Rows,
}

impl Round<'_> {
    fn tombstone(&mut self, position: usize, mut row: Model, now: Timestamp) {
        row.close(State::Tombstoned, now);
        self.rows.put(row);
        self.answers[position] = Some((inbox::nothing_to_undo(), inbox::label(Decision::Tombstone)));
    }

    fn settle(
        &mut self,
        position: usize,
        mut row: Model,
        verb: Verb,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<(), DbErr> {
        let state = match (verb, &outcome) {
            (Verb::Execute, Outcome::Succeeded { .. }) => Some(State::Executed),
            (Verb::Execute, Outcome::Refused { .. }) => Some(State::Refused),
            (Verb::Compensate, Outcome::Succeeded { .. }) => Some(State::Undone),
            (Verb::Compensate, Outcome::Refused { .. }) => Some(State::UndoRefused),
            (Verb::Execute | Verb::Compensate, Outcome::Retry { .. }) => None,
        };
        let result = match (state, verb) {
            (Some(state), _) => {
                let text = Some(rows::write(&outcome)?);
                match verb {
                    Verb::Execute => row.execute_outcome = text,
                    Verb::Compensate => row.compensate_outcome = text,
                }
                row.close(state, now);
                self.rows.put(row);
                "applied"
            }
            (None, Verb::Execute | Verb::Compensate) => "retry",
        };
        self.answers[position] = Some((outcome, result));
        Ok(())
    }
}

fn bug(what: &'static str) -> DbErr {
    DbErr::Custom(what.to_owned())
}
