//! The commit of one transition on PostgreSQL, in one statement that commits itself: what a saga that is alone meets.
//!
//! Not for deciding, and not for anything with two of a kind in it: [`super::commit_sql`] commits those. Must hold: it does
//! what the statement over sets does with a set of one. Values instead of sets are most of the difference: the server
//! opens no set, sorts nothing and joins nothing, and begins a third of the parts.

use sea_orm::sqlx::Arguments as _;
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::PgArguments;

use crate::messages::HEAD_START_MS;
use crate::sql::commit::Plan;
use crate::sql::commit_rows::Changing;
use crate::sql::signed;
use crate::{Guard, HistoryRow, OutboxMessage, Transition};

/// The commit's own row.
macro_rules! fate {
    () => {
        "
with fate as (
    insert into commit_fates (commit_id, decided_at) values ($1, $3)
    on conflict do nothing
    returning commit_id
)"
    };
}

/// What hangs on the winner, and the messages that are safe.
macro_rules! written {
    () => {
        "
), past as (
    insert into history (saga_id, seq, at, actor, reason, operation_id, commit_id, format, events)
    select won.id, $18, $19, $20, $21, $22, $1, $23, $24 from won
), queued as (
    insert into outbox (id, participant, body, due_at, attempts, created_at)
    select $25, $26, $27, $4, 0, $3 from won where $25 is not null
), confirmed as (
    delete from outbox where id in (select id from outbox where id = any($6) order by id for update)
)
select id from won"
    };
}

/// A saga that exists.
const CHANGE: &str = concat!(
    fate!(),
    ", won as (
    update sagas set
        format = $5, status = $8, decision = $9, failure_code = $10, stuck_cause = $11, waiting_on = $12,
        version = $13, wake_at = case when sagas.wake_at < $14 then sagas.wake_at else $14 end,
        updated_at = $2, decided_at = $15, ended_at = $16, state = $17
    from fate
    where sagas.id = $7 and sagas.version = $28
    returning sagas.id
",
    written!(),
);

/// A new saga, whose start key is free and whose business key no open saga has.
const START: &str = concat!(
    fate!(),
    ", took as (
    insert into start_keys (tenant, principal, key, saga_id, fingerprint, created_at)
    select $35, $36, $37, $7, $38, $34 from fate
    where not exists (select from sagas where tenant = $28 and business_key = $30 and ended_at is null)
    on conflict do nothing
    returning saga_id
), won as (
    insert into sagas (
        id, tenant, principal, business_key, definition, definition_version, digest, created_at,
        format, status, decision, failure_code, stuck_cause, waiting_on, version, wake_at,
        updated_at, decided_at, ended_at, state
    )
    select
        took.saga_id, $28, $29, $30, $31, $32, $33, $34, $5, $8, $9, $10, $11, $12, $13, $14, $2, $15, $16, $17
    from took
    returning id
), input as (
    insert into saga_inputs (saga_id, body) select won.id, $39 from won
",
    written!(),
);

/// A transition that there is one of everything of.
pub(super) struct One<'a> {
    plan: &'a Plan<'a>,
    transition: &'a Transition,
    past: &'a HistoryRow,
    message: Option<OutboxMessage>,
}

impl<'a> One<'a> {
    /// None when there are several of something.
    pub(super) fn of(plan: &'a Plan<'a>) -> Option<Self> {
        let [transition] = plan.in_order[..] else { return None };
        let [past] = &transition.history[..] else { return None };
        let message = match &plan.planned[..] {
            [] => None,
            [planned] => planned.message(|_| true),
            [..] => return None,
        };
        Some(Self { plan, transition, past, message })
    }

    /// The statement's text.
    pub(super) fn text(&self) -> &'static str {
        match self.transition.guard {
            Guard::Start { .. } => START,
            Guard::Version(_) => CHANGE,
        }
    }

    /// Its arguments, in the order of the numbers in the texts.
    pub(super) fn arguments(&self) -> db::Bound {
        let mut arguments = PgArguments::default();
        arguments.add(self.plan.commit_id)?;
        arguments.add(self.plan.stamp.now.0)?;
        arguments.add(self.plan.written_at.0)?;
        arguments.add(self.plan.written_at.plus_ms(HEAD_START_MS).0)?;
        arguments.add(i32::from(self.plan.stamp.format))?;
        arguments.add(self.plan.confirmed)?;
        self.add_state(&mut arguments)?;
        self.add_past(&mut arguments)?;
        self.add_message(&mut arguments)?;
        self.add_guard(&mut arguments)?;
        Ok(arguments)
    }

    fn add_state(&self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        let row = Changing::of(self.transition, self.plan.stamp);
        arguments.add(self.transition.header.id)?;
        arguments.add(row.status)?;
        arguments.add(row.decision)?;
        arguments.add(row.failure_code)?;
        arguments.add(row.stuck_cause)?;
        arguments.add(row.waiting_on)?;
        arguments.add(signed(row.version))?;
        arguments.add(row.wake_at.map(|at| at.0))?;
        arguments.add(row.decided_at.map(|at| at.0))?;
        arguments.add(row.ended_at.map(|at| at.0))?;
        arguments.add(row.state)
    }

    fn add_past(&self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        arguments.add(signed(self.past.seq))?;
        arguments.add(self.past.at.0)?;
        arguments.add(self.past.actor.as_str())?;
        arguments.add(self.past.reason.as_deref())?;
        arguments.add(self.past.operation_id)?;
        arguments.add(i32::from(self.past.format))?;
        arguments.add(self.past.events.as_str())
    }

    fn add_message(&self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        let message = self.message.as_ref();
        arguments.add(message.map(|message| message.id))?;
        arguments.add(message.map(|message| message.participant.as_str()))?;
        arguments.add(message.map(|message| &*message.body))
    }

    fn add_guard(&self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        let header = &self.transition.header;
        let (start_key, fingerprint, input) = match &self.transition.guard {
            Guard::Version(expected) => return arguments.add(signed(*expected)),
            Guard::Start { start_key, fingerprint, input } => (start_key, fingerprint, input),
        };
        arguments.add(header.tenant.as_str())?;
        arguments.add(header.principal.as_str())?;
        arguments.add(header.key.as_deref())?;
        arguments.add(header.definition.as_str())?;
        arguments.add(header.definition_version.cast_signed())?;
        arguments.add(header.digest.as_str())?;
        arguments.add(header.created_at.0)?;
        arguments.add(start_key.tenant.as_str())?;
        arguments.add(start_key.principal.as_str())?;
        arguments.add(start_key.key.as_str())?;
        arguments.add(fingerprint.as_str())?;
        arguments.add(input.to_string())
    }
}
