//! The first transaction of external effects: a batch becomes answers, tombstones, and calls that are to be made.
//!
//! Not for making calls. Must hold: a call is handed out only with its intent committed and leased to this run.

use std::sync::Arc;

use db::{Db, Transaction};
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::DbErr;

use crate::Error;
use crate::handler::Received;
use crate::inbox::{self, Answer, Decision, State};
use crate::leases::Lessee;
use crate::rows::{self, Rows};
use crate::verdict::Call;

/// What becomes of one command.
pub(crate) enum Planned {
    /// It is answered at once; and how that is counted.
    Answer(Outcome, &'static str),
    /// A call is to be made for it.
    Call(Box<Call>),
}

/// What a command is answered, and how that is counted.
type Answered = (Outcome, &'static str);

impl Planned {
    /// How the command is counted.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Answer(_, label) => label,
            Self::Call(_) => "applied",
        }
    }
}

/// Writes a batch's intents; one plan per command, in order.
pub(crate) async fn plan(db: &Db, lessee: Lessee, undoable: bool, batch: &[Received]) -> Result<Vec<Planned>, Error> {
    let commands: Arc<[Command]> = batch.iter().map(|received| received.command.clone()).collect();
    let now = db.now();
    let planned = rows::transaction(db, true, move |tx, _| {
        let planner = Planner { lessee, undoable, now, commands: Arc::clone(&commands) };
        Box::pin(async move { planner.plan(tx).await })
    });
    Ok(planned.await?)
}

struct Planner {
    lessee: Lessee,
    undoable: bool,
    now: Timestamp,
    commands: Arc<[Command]>,
}

impl Planner {
    async fn plan(&self, tx: &Transaction) -> Result<Vec<Planned>, DbErr> {
        let mut rows = Rows::lock(tx, self.lessee.participant, self.now, &self.commands).await?;
        // In arrival order: what a command changes, the next one for its key finds.
        let answers: Vec<Option<Answered>> =
            self.commands.iter().map(|command| self.one(command, &mut rows)).collect::<Result<_, _>>()?;
        // Now that all are heard: a later command of the batch may have called off what an earlier one asks for.
        let planned = |(answer, command): (Option<Answered>, &Command)| match answer {
            Some((outcome, label)) => Ok(Planned::Answer(outcome, label)),
            None => Ok(Planned::Call(Box::new(Call::of(&rows.of(command)?.1, false)?))),
        };
        let planned = answers.into_iter().zip(self.commands.iter()).map(planned).collect::<Result<_, DbErr>>()?;
        rows.write(tx).await?;
        Ok(planned)
    }

    /// What is answered at once; none when a call is to be made.
    fn one(&self, command: &Command, rows: &mut Rows) -> Result<Option<Answered>, DbErr> {
        let (known, mut row) = rows.of(command)?;
        if known.is_none() && command.verb == Verb::Execute && inbox::is_expired(command, self.now) {
            // Nothing is made, and nothing is stored.
            return Ok(Some((inbox::outcome(Answer::Retry, None), inbox::EXPIRED)));
        }
        let decision = inbox::decide(known, command.verb, self.undoable);
        let answered = match decision {
            Decision::Execute => {
                row.command = Some(rows::write(command)?);
                self.lessee.take(&mut row, self.now);
                None
            }
            Decision::Undo => {
                row.close(State::Undoing, self.now);
                row.calls = 0;
                row.undo_command = Some(rows::write(command)?);
                self.lessee.take(&mut row, self.now);
                None
            }
            Decision::Tombstone => {
                row.close(State::Tombstoned, self.now);
                Some((inbox::nothing_to_undo(), inbox::label(decision)))
            }
            Decision::RequestUndo => {
                row.undo_requested = true;
                row.undo_command = Some(rows::write(command)?);
                row.updated_at = self.now.0;
                Some((inbox::outcome(Answer::Retry, None), inbox::label(decision)))
            }
            Decision::Answer(answer) => {
                let stored = row.outcome(command.verb)?;
                let answered = Some((inbox::outcome(answer, stored.as_ref()), inbox::label(decision)));
                // It may be the very delivery in hand, given to somebody else: then its answer is nobody's to repeat.
                if answer == Answer::Retry && !row.asked_again {
                    row.asked_again = true;
                    rows.put(row);
                }
                return Ok(answered);
            }
        };
        rows.put(row);
        Ok(answered)
    }
}
