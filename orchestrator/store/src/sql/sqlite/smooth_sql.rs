//! The commit on SQLite of a batch in which nobody loses, which is nearly every one: there is one process, and it decides on
//! what it committed last.
//!
//! Not for batches with losers: when somebody would not win, the script stops and is rolled back, and
//! [`super::commit_sql`] begins anew. Must hold:
//! - Each saga is found and changed in one look, guarded by its version; that all were is known before anything hangs on it.
//! - A start whose key, or whose business key, is taken runs into the index that keeps it.
//! - Columns with an index are left alone unless they change: SQLite writes an entry anew that is set to what it was. They
//!   change before starts ask for business keys, which ends free.

use std::collections::BTreeSet;

use db::Db;
use uuid::Uuid;

use crate::sql::commit::Plan;
use crate::sql::commit_rows::{Beside, Change, Input, Key, Message, Past, Start};
use crate::sql::set_sql::json;

/// Sagas that exist. `$6` is how many; what is no JSON stops the script, and names `changes()` so that it is not worked out
/// beforehand.
macro_rules! changed {
    () => {
        concat!(
            "
begin immediate;
update sagas set
    format = n.format, decision = n.decision, failure_code = n.failure_code, stuck_cause = n.stuck_cause,
    waiting_on = n.waiting_on, version = n.version, updated_at = n.updated_at, decided_at = n.decided_at,
    state = n.state
from (
    select
        unhex(value ->> 'id') as id, value ->> 'expected' as expected, value ->> 'format' as format,
        value ->> 'decision' as decision, value ->> 'failure_code' as failure_code,
        value ->> 'stuck_cause' as stuck_cause, value ->> 'waiting_on' as waiting_on,
        value ->> 'version' as version, value ->> 'updated_at' as updated_at,
        value ->> 'decided_at' as decided_at, ",
            text!("state"),
            " as state
    from jsonb_each($1)
) as n
where sagas.id = n.id and sagas.version = n.expected;
select 1 where changes() <> cast($6 as integer) and json('another version: ' || changes());
update sagas set
    status = n.status, ended_at = n.ended_at,
    wake_at = case when sagas.wake_at < n.wake_at then sagas.wake_at else n.wake_at end
from (
    select
        unhex(value ->> 'id') as id, value ->> 'status' as status, value ->> 'ended_at' as ended_at,
        value ->> 'wake_at' as wake_at
    from jsonb_each($1)
) as n
where sagas.id = n.id and (
    sagas.status <> n.status or sagas.ended_at is not n.ended_at
    or ((sagas.wake_at < n.wake_at) is not true and sagas.wake_at is not n.wake_at)
);
"
        )
    };
}

/// New sagas.
macro_rules! started {
    () => {
        concat!(
            "
insert into start_keys (tenant, principal, key, saga_id, fingerprint, created_at)
select
    value ->> 'tenant', value ->> 'principal', value ->> 'key', unhex(value ->> 'saga_id'),
    value ->> 'fingerprint', value ->> 'created_at'
from jsonb_each($7);
insert into sagas (
    id, tenant, principal, business_key, definition, definition_version, digest, created_at,
    format, status, decision, failure_code, stuck_cause, waiting_on, version, wake_at,
    updated_at, decided_at, ended_at, state
)
select
    unhex(value ->> 'id'), value ->> 'tenant', value ->> 'principal', value ->> 'business_key',
    value ->> 'definition', value ->> 'definition_version', value ->> 'digest', value ->> 'created_at',
    value ->> 'format', value ->> 'status', value ->> 'decision', value ->> 'failure_code',
    value ->> 'stuck_cause', value ->> 'waiting_on', value ->> 'version', value ->> 'wake_at',
    value ->> 'updated_at', value ->> 'decided_at', value ->> 'ended_at', ",
            text!("state"),
            "
from jsonb_each($8);
insert into saga_inputs (saga_id, body)
select unhex(value ->> 'saga_id'), ",
            text!("body"),
            " from jsonb_each($9);
"
        )
    };
}

/// What hangs on them, and the answer, which comes behind the commit.
macro_rules! written {
    () => {
        concat!(
            "
insert into history (saga_id, seq, at, actor, reason, operation_id, commit_id, format, events)
select
    unhex(value ->> 'saga_id'), value ->> 'seq', value ->> 'at', value ->> 'actor', value ->> 'reason',
    unhex(value ->> 'operation_id'), unhex(value ->> 'commit_id'), value ->> 'format', ",
            text!("events"),
            "
from jsonb_each($2);
insert into outbox (id, participant, body, due_at, attempts, created_at)
select
    unhex(value ->> 'id'), value ->> 'participant', ",
            text!("body"),
            ", value ->> 'due_at', 0, value ->> 'created_at'
from jsonb_each($3);
delete from outbox where id in (select unhex(value) from json_each($5));
commit;
select 1 as committed"
        )
    };
}

/// A batch with starts in it.
const COMMIT: &str = concat!(changed!(), started!(), written!());

/// A batch without.
const CHANGE: &str = concat!(changed!(), written!());

/// Writes a batch; returns its sagas. Refused as a bug when one of them does not win.
pub(super) async fn write(db: &Db, plan: &Plan<'_>) -> Result<BTreeSet<Uuid>, db::Error> {
    let transitions = || plan.in_order.iter().copied();
    let past = || transitions().flat_map(|transition| transition.history.iter().map(move |row| (transition, row)));
    let mut beside = Beside::default();
    let changes: Vec<_> =
        transitions().filter_map(|transition| Change::of(transition, plan.stamp, &mut beside)).collect();
    let past = json(past().map(|(transition, row)| Past::of(transition, row, plan.commit_id, &mut beside)));
    let messages = json(plan.planned.iter().map(|message| Message::of(message, plan.written_at, &mut beside)));
    let mut starting = Vec::new();
    let text = if plan.starts() {
        starting.push(json(transitions().filter_map(Key::of)));
        starting.push(json(transitions().filter_map(|transition| Start::of(transition, plan.stamp, &mut beside))));
        starting.push(json(transitions().filter_map(|transition| Input::of(transition, &mut beside))));
        COMMIT
    } else {
        CHANGE
    };
    let (changed, changes) = (changes.len().to_string(), json(&changes));
    let confirmed = json(plan.confirmed.iter().map(|id| id.simple()));
    let mut sets = vec![changes, past, messages, beside.into_text(), confirmed, changed];
    sets.extend(starting);
    db.sqlite_script(text, sets).await?;
    Ok(transitions().map(|transition| transition.header.id).collect())
}
