//! The arguments of the commit: sets as arrays, one per column.
//!
//! Must hold: the order is that of the numbers in the statement's text; arrays of one set are equally long.

use sea_orm::sqlx::Arguments as _;
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::PgArguments;
use uuid::Uuid;

use crate::messages::{HEAD_START_MS, Planned};
use crate::sql::commit::{Messages, Plan};
use crate::sql::commit_rows::{Changing, Stamp};
use crate::sql::signed;
use crate::{Guard, HistoryRow, OutboxMessage, StartKey, Transition};

/// All arguments of a commit; `forgotten` are commits whose fate everybody knows.
pub(super) fn commit(plan: &Plan<'_>, forgotten: &[Uuid], messages: Messages) -> db::Bound {
    let mut arguments = PgArguments::default();
    arguments.add(plan.commit_id)?;
    arguments.add(plan.stamp.now.0)?;
    arguments.add(plan.written_at.0)?;
    arguments.add(plan.written_at.plus_ms(HEAD_START_MS).0)?;
    arguments.add(i32::from(plan.stamp.format))?;
    arguments.add(forgotten)?;
    arguments.add(plan.confirmed)?;
    let changes: Vec<_> = plan.in_order.iter().filter_map(|next| Some((*next, expected(next)?))).collect();
    column(&mut arguments, &changes, |(transition, _)| transition.header.id)?;
    column(&mut arguments, &changes, |(_, expected)| signed(*expected))?;
    add_states(&mut arguments, changes.iter().map(|(transition, _)| *transition), plan.stamp)?;
    add_history(&mut arguments, &plan.in_order)?;
    let starts: Vec<_> = plan.in_order.iter().filter_map(|next| Some((*next, Born::of(next)?))).collect();
    add_starts(&mut arguments, &starts)?;
    add_states(&mut arguments, starts.iter().map(|(transition, _)| *transition), plan.stamp)?;
    match messages {
        Messages::Rows => add_messages(&mut arguments, &plan.planned)?,
        Messages::Items => add_items(&mut arguments, &plan.planned)?,
    }
    Ok(arguments)
}

/// Adds a column of a set.
fn column<'a, R, T>(arguments: &mut PgArguments, rows: &'a [R], value: impl Fn(&'a R) -> T) -> Result<(), BoxDynError>
where
    Vec<T>: sea_orm::sqlx::Encode<'a, sea_orm::sqlx::Postgres> + sea_orm::sqlx::Type<sea_orm::sqlx::Postgres>,
{
    arguments.add(rows.iter().map(value).collect::<Vec<T>>())
}

/// What only a start brings with it.
struct Born<'a> {
    start_key: &'a StartKey,
    fingerprint: &'a str,
    input: String,
}

impl<'a> Born<'a> {
    /// None for a saga that exists.
    fn of(transition: &'a Transition) -> Option<Self> {
        match &transition.guard {
            Guard::Start { start_key, fingerprint, input } => {
                Some(Self { start_key, fingerprint, input: input.to_string() })
            }
            Guard::Version(_) => None,
        }
    }
}

/// The version that a saga must have; none for a start.
fn expected(transition: &Transition) -> Option<u64> {
    match transition.guard {
        Guard::Start { .. } => None,
        Guard::Version(expected) => Some(expected),
    }
}

/// What stays the same through a saga's life, its start key and its input.
fn add_starts(arguments: &mut PgArguments, starts: &[(&Transition, Born<'_>)]) -> Result<(), BoxDynError> {
    column(arguments, starts, |(next, _)| next.header.id)?;
    column(arguments, starts, |(next, _)| next.header.tenant.as_str())?;
    column(arguments, starts, |(next, _)| next.header.principal.as_str())?;
    column(arguments, starts, |(next, _)| next.header.key.as_deref())?;
    column(arguments, starts, |(next, _)| next.header.definition.as_str())?;
    column(arguments, starts, |(next, _)| next.header.definition_version.cast_signed())?;
    column(arguments, starts, |(next, _)| next.header.digest.as_str())?;
    column(arguments, starts, |(next, _)| next.header.created_at.0)?;
    column(arguments, starts, |(_, born)| born.start_key.tenant.as_str())?;
    column(arguments, starts, |(_, born)| born.start_key.principal.as_str())?;
    column(arguments, starts, |(_, born)| born.start_key.key.as_str())?;
    column(arguments, starts, |(_, born)| born.fingerprint)?;
    column(arguments, starts, |(_, born)| born.input.as_str())
}

/// The columns that every transition changes.
fn add_states<'a>(
    arguments: &mut PgArguments,
    transitions: impl Iterator<Item = &'a Transition>,
    stamp: Stamp,
) -> Result<(), BoxDynError> {
    let rows: Vec<Changing<'_>> = transitions.map(|transition| Changing::of(transition, stamp)).collect();
    column(arguments, &rows, |row| row.status.as_str())?;
    column(arguments, &rows, |row| row.decision.as_deref())?;
    column(arguments, &rows, |row| row.failure_code)?;
    column(arguments, &rows, |row| row.stuck_cause.as_deref())?;
    column(arguments, &rows, |row| row.waiting_on)?;
    column(arguments, &rows, |row| signed(row.version))?;
    column(arguments, &rows, |row| row.wake_at.map(|at| at.0))?;
    column(arguments, &rows, |row| row.decided_at.map(|at| at.0))?;
    column(arguments, &rows, |row| row.ended_at.map(|at| at.0))?;
    column(arguments, &rows, |row| row.state.as_str())
}

fn add_history(arguments: &mut PgArguments, in_order: &[&Transition]) -> Result<(), BoxDynError> {
    let rows: Vec<(Uuid, &HistoryRow)> =
        in_order.iter().flat_map(|next| next.history.iter().map(|row| (next.header.id, row))).collect();
    column(arguments, &rows, |(saga_id, _)| *saga_id)?;
    column(arguments, &rows, |(_, row)| signed(row.seq))?;
    column(arguments, &rows, |(_, row)| row.at.0)?;
    column(arguments, &rows, |(_, row)| row.actor.as_str())?;
    column(arguments, &rows, |(_, row)| row.reason.as_deref())?;
    column(arguments, &rows, |(_, row)| row.operation_id)?;
    column(arguments, &rows, |(_, row)| i32::from(row.format))?;
    column(arguments, &rows, |(_, row)| row.events.as_str())
}

/// Outbox rows, if nobody loses.
fn add_messages(arguments: &mut PgArguments, planned: &[Planned]) -> Result<(), BoxDynError> {
    let rows: Vec<OutboxMessage> = planned.iter().filter_map(|planned| planned.message(|_| true)).collect();
    column(arguments, &rows, |message| message.id)?;
    column(arguments, &rows, |message| message.participant.as_str())?;
    column(arguments, &rows, |message| &*message.body)
}

/// Commands, and the messages they are to lie in.
fn add_items(arguments: &mut PgArguments, planned: &[Planned]) -> Result<(), BoxDynError> {
    let rows: Vec<_> =
        planned.iter().flat_map(|message| message.items.iter().map(move |item| (message, item))).collect();
    column(arguments, &rows, |(message, _)| message.id)?;
    column(arguments, &rows, |(message, _)| message.participant.as_str())?;
    column(arguments, &rows, |(_, (saga_id, _))| *saga_id)?;
    let positions: Vec<i32> = (0..).take(rows.len()).collect();
    arguments.add(positions)?;
    column(arguments, &rows, |(_, (_, item))| item.as_str())
}
