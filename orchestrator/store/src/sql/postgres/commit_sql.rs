//! The commit on PostgreSQL: a whole batch in one statement that commits itself.
//!
//! Not for deciding. What there is one of has a shorter text in [`super::one_sql`], and a batch is put to that of
//! [`super::smooth_sql`] first. Must hold, at READ COMMITTED:
//! - All parts of the statement see the database as it was when the statement began; what one part did reaches another
//!   only through `returning`. So history, inputs and messages hang on `won`, and on nothing that was read.
//! - Whoever waits for a row that another one holds sees that row as it is afterwards, and the version is compared again.
//! - Nobody waits in a circle: sagas are locked in the order of their ids, then start keys in their order, then business
//!   keys in theirs. `candidates` counts what changed, so that no key is asked for before that is over; the sorts over
//!   `took` wait for all of it.
//! - The losers' commands are left out of the messages that were laid out for all.
//! - A start whose business key an open saga has never asks for its start key. Only a start that began at the very
//!   same time can still get in between: the unique index stops the statement, nothing of it stays, and the next try
//!   sees that saga. So no start key is ever taken without its saga.
//! - The text is constant and the sets are arrays, which cost less to write and to read than JSON.
//! - Sets are never joined to each other: the server takes them for small and would compare each row with each. Asked
//!   as `(… in (select …)) is true`, it hashes.
//! - Sagas are found by their ids however small the table was when the server made its plan, which it keeps: what is true
//!   of every change makes the server expect few, and so it looks up each, in the order in which they are given.
//! - Outbox rows that are done with are locked last, in the order of their ids.
//! - A change that leaves `wake_at` and `status` alone touches no index (a heap-only update): a timer is only pulled
//!   nearer or taken away.

use std::collections::BTreeSet;

use db::Db;
use sea_orm::sqlx::Row;
use uuid::Uuid;

use super::fates_sql::Fates;
use super::one_sql::One;
use super::{arguments, smooth_sql};
use crate::Error;
use crate::sql::commit::{Messages, Plan};

/// Tries of a statement that met a business key just being taken. Each try sees what stopped the one before.
const TRIES_MAX: u32 = 5;
/// The index that lets one open saga have a business key.
const ONE_OPEN: &str = "sagas_one_open_per_business_key";

