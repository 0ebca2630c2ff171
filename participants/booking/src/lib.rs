//! The participant `booking`: holds a slot of the clinic for a saga, and gives it back.
//!
//! Thin: slots and appointments belong to the library `clinic`, idempotency to the kit. Must hold: every slot of a batch
//! is locked before any is changed, so that two batches never wait for each other in a ring.

use async_trait::async_trait;
use clinic::{Asked, Hold, appointments, lock, release, reserve};
use participant_kit::{Transaction, Transactional};
use saga_defs::contract::booking::{NAME, RESERVE, Reserve};
use saga_defs::contract::read;
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::DbErr;

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

    async fn lock(&self, tx: &Transaction, commands: &[&Command]) -> Result<(), DbErr> {
        let (executes, undos): (Vec<&Command>, Vec<&Command>) =
            commands.iter().copied().partition(|command| command.verb == Verb::Execute);
        let asked = executes.iter().filter_map(|command| read::<Reserve>(RESERVE, command).ok());
        let held = undos.iter().map(|command| appointments::appointment_id(command.key));
        lock(tx, asked.map(|asked| asked.slot_id), held).await
    }

    async fn execute(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        let reserves: Vec<Result<Reserve, Outcome>> = commands.iter().map(|command| read(RESERVE, command)).collect();
        let hold = |command: &Command| Hold { key: command.key, saga_id: command.saga_id };
        let asked = |(command, reserve)| Some(Asked { hold: hold(command), reserve: Result::as_ref(reserve).ok()? });
        let asked: Vec<Asked<'_>> = commands.iter().copied().zip(&reserves).filter_map(asked).collect();
        let mut outcomes = reserve(tx, now, &asked).await?.into_iter();
        Ok(reserves.into_iter().filter_map(|reserve| reserve.map_or_else(Some, |_| outcomes.next())).collect())
    }

    async fn undo(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        release(tx, now, &commands.iter().map(|command| command.key).collect::<Vec<_>>()).await
    }
}
