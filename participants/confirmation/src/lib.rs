//! The participant `confirmation`: makes a held appointment definite.
//!
//! Thin: appointments belong to the library `clinic`, idempotency to the kit. Must hold: a confirmation is never
//! undone; `compensate` is only a fence.

use async_trait::async_trait;
use clinic::{Held, confirm, lock};
use participant_kit::Transactional;
use saga_defs::contract::confirmation::{Confirm, NAME};
use saga_defs::message::{ALREADY_EXECUTED, CONTRACT_VIOLATION};
use saga_defs::{Command, Outcome, Timestamp};
use sea_orm::{DatabaseTransaction, DbErr};
use serde::Deserialize as _;

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

    async fn lock(&self, tx: &DatabaseTransaction, commands: &[&Command]) -> Result<(), DbErr> {
        let asked = commands.iter().filter_map(|command| Confirm::deserialize(&command.payload).ok());
        lock(tx, [], asked.map(|asked| asked.appointment_id)).await
    }

    async fn execute(
        &self,
        tx: &DatabaseTransaction,
        now: Timestamp,
        commands: &[&Command],
    ) -> Result<Vec<Outcome>, DbErr> {
        let read = |command: &&Command| {
            let Confirm { appointment_id } = Confirm::deserialize(&command.payload).ok()?;
            Some(Held { appointment_id, saga_id: command.saga_id })
        };
        let asked: Vec<Option<Held>> = commands.iter().map(read).collect();
        let mut outcomes = confirm(tx, now, &asked.iter().flatten().copied().collect::<Vec<_>>()).await?.into_iter();
        let unread = || Outcome::refused(CONTRACT_VIOLATION, "the payload is not one of confirmation.confirm");
        Ok(asked.iter().filter_map(|asked| if asked.is_some() { outcomes.next() } else { Some(unread()) }).collect())
    }

    async fn undo(
        &self,
        _tx: &DatabaseTransaction,
        _now: Timestamp,
        commands: &[&Command],
    ) -> Result<Vec<Outcome>, DbErr> {
        // The kit never asks for it, because the effect is declared as not undoable.
        Ok(vec![Outcome::refused(ALREADY_EXECUTED, "a confirmation can't be undone"); commands.len()])
    }
}
