//! The commit on SQLite: compare-and-swap, starts, history, inputs and outbox of a whole batch, in a script that finds out who
//! wins.
//!
//! Not for deciding. A batch is put to the shorter script of [`super::smooth_sql`] first; whoever goes away between the two
//! leaves nothing written. Must hold:
//! - A script is one message to SQLite's thread and one answer: a thread that is woken costs more than a statement.
//! - Who wins is found before anything is changed for it, in `won`; history, inputs and messages hang on that. There is one
//!   writer, so that what was found stays so until the end.
//! - Ends free business keys before starts ask for them; no start key is ever taken without its saga.
//! - `won` is a table of the connection, kept in memory. It outlives the commit, because who won is said behind it: in one
//!   row, since SQLite's thread would wake whoever waits for each row, and do so before the commit.
//! - Parameters are named `$1` to `$9`, which SQLite numbers in each statement by itself: with `?2` alone a statement would
//!   have two, and the driver would give it both.

use std::collections::BTreeSet;

use db::Db;
use sea_orm::sqlx::Row;
use uuid::Uuid;

use super::smooth_sql;
use crate::Error;
use crate::sql::commit::{Messages, Plan};
use crate::sql::commit_rows::{Beside, Change, Input, Item, Key, Message, Past, Start};
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
select s.id from ",
            changes!(),
            "
join sagas as s on s.id = n.id and s.version = n.expected;
update sagas set
    format = n.format, status = n.status, decision = n.decision, failure_code = n.failure_code,
    stuck_cause = n.stuck_cause, waiting_on = n.waiting_on, version = n.version,
    wake_at = case when sagas.wake_at < n.wake_at then sagas.wake_at else n.wake_at end,
    updated_at = n.updated_at, decided_at = n.decided_at, ended_at = n.ended_at, state = n.state
from ",
            changes!(),
            "
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
select n.saga_id from ",
            keys!("$7"),
            "
where not exists (
    select 1 from start_keys as k where k.tenant = n.tenant and k.principal = n.principal and k.key = n.key
) and not exists (
    select 1 from sagas as s
    where s.tenant = n.saga_tenant and s.business_key = n.business_key and s.ended_at is null
);",
            insert_keys!(),
            " where saga_id in (select id from temp.won);",
            insert_sagas!(),
            " where id in (select id from temp.won);",
            insert_inputs!(),
            " where saga_id in (select id from temp.won);"
        )
    };
}

/// What hangs on the winners.
macro_rules! written {
    () => {
        concat!(
            insert_history!(),
            "
where saga_id in (select id from temp.won);
insert into outbox (id, participant, body, due_at, attempts, created_at)
select
    id, participant,
    case count(*) when 1 then '' else '[' end || group_concat(item, ',' order by position)
        || case count(*) when 1 then '' else ']' end,
    due_at, 0, created_at
from ",
            items!(),
            "
where saga_id in (select id from temp.won)
group by id;
"
        )
    };
}

/// Messages that are safe, and the answer.
macro_rules! done {
    () => {
        concat!(
            "
delete from outbox where id in ",
            confirmed!(),
            ";
commit;
select group_concat(hex(id), '') as committed from temp.won"
        )
    };
}

/// A batch with starts in it.
const COMMIT: &str = concat!(changed!(), started!(), written!(), done!());

/// A batch without.
const CHANGE: &str = concat!(changed!(), written!(), done!());

/// Writes a batch; returns the sagas that won.
pub(in crate::sql) async fn write(db: &Db, plan: &Plan<'_>) -> Result<BTreeSet<Uuid>, Error> {
    if plan.may_be_smooth() {
        let text = if plan.starts() { smooth_sql::COMMIT } else { smooth_sql::CHANGE };
        match db.sqlite_script(text, sets(plan, Messages::Rows)).await {
            Ok(_) => return Ok(plan.in_order.iter().map(|transition| transition.header.id).collect()),
            // Somebody did not win; or whatever else it is will be met again.
            Err(db::Error::Bug(_)) => {
                tracing::debug!(commit_id = %plan.commit_id, "a batch is written the long way");
                plan.trust.lose();
            }
            Err(error) => return Err(error.into()),
        }
    }
    let text = if plan.starts() { COMMIT } else { CHANGE };
    let answer = db.sqlite_script(text, sets(plan, Messages::Items)).await?;
    // Whatever it says, the commit is there.
    let winners = answer.try_get::<Option<String>, _>(0).ok().and_then(|ids| ids_of(&ids.unwrap_or_default()));
    winners.ok_or_else(|| Error::UnknownCommit(db::Error::Unknown))
}

/// `$1` to `$6`, of which the last is for the shorter script, and to `$9` where there are starts.
fn sets(plan: &Plan<'_>, messages: Messages) -> Vec<String> {
    let transitions = || plan.in_order.iter().copied();
    let past = || transitions().flat_map(|transition| transition.history.iter().map(move |row| (transition, row)));
    let items = || plan.planned.iter().flat_map(|message| message.items.iter().map(move |item| (message, item)));
    let mut beside = Beside::default();
    let changes: Vec<_> =
        transitions().filter_map(|transition| Change::of(transition, plan.stamp, &mut beside)).collect();
    let past = json(past().map(|(transition, row)| Past::of(transition, row, plan.commit_id, &mut beside)));
    let now = plan.written_at;
    let messages = match messages {
        Messages::Rows => json(plan.planned.iter().filter_map(|message| Message::of(message, now, &mut beside))),
        Messages::Items => json(items().map(|(message, item)| Item::of(message, item, now, &mut beside))),
    };
    let mut starting = Vec::new();
    if plan.starts() {
        starting.push(json(transitions().filter_map(Key::of)));
        starting.push(json(transitions().filter_map(|transition| Start::of(transition, plan.stamp, &mut beside))));
        starting.push(json(transitions().filter_map(|transition| Input::of(transition, &mut beside))));
    }
    let confirmed = json(plan.confirmed.iter().map(|id| id.simple()));
    let (changed, changes) = (changes.len().to_string(), json(&changes));
    let mut sets = vec![changes, past, messages, beside.into_text(), confirmed, changed];
    sets.extend(starting);
    sets
}

/// The ids in a text of hexadecimal digits, 32 each.
fn ids_of(text: &str) -> Option<BTreeSet<Uuid>> {
    text.as_bytes().chunks(32).map(|id| Uuid::try_parse_ascii(id).ok()).collect()
}
