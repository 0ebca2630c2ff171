//! The participant `confirmation`: makes a held appointment definite.
//!
//! Thin: appointments belong to the library `clinic`, idempotency to the kit. Must hold: a confirmation is never
//! undone; `compensate` is only a fence.

use async_trait::async_trait;
use clinic::{Held, confirm, lock};
use participant_kit::{Transaction, Transactional};
use saga_defs::contract::confirmation::{CONFIRM, Confirm, NAME};
use saga_defs::contract::read;
use saga_defs::message::ALREADY_EXECUTED;
use saga_defs::{Command, Outcome, Timestamp};
use sea_orm::DbErr;

/// The participant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Confirmation;

#[async_trait]
impl Transactional for Confirmation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn undoable(&self) -> bool {
        false
    }

    async fn lock(&self, tx: &Transaction, commands: &[&Command]) -> Result<(), DbErr> {
        let asked = commands.iter().filter_map(|command| read::<Confirm>(CONFIRM, command).ok());
        lock(tx, [], asked.map(|asked| asked.appointment_id)).await
    }

    async fn execute(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        let held = |command: &&Command| {
            let Confirm { appointment_id } = read(CONFIRM, command)?;
            Ok(Held { appointment_id, saga_id: command.saga_id })
        };
        let asked: Vec<Result<Held, Outcome>> = commands.iter().map(held).collect();
        let mut outcomes = confirm(tx, now, &asked.iter().flatten().copied().collect::<Vec<_>>()).await?.into_iter();
        Ok(asked.into_iter().filter_map(|asked| asked.map_or_else(Some, |_| outcomes.next())).collect())
    }

    async fn undo(&self, _tx: &Transaction, _now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        // The kit never asks for it, because the effect is declared as not undoable.
        Ok(vec![Outcome::refused(ALREADY_EXECUTED, "a confirmation can't be undone"); commands.len()])
    }
}
