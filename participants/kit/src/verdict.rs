//! What providers' verdicts do to their effects: recorded as a slice, together with the owner's rows in one
//! transaction, and told to everybody who asked.
//!
//! Not for calling providers: that is [`crate::external`]; nor for who is recorded together: that is
//! [`crate::recorder`]. Must hold: a verdict counts only while its call is open, so that the verdict of a run that was
//! taken over changes nothing twice; whoever records that an effect stands that was to be undone opens the undo in
//! that same transaction; the rows of the whole slice are locked in key order, before any row of the owner is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use db::{Db, Transaction};
use saga_defs::{Command, Outcome, Reply, Timestamp, Verb, ids};
use sea_orm::DbErr;
use uuid::Uuid;

use crate::inbox::{self, OPEN_RETRY_MS, State};
use crate::leases::Lessee;
use crate::rows::{self, Model};
use crate::{Definite, Effect, Error, External, Verdict};

/// Longest wait between two calls for one effect.
const BACKOFF_MAX_MS: u64 = 30_000;
/// Wait after the first call without a definite verdict.
const BACKOFF_MIN_MS: u64 = 500;
/// When a call that broke is made again, at the earliest.
const BROKEN_RETRY_MS: u64 = 5_000;

/// A call to make.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) effect: Effect,
}

/// What recording a verdict came to.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// What the attempt in hand is answered.
    pub(crate) outcome: Outcome,
    /// What is told to attempts that the row remembers and nobody has in hand; the row owes it until it is safe.
    pub(crate) announcing: Vec<Reply>,
    /// The call that follows.
    pub(crate) next: Option<Call>,
}

impl Call {
    /// The call that an open row waits for; `interrupted` says whether a former run may have begun it.
    pub(crate) fn of(row: &Model, interrupted: bool) -> Result<Self, DbErr> {
        let verb = match row.state()? {
            State::Intent => Verb::Execute,
            State::Undoing => Verb::Compensate,
            state @ (State::Executed | State::Refused | State::Tombstoned | State::Undone | State::UndoRefused) => {
                return Err(DbErr::Custom(format!("no call is open in state {}", state.as_str())));
            }
        };
        let command = row.command.as_deref().ok_or_else(|| DbErr::Custom("an open row lacks its command".into()))?;
        let output = match (verb, row.outcome(Verb::Execute)?) {
            (Verb::Compensate, Some(Outcome::Succeeded { output })) => Some(output),
            (Verb::Execute | Verb::Compensate, _) => None,
        };
        let effect = Effect {
            command: rows::read(command)?,
            provider_key: ids::provider_key(row.key, verb),
            provider_ref: row.provider_ref.clone(),
            output,
            interrupted,
            unwanted: verb == Verb::Execute && row.undo_requested,
        };
        Ok(Self { verb, effect })
    }

    /// The state of the row while the call is open.
    pub(crate) fn open_state(&self) -> State {
        match self.verb {
            Verb::Execute => State::Intent,
            Verb::Compensate => State::Undoing,
        }
    }
}

/// A verdict to record.
#[derive(Clone, Debug)]
pub(crate) struct Taught {
    pub(crate) call: Call,
    /// None when the call broke.
    pub(crate) verdict: Option<Verdict>,
    /// The command that is answered with it. Its delivery comes again until the answer is safe, so nothing is owed for
    /// it, unless it came again already.
    pub(crate) in_hand: Option<Uuid>,
}

impl Taught {
    /// The effect's key.
    pub(crate) fn key(&self) -> Uuid {
        self.call.effect.command.key
    }
}

/// Records what calls taught, all of it or nothing; one answer each, in order.
pub(crate) async fn record<P: External>(
    db: &Db,
    participant: &Arc<P>,
    lessee: Lessee,
    taught: Arc<[Arc<Taught>]>,
) -> Result<Vec<Recorded>, Error> {
    let (participant, now) = (Arc::clone(participant), db.now());
    let recorded = db.transaction(move |tx| {
        let (participant, taught) = (Arc::clone(&participant), Arc::clone(&taught));
        Box::pin(async move {
            let clerk = Clerk { lessee, undoable: participant.undoable(), now };
            clerk.record(tx, &*participant, &taught).await
        })
    });
    Ok(recorded.await?)
}

/// Works verdicts into their rows.
struct Clerk {
    lessee: Lessee,
    undoable: bool,
    now: Timestamp,
}

