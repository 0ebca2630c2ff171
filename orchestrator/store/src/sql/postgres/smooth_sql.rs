//! The commit of several transitions of which nobody loses, which is nearly every one: an instance decides on what it committed
//! last, and rarely do two decide about one saga at a time.
//!
//! Not for batches with losers: when somebody would not win, the statement is stopped and nothing of it stays, and
//! [`super::commit_sql`] begins anew. Must hold:
//! - The answer counts what was done, in order: the commit's own row, which must be the first, sagas, keys, new sagas. Where it
//!   is less than was sent, a division by zero stops the statement. It names no value, as the server writes it to its log.
//! - Each saga is changed where it is found, guarded by its version. A start takes its key unless that is taken or an open saga
//!   has its business key, and is made once all keys are taken. None may end at once: the index of business keys would not tell.
//! - Nobody waits in a circle: sagas are locked in the order of their ids, in which they come, then start keys and business
//!   keys in theirs. No start waits for a saga with its business key that is moving: it asks before it takes its start key.
//! - What the answer does not count comes after it, the last part first: outbox rows are locked last, and rows that nobody can
//!   be in the way of are inserted.
//! - Sagas are found by their ids however small the table was when the server made its plan, as in [`super::commit_sql`].
//! - Sets are opened in the list of what is selected: between `from` and `where` the server would first write each column of a
//!   set to a store of its own, and then put the rows together again.

/// What the server calls the refusal of a batch with losers: division by zero, or a commit whose fate was decided, or a business
/// key that another start was just taking.
pub(super) const LOST: [&str; 2] = ["22012", "23505"];

/// The commit's own row, rows of commits that nobody will ask for, and sagas that exist.
macro_rules! changed {
    () => {
        "
with fate as (
    insert into commit_fates (commit_id, decided_at) values ($1, $3)
    returning 1
), forgotten as (
    delete from commit_fates where commit_id = any($6)
), changed as (
    update sagas set
        format = $5, status = n.status, decision = n.decision, failure_code = n.failure_code,
        stuck_cause = n.stuck_cause, waiting_on = n.waiting_on, version = n.version,
        wake_at = case when sagas.wake_at < n.wake_at then sagas.wake_at else n.wake_at end,
        updated_at = $2, decided_at = n.decided_at, ended_at = n.ended_at, state = n.state
    from (
        select
            unnest($8::uuid[]) as id, unnest($9::bigint[]) as expected, unnest($10::text[]) as status,
            unnest($11::text[]) as decision, unnest($12::text[]) as failure_code, unnest($13::text[]) as stuck_cause,
            unnest($14::text[]) as waiting_on, unnest($15::bigint[]) as version, unnest($16::bigint[]) as wake_at,
            unnest($17::bigint[]) as decided_at, unnest($18::bigint[]) as ended_at, unnest($19::text[]) as state
    ) as n
    where sagas.id = n.id and sagas.version = n.expected and n.expected >= 0 and n.version > n.expected
    returning 1
)"
    };
}

/// New sagas.
macro_rules! started {
    () => {
        ", took as (
    insert into start_keys (tenant, principal, key, saga_id, fingerprint, created_at)
    select n.key_tenant, n.key_principal, n.key, n.id, n.fingerprint, n.created_at from (
        select
            unnest($28::uuid[]) as id, unnest($29::text[]) as tenant, unnest($31::text[]) as business_key,
            unnest($36::text[]) as key_tenant, unnest($37::text[]) as key_principal, unnest($38::text[]) as key,
            unnest($39::text[]) as fingerprint, unnest($35::bigint[]) as created_at
    ) as n
    left join lateral (
        select true as open from sagas
        where sagas.tenant = n.tenant and sagas.business_key = n.business_key and sagas.ended_at is null
        limit 1
    ) as other on true
    where (select count(*) from changed) = cardinality($8) and other.open is null
    order by n.key_tenant, n.key_principal, n.key
    on conflict do nothing
    returning 1
), started as (
    insert into sagas (
        id, tenant, principal, business_key, definition, definition_version, digest, created_at,
        status, decision, failure_code, stuck_cause, waiting_on, version, wake_at, decided_at, ended_at, state,
        format, updated_at
    )
    select n.*, $5, $2 from (
        select
            unnest($28::uuid[]) as id, unnest($29::text[]) as tenant, unnest($30::text[]),
            unnest($31::text[]) as business_key, unnest($32::text[]), unnest($33::integer[]), unnest($34::text[]),
            unnest($35::bigint[]), unnest($41::text[]), unnest($42::text[]), unnest($43::text[]), unnest($44::text[]),
            unnest($45::text[]), unnest($46::bigint[]), unnest($47::bigint[]), unnest($48::bigint[]),
            unnest($49::bigint[]), unnest($50::text[])
    ) as n
    where (select count(*) from took) = cardinality($28)
    order by tenant, business_key, id
    returning 1
), inputs as (
    insert into saga_inputs (saga_id, body) select unnest($28::uuid[]), unnest($40::text[])
)"
    };
}

/// What hangs on them, and the messages that are safe.
macro_rules! written {
    () => {
        ", past as (
    insert into history (saga_id, seq, at, actor, reason, operation_id, commit_id, format, events)
    select
        unnest($20::uuid[]), unnest($21::bigint[]), unnest($22::bigint[]), unnest($23::text[]), unnest($24::text[]),
        unnest($25::uuid[]), $1, unnest($26::integer[]), unnest($27::text[])
), queued as (
    insert into outbox (id, participant, body, due_at, attempts, created_at)
    select unnest($51::uuid[]), unnest($52::text[]), unnest($53::text[]), $4, 0, $3
), confirmed as (
    delete from outbox where id in (select id from outbox where id = any($7) order by id for update)
)
"
    };
}

/// A batch with starts in it.
pub(super) const COMMIT: &str = concat!(
    changed!(),
    started!(),
    written!(),
    "select 1 / case
    when (select count(*) from fate) = 1 and (select count(*) from changed) = cardinality($8)
    and (select count(*) from started) = cardinality($28) then 1
    else 0
end"
);

/// A batch without, with the same arguments.
pub(super) const CHANGE: &str = concat!(
    changed!(),
    written!(),
    "select 1 / case
    when (select count(*) from fate) = 1 and (select count(*) from changed) = cardinality($8) then 1
    else 0
end"
);