/// The commit's own row, and those of commits that nobody will ask for.
macro_rules! fate {
    () => {
        "
with fate as (
    insert into commit_fates (commit_id, decided_at) values ($1, $3)
    on conflict do nothing
    returning commit_id
), forgotten as (
    delete from commit_fates where commit_id = any($6)
"
    };
}

/// Sagas that exist.
macro_rules! changed {
    () => {
        "), due as materialized (
    select n.* from fate cross join unnest(
        $8::uuid[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[],
        $16::bigint[], $17::bigint[], $18::bigint[], $19::text[]
    ) as n (
        id, expected, status, decision, failure_code, stuck_cause, waiting_on, version, wake_at, decided_at, ended_at,
        state
    )
    where n.expected >= 0 and n.version > n.expected
    order by n.id
), changed as (
    update sagas set
        format = $5, status = due.status, decision = due.decision, failure_code = due.failure_code,
        stuck_cause = due.stuck_cause, waiting_on = due.waiting_on, version = due.version,
        wake_at = case when sagas.wake_at < due.wake_at then sagas.wake_at else due.wake_at end,
        updated_at = $2, decided_at = due.decided_at, ended_at = due.ended_at, state = due.state
    from due
    where sagas.id = due.id and sagas.version = due.expected
    returning sagas.id, sagas.ended_at
"
    };
}

/// Messages that are safe.
macro_rules! outbox_done {
    () => {
        "), confirmed as (
    delete from outbox where id in (select id from outbox where id = any($7) order by id for update)
"
    };
}

/// What hangs on the winners.
macro_rules! written {
    () => {
        "), past as (
    insert into history (saga_id, seq, at, actor, reason, operation_id, commit_id, format, events)
    select h.saga_id, h.seq, h.at, h.actor, h.reason, h.operation_id, $1, h.format, h.events
    from unnest(
        $20::uuid[], $21::bigint[], $22::bigint[], $23::text[], $24::text[], $25::uuid[], $26::integer[], $27::text[]
    ) as h (saga_id, seq, at, actor, reason, operation_id, format, events)
    where (h.saga_id in (select id from won)) is true
), queued as (
    insert into outbox (id, participant, body, due_at, attempts, created_at)
    select
        m.id, m.participant,
        case count(*) when 1 then '' else '[' end || string_agg(m.item, ',' order by m.position)
            || case count(*) when 1 then '' else ']' end,
        $4, 0, $3
    from unnest($51::uuid[], $52::text[], $53::uuid[], $54::integer[], $55::text[])
        as m (id, participant, saga_id, position, item)
    where (m.saga_id in (select id from won)) is true
    group by m.id, m.participant
)
select id from won"
    };
}

/// A batch with starts in it.
const COMMIT: &str = concat!(
    fate!(),
    changed!(),
    "), candidates as materialized (
    select n.* from fate cross join unnest(
        $28::uuid[], $29::text[], $30::text[], $31::text[], $32::text[], $33::integer[], $34::text[], $35::bigint[],
        $36::text[], $37::text[], $38::text[], $39::text[], $40::text[], $41::text[], $42::text[], $43::text[],
        $44::text[], $45::text[], $46::bigint[], $47::bigint[], $48::bigint[], $49::bigint[], $50::text[]
    ) as n (
        id, tenant, principal, business_key, definition, definition_version, digest, created_at,
        key_tenant, key_principal, start_key, fingerprint, input, status, decision, failure_code,
        stuck_cause, waiting_on, version, wake_at, decided_at, ended_at, state
    )
    left join lateral (
        select true as open from sagas
        where sagas.tenant = n.tenant and sagas.business_key = n.business_key and sagas.ended_at is null
        and not exists (select from changed where changed.id = sagas.id and changed.ended_at is not null)
        limit 1
    ) as other on true
    where (select count(*) from changed) >= 0 and other.open is null
), took as (
    insert into start_keys (tenant, principal, key, saga_id, fingerprint, created_at)
    select key_tenant, key_principal, start_key, id, fingerprint, created_at from candidates
    order by key_tenant, key_principal, start_key
    on conflict do nothing
    returning saga_id
), started as (
    insert into sagas (
        id, tenant, principal, business_key, definition, definition_version, digest, created_at,
        format, status, decision, failure_code, stuck_cause, waiting_on, version, wake_at,
        updated_at, decided_at, ended_at, state
    )
    select
        c.id, c.tenant, c.principal, c.business_key, c.definition, c.definition_version, c.digest, c.created_at,
        $5, c.status, c.decision, c.failure_code, c.stuck_cause, c.waiting_on, c.version, c.wake_at,
        $2, c.decided_at, c.ended_at, c.state
    from candidates as c
    where (c.id in (select saga_id from took)) is true
    order by c.tenant, c.business_key, c.id
    returning id
",
    outbox_done!(),
    "), won as materialized (
    select id from changed union all select id from started
), inputs as (
    insert into saga_inputs (saga_id, body)
    select c.id, c.input from candidates as c
    where (c.id in (select id from started)) is true
",
    written!(),
);

/// A batch without starts, with the same arguments: the server begins half as many parts, which is most of what a small
/// commit costs.
const CHANGE: &str = concat!(
    fate!(),
    changed!(),
    outbox_done!(),
    "), won as materialized (
    select id from changed
",
    written!(),
);

/// Writes a batch; returns the sagas that won.
pub(in crate::sql) async fn write(db: &Db, fates: &Fates, plan: &Plan<'_>) -> Result<BTreeSet<Uuid>, Error> {
    let forgotten = fates.take();
    match run(db, plan, &forgotten).await {
        Ok(won) => {
            fates.known(plan.commit_id);
            Ok(won)
        }
        Err(error) => {
            fates.give_back(forgotten);
            Err(error)
        }
    }
}

async fn run(db: &Db, plan: &Plan<'_>, forgotten: &[Uuid]) -> Result<BTreeSet<Uuid>, Error> {
    if !plan.longhand
        && forgotten.is_empty()
        && let Some(one) = One::of(plan)
    {
        return find_winners(db, one.text(), || one.arguments()).await;
    }
    if plan.may_be_smooth() {
        let text = if plan.starts() { smooth_sql::COMMIT } else { smooth_sql::CHANGE };
        match db.postgres_statement(text, arguments::commit(plan, forgotten, Messages::Rows)).await {
            Ok(_) => return Ok(plan.in_order.iter().map(|transition| transition.header.id).collect()),
            Err(error @ db::Error::Bug(_)) => {
                if error.refusal_code().is_some_and(|code| smooth_sql::LOST.contains(&code.as_str())) {
                    tracing::debug!(commit_id = %plan.commit_id, "a batch is written the long way");
                } else {
                    // If it is the batch's fault, the longer statement meets it, too.
                    tracing::warn!(error = &error as &dyn std::error::Error, "a batch is written the long way");
                }
                plan.trust.lose();
            }
            Err(error) => return Err(error.into()),
        }
    }
    let text = if plan.starts() { COMMIT } else { CHANGE };
    find_winners(db, text, || arguments::commit(plan, forgotten, Messages::Items)).await
}

/// Runs a statement that answers who won.
async fn find_winners(db: &Db, text: &'static str, arguments: impl Fn() -> db::Bound) -> Result<BTreeSet<Uuid>, Error> {
    let mut tries = 1;
    loop {
        match db.postgres_statement(text, arguments()).await {
            Ok(rows) => return rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(unreadable),
            Err(error) if error.unique_violation() == Some(ONE_OPEN) => match error {
                db::Error::Bug(error) if tries == TRIES_MAX => {
                    return Err(Error::Unavailable(db::Error::Transient(error)));
                }
                _ => tries += 1,
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// The columns have the types they were made with; if not, the commit is there all the same.
fn unreadable(error: sea_orm::sqlx::Error) -> Error {
    Error::UnknownCommit(db::Error::from_driver(error))
}