impl Clerk {
    async fn record<P: External>(
        &self,
        tx: &Transaction,
        participant: &P,
        slice: &[Arc<Taught>],
    ) -> Result<Vec<Recorded>, DbErr> {
        let keys: BTreeSet<Uuid> = slice.iter().map(|taught| taught.key()).collect();
        let mut rows: BTreeMap<Uuid, Model> =
            rows::lock(tx, keys).await?.into_iter().map(|row| (row.key, row)).collect();
        let (mut changed, mut definite) = (BTreeSet::new(), Vec::new());
        let mut recorded = Vec::with_capacity(slice.len());
        for taught in slice {
            let Taught { call, verdict, in_hand } = &**taught;
            let Some(row) = rows.get_mut(&taught.key()) else {
                return Err(DbErr::RecordNotFound("the row of an open call".to_owned()));
            };
            // Whatever the slice said of this row before counts already.
            if row.state()? != call.open_state() {
                recorded.push(settled_elsewhere(row, call.verb)?);
                continue;
            }
            changed.insert(taught.key());
            recorded.push(match verdict {
                None => self.put_off(row),
                Some(Verdict::Definite(Outcome::Retry { after_ms })) => self.postpone(row, *after_ms, None),
                Some(Verdict::Unknown { retry_after_ms, provider_ref }) => {
                    self.postpone(row, *retry_after_ms, provider_ref.as_ref())
                }
                Some(Verdict::Definite(outcome)) => {
                    definite.push(Definite { effect: &call.effect, verb: call.verb, outcome });
                    self.settle(row, call.verb, outcome, *in_hand)?
                }
            });
        }
        if !definite.is_empty() {
            participant.record(tx, self.now, &definite).await?;
        }
        let changed: Vec<Model> = rows.into_values().filter(|row| changed.contains(&row.key)).collect();
        rows::save(tx, &changed).await?;
        Ok(recorded)
    }

    /// Nothing was learnt: the call stays open and becomes due again.
    fn postpone(&self, row: &mut Model, retry_after_ms: u64, provider_ref: Option<&String>) -> Recorded {
        // A run that took the call over goes on by itself; only what was learnt of the provider's object is kept.
        if row.owner == Some(self.lessee.owner) {
            row.owner = None;
            row.lease_until = Some(self.now.plus_ms(backoff_ms(row.calls).max(retry_after_ms)).0);
            row.calls = row.calls.saturating_add(1);
        }
        if let Some(provider_ref) = provider_ref {
            row.provider_ref = Some(provider_ref.clone());
        }
        row.updated_at = self.now.0;
        Recorded { outcome: Outcome::Retry { after_ms: retry_after_ms }, announcing: Vec::new(), next: None }
    }

    /// The call broke. As after a crash its lease lapses, so that the next call knows that it was interrupted.
    fn put_off(&self, row: &mut Model) -> Recorded {
        let ours = row.owner;
        let recorded = self.postpone(row, BROKEN_RETRY_MS, None);
        row.owner = ours;
        recorded
    }

    /// A definite verdict.
    fn settle(&self, row: &mut Model, verb: Verb, outcome: &Outcome, in_hand: Option<Uuid>) -> Result<Recorded, DbErr> {
        let mut replies = Vec::new();
        let comes_again = if row.asked_again { None } else { in_hand };
        let text = Some(rows::write(outcome)?);
        match verb {
            Verb::Execute => {
                replies.extend(reply(row.command.as_deref(), outcome)?);
                row.execute_outcome = text;
                self.executed(row, outcome, &mut replies)?;
            }
            Verb::Compensate => {
                replies.extend(reply(row.undo_command.as_deref(), outcome)?);
                row.compensate_outcome = text;
                row.command = None;
                row.undo_command = None;
                let undone = matches!(outcome, Outcome::Succeeded { .. });
                row.close(if undone { State::Undone } else { State::UndoRefused }, self.now);
            }
        }
        replies.retain(|reply| Some(reply.command_id) != comes_again);
        let mut owed = row.announcing()?;
        owed.extend_from_slice(&replies);
        row.announce(&owed)?;
        if !row.is_open() && !owed.is_empty() {
            self.lessee.take(row, self.now);
        }
        let next = if row.is_open() { Some(Call::of(row, false)?) } else { None };
        Ok(Recorded { outcome: outcome.clone(), announcing: replies, next })
    }

    fn executed(&self, row: &mut Model, outcome: &Outcome, replies: &mut Vec<Reply>) -> Result<(), DbErr> {
        let stands = matches!(outcome, Outcome::Succeeded { .. });
        if stands && self.undoable {
            row.strip_command()?;
        } else {
            row.command = None;
        }
        if stands && self.undoable && row.undo_requested {
            row.close(State::Undoing, self.now);
            row.calls = 0;
            self.lessee.take(row, self.now);
            return Ok(());
        }
        if !stands {
            replies.extend(reply(row.undo_command.take().as_deref(), &inbox::nothing_to_undo())?);
        }
        row.close(if stands { State::Executed } else { State::Refused }, self.now);
        Ok(())
    }
}

/// Another run was first, or this one and was not told; the verdict stands. What the row owes is due in time.
fn settled_elsewhere(row: &Model, verb: Verb) -> Result<Recorded, DbErr> {
    let outcome = row.outcome(verb)?.unwrap_or(Outcome::Retry { after_ms: OPEN_RETRY_MS });
    Ok(Recorded { outcome, announcing: Vec::new(), next: None })
}

fn backoff_ms(calls: i32) -> u64 {
    let doublings = u32::try_from(calls).unwrap_or(0).min(16);
    (BACKOFF_MIN_MS << doublings).min(BACKOFF_MAX_MS)
}

fn reply(command: Option<&str>, outcome: &Outcome) -> Result<Option<Reply>, DbErr> {
    let Some(text) = command else { return Ok(None) };
    let command: Command = rows::read(text)?;
    Ok(Some(command.reply(outcome.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_and_is_capped() {
        assert_eq!([0, 1, 2].map(backoff_ms), [500, 1_000, 2_000]);
        assert_eq!(backoff_ms(i32::MAX), BACKOFF_MAX_MS);
    }
}
