//! The participant `booking`: holds a slot of the clinic for a saga, and gives it back.
//!
//! Thin: slots and appointments belong to the library `clinic`, idempotency to the kit. Must hold: every slot of a batch
//! is locked before any is changed, so that two batches never wait for each other in a ring.

use async_trait::async_trait;
use clinic::{Hold, appointments, lock, release, reserve};
use participant_kit::Transactional;
use saga_defs::contract::booking::{NAME, Reserve};
use saga_defs::message::CONTRACT_VIOLATION;
use saga_defs::{Command, Outcome, Timestamp};
use sea_orm::{DatabaseTransaction, DbErr};
use serde::Deserialize as _;

/// The participant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Booking;

#[async_trait]
impl Transactional for Booking {
    fn name(&self) -> &'static str {
        NAME
    }

    fn undoable(&self) -> bool {
        true
    }

    async fn lock(&self, tx: &DatabaseTransaction, commands: &[&Command]) -> Result<(), DbErr> {
        let asked = commands.iter().filter_map(|command| Reserve::deserialize(&command.payload).ok());
        let held = commands.iter().map(|command| appointments::appointment_id(command.key));
        lock(tx, asked.map(|asked| asked.slot_id), held).await
    }

    async fn execute(
        &self,
        tx: &DatabaseTransaction,
        now: Timestamp,
        commands: &[&Command],
    ) -> Result<Vec<Outcome>, DbErr> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            outcomes.push(match Reserve::deserialize(&command.payload) {
                Ok(asked) => reserve(tx, now, Hold { key: command.key, saga_id: command.saga_id }, &asked).await?,
                Err(_) => Outcome::refused(CONTRACT_VIOLATION, "the payload is not one of booking.reserve"),
            });
        }
        Ok(outcomes)
    }

    async fn undo(
        &self,
        tx: &DatabaseTransaction,
        now: Timestamp,
        commands: &[&Command],
    ) -> Result<Vec<Outcome>, DbErr> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            outcomes.push(release(tx, now, command.key).await?);
        }
        Ok(outcomes)
    }
}
