//! The participant `booking`: holds a slot of the clinic for a saga, and gives it back.
//!
//! Thin: slots and appointments belong to the library `clinic`, idempotency to the kit. Must hold: slots are locked
//! in the order of their ids, so that two batches never wait for each other in a ring.

use async_trait::async_trait;
use clinic::{Hold, release, reserve};
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

    async fn execute(
        &self,
        tx: &DatabaseTransaction,
        now: Timestamp,
        commands: &[&Command],
    ) -> Result<Vec<Outcome>, DbErr> {
        let unreadable = Outcome::refused(CONTRACT_VIOLATION, "the payload is not one of booking.reserve");
        let mut outcomes = vec![unreadable; commands.len()];
        let mut asked: Vec<(usize, Reserve)> = commands
            .iter()
            .enumerate()
            .filter_map(|(position, command)| Some((position, Reserve::deserialize(&command.payload).ok()?)))
            .collect();
        asked.sort_by_key(|(position, reserve)| (reserve.slot_id, *position));
        for (position, asked) in asked {
            let hold = Hold { key: commands[position].key, saga_id: commands[position].saga_id };
            outcomes[position] = reserve(tx, now, hold, &asked).await?;
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
