//! The commit on SQLite: compare-and-swap, starts, history, inputs and outbox of a whole batch in one script.
//!
//! Not for deciding; what most batches are, all of which win, has a shorter script in [`super::smooth_sql`]. Must hold:
//! - The script is one message to SQLite's thread and one answer: a thread that is woken costs more than a statement.
//! - Who wins is found before anything is changed for it, in `won`; history, inputs and messages hang on that. There is one
//!   writer, so that what was found stays so until the end.
//! - Ends free business keys before starts ask for them; no start key is ever taken without its saga.
//! - `won` is a table of the connection, kept in memory. It outlives the commit, because who won is said behind it: in one
//!   row, since SQLite's thread would wake whoever waits for each row, and do so before the commit.
//! - Parameters are named `$1` to `$8`, which SQLite numbers in each statement by itself: with `?2` alone a statement would
//!   have two, and the driver would give it both.
//!
//! Each set is opened by `jsonb_each`, of which reading a member costs a third less of a commit than of `json_each`, which
//! writes each row out as text for every member that is read. Long texts lie beside the sets, in `$4`.

use std::collections::BTreeSet;

use db::Db;
use sea_orm::sqlx::Row;
use uuid::Uuid;

use super::smooth_sql;
use crate::Error;
use crate::sql::commit::Plan;
use crate::sql::commit_rows::{Beside, Change, Input, Item, Key, Past, Start};
use crate::sql::set_sql::json;

/// Sagas that exist.
macro_rules! changed {
    () => {
        concat!(
            "
create temp table if not exists won (id blob primary key) without rowid;
begin immediate;
delete from temp.won;
insert into temp.won
select s.id from jsonb_each($1) as n
join sagas as s on s.id = unhex(n.value ->> 'id') and s.version = n.value ->> 'expected';
update sagas set
    format = n.format, status = n.status, decision = n.decision, failure_code = n.failure_code,
    stuck_cause = n.stuck_cause, waiting_on = n.waiting_on, version = n.version,
    wake_at = case when sagas.wake_at < n.wake_at then sagas.wake_at else n.wake_at end,
    updated_at = n.updated_at, decided_at = n.decided_at, ended_at = n.ended_at, state = n.state
from (
    select
        unhex(value ->> 'id') as id, value ->> 'format' as format, value ->> 'status' as status,
        value ->> 'decision' as decision, value ->> 'failure_code' as failure_code,
        value ->> 'stuck_cause' as stuck_cause, value ->> 'waiting_on' as waiting_on,
        value ->> 'version' as version, value ->> 'wake_at' as wake_at, value ->> 'updated_at' as updated_at,
        value ->> 'decided_at' as decided_at, value ->> 'ended_at' as ended_at, ",
            text!("state"),
            " as state
    from jsonb_each($1)
) as n
where sagas.id = n.id and n.id in (select id from temp.won);
"
        )
    };
}

/// New sagas.
macro_rules! started {
    () => {
        concat!(
            "
insert into temp.won
select unhex(n.value ->> 'saga_id') from jsonb_each($6) as n
where not exists (
    select 1 from start_keys as k
    where k.tenant = n.value ->> 'tenant' and k.principal = n.value ->> 'principal' and k.key = n.value ->> 'key'
) and not exists (
    select 1 from sagas as s
    where s.tenant = n.value ->> 'saga_tenant' and s.business_key = n.value ->> 'business_key' and s.ended_at is null
);
insert into start_keys (tenant, principal, key, saga_id, fingerprint, created_at)
select
    value ->> 'tenant', value ->> 'principal', value ->> 'key', unhex(value ->> 'saga_id'),
    value ->> 'fingerprint', value ->> 'created_at'
from jsonb_each($6) where unhex(value ->> 'saga_id') in (select id from temp.won);
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
from jsonb_each($7) where unhex(value ->> 'id') in (select id from temp.won);
insert into saga_inputs (saga_id, body)
select unhex(value ->> 'saga_id'), ",
            text!("body"),
            " from jsonb_each($8)
where unhex(value ->> 'saga_id') in (select id from temp.won);
"
        )
    };
}

/// What hangs on the winners.
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
from jsonb_each($2) where unhex(value ->> 'saga_id') in (select id from temp.won);
insert into outbox (id, participant, body, due_at, attempts, created_at)
select
    unhex(m.id), m.participant,
    case count(*) when 1 then '' else '[' end || group_concat(m.item, ',' order by m.position)
        || case count(*) when 1 then '' else ']' end,
    m.due_at, 0, m.created_at
from (
    select
        value ->> 'id' as id, value ->> 'participant' as participant, ",
            text!("item"),
            " as item, key as position,
        value ->> 'due_at' as due_at, value ->> 'created_at' as created_at
    from jsonb_each($3) where unhex(value ->> 'saga_id') in (select id from temp.won)
) as m
group by m.id;
"
        )
    };
}

/// Messages that are safe, and the answer.
macro_rules! done {
    () => {
        "
delete from outbox where id in (select unhex(value) from json_each($5));
commit;
select group_concat(hex(id), '') as committed from temp.won"
    };
}

/// A batch with starts in it.
const COMMIT: &str = concat!(changed!(), started!(), written!(), done!());

/// A batch without.
const CHANGE: &str = concat!(changed!(), written!(), done!());

/// Writes a batch; returns the sagas that won.
pub(in crate::sql) async fn write(db: &Db, plan: &Plan<'_>) -> Result<BTreeSet<Uuid>, Error> {
    if !plan.longhand {
        match smooth_sql::write(db, plan).await {
            // Somebody did not win, or whatever else it is will be met again.
            Err(db::Error::Bug(_)) => {}
            smooth => return smooth.map_err(Error::from),
        }
    }
    let transitions = || plan.in_order.iter().copied();
    let past = || transitions().flat_map(|transition| transition.history.iter().map(move |row| (transition, row)));
    let items = || plan.planned.iter().flat_map(|message| message.items.iter().map(move |item| (message, item)));
    let mut beside = Beside::default();
    let changes = json(transitions().filter_map(|transition| Change::of(transition, plan.stamp, &mut beside)));
    let past = json(past().map(|(transition, row)| Past::of(transition, row, plan.commit_id, &mut beside)));
    let items = json(items().map(|(message, item)| Item::of(message, item, plan.written_at, &mut beside)));
    let mut starting = Vec::new();
    let text = if plan.starts() {
        starting.push(json(transitions().filter_map(Key::of)));
        starting.push(json(transitions().filter_map(|transition| Start::of(transition, plan.stamp, &mut beside))));
        starting.push(json(transitions().filter_map(|transition| Input::of(transition, &mut beside))));
        COMMIT
    } else {
        CHANGE
    };
    let confirmed = json(plan.confirmed.iter().map(|id| id.simple()));
    let mut sets = vec![changes, past, items, beside.into_text(), confirmed];
    sets.extend(starting);
    let answer = db.sqlite_script(text, sets).await?;
    // Whatever it says, the commit is there.
    let winners = answer.try_get::<Option<String>, _>(0).ok().and_then(|ids| ids_of(&ids.unwrap_or_default()));
    winners.ok_or_else(|| Error::UnknownCommit(db::Error::Unknown))
}

/// The ids in a text of hexadecimal digits, 32 each.
fn ids_of(text: &str) -> Option<BTreeSet<Uuid>> {
    text.as_bytes().chunks(32).map(|id| Uuid::try_parse_ascii(id).ok()).collect()
}
