//! The commit on SQLite: compare-and-swap, starts, history, inputs and outbox of a whole batch in one transaction.
//!
//! Not for deciding. Must hold: the number of statements does not depend on the size of the batch; history, inputs
//! and messages are derived from the winners only; rows are written in id order; what a start met is read in a later
//! statement than the insert that met it.
//!
//! Each statement's only parameter is a set of rows. It is opened by `jsonb_each`, of which reading a member costs a
//! third less of a commit than of `json_each`, which writes each row out as text for every member that is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use db::Work;
use saga_defs::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult};
use serde::Serialize;
use uuid::Uuid;

use crate::sql::commit_rows::{Change, Input, Key, Message, Past, Stamp, Start};
use crate::sql::{Writing, set_sql};
use crate::{Batch, Committed, Outcome, Transition, messages};

const CHANGE: &str = "
update sagas set
    format = n.format, status = n.status, decision = n.decision, failure_code = n.failure_code,
    stuck_cause = n.stuck_cause, waiting_on = n.waiting_on, version = n.version,
    wake_at = case when sagas.wake_at < n.wake_at then sagas.wake_at else n.wake_at end,
    updated_at = n.updated_at, decided_at = n.decided_at, ended_at = n.ended_at, state = n.state
from (
    select
        unhex(value ->> 'id') as id, value ->> 'expected' as expected, value ->> 'format' as format,
        value ->> 'status' as status, value ->> 'decision' as decision, value ->> 'failure_code' as failure_code,
        value ->> 'stuck_cause' as stuck_cause, value ->> 'waiting_on' as waiting_on,
        value ->> 'version' as version, value ->> 'wake_at' as wake_at, value ->> 'updated_at' as updated_at,
        value ->> 'decided_at' as decided_at, value ->> 'ended_at' as ended_at, value ->> 'state' as state
    from jsonb_each(?)
) as n
where sagas.id = n.id and sagas.version = n.expected
returning id";

const TAKE_KEYS: &str = "
insert into start_keys (tenant, principal, key, saga_id, fingerprint, created_at)
select
    value ->> 'tenant', value ->> 'principal', value ->> 'key', unhex(value ->> 'saga_id'),
    value ->> 'fingerprint', value ->> 'created_at'
from jsonb_each(?) where true
on conflict do nothing
returning saga_id";

const READ_KEYS: &str = "
select unhex(n.value ->> 'saga_id') as asked, k.saga_id as saga_id, k.fingerprint as fingerprint
from jsonb_each(?) as n
join start_keys as k
on k.tenant = n.value ->> 'tenant' and k.principal = n.value ->> 'principal' and k.key = n.value ->> 'key'";

const GIVE_KEYS_BACK: &str = "
delete from start_keys
where (tenant, principal, key) in (
    select value ->> 'tenant', value ->> 'principal', value ->> 'key' from jsonb_each(?)
)";

const START: &str = "
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
    value ->> 'updated_at', value ->> 'decided_at', value ->> 'ended_at', value ->> 'state'
from jsonb_each(?) where true
on conflict do nothing
returning id";

const READ_OPEN: &str = "
select unhex(n.value ->> 'id') as asked, s.id as saga_id
from jsonb_each(?) as n
join sagas as s
on s.tenant = n.value ->> 'tenant' and s.business_key = n.value ->> 'business_key'
where s.business_key is not null and s.ended_at is null";

const INPUTS: &str = "
insert into saga_inputs (saga_id, body)
select unhex(value ->> 'saga_id'), value ->> 'body' from jsonb_each(?)";

const HISTORY: &str = "
insert into history (saga_id, seq, at, actor, reason, operation_id, commit_id, format, events)
select
    unhex(value ->> 'saga_id'), value ->> 'seq', value ->> 'at', value ->> 'actor', value ->> 'reason',
    unhex(value ->> 'operation_id'), unhex(value ->> 'commit_id'), value ->> 'format', value ->> 'events'
from jsonb_each(?)";

const OUTBOX: &str = "
insert into outbox (id, participant, body, due_at, attempts, created_at)
select
    unhex(value ->> 'id'), value ->> 'participant', value ->> 'body', value ->> 'due_at', 0,
    value ->> 'created_at'
from jsonb_each(?)";

const CONFIRMED: &str = "delete from outbox where id in (select unhex(value) from json_each(?))";

/// The commit as a transaction wants it.
pub(in crate::sql) fn work(
    tx: &DatabaseTransaction,
    batch: Arc<Batch>,
    now: Timestamp,
    writing: Writing,
) -> Work<'_, Committed> {
    Box::pin(async move { commit(tx, &batch, now, &writing).await })
}

async fn commit(
    tx: &DatabaseTransaction,
    batch: &Batch,
    now: Timestamp,
    writing: &Writing,
) -> Result<Committed, DbErr> {
    let stamp = Stamp { now: batch.now, format: writing.format };
    let mut in_order: Vec<&Transition> = batch.transitions.iter().collect();
    in_order.sort_unstable_by_key(|transition| transition.header.id);
    // Ends free business keys before starts ask for them.
    let mut outcomes = change(tx, &in_order, stamp).await?;
    outcomes.extend(start(tx, &in_order, stamp).await?);

    in_order.retain(|transition| outcomes.get(&transition.header.id) == Some(&Outcome::Committed));
    let inputs: Vec<Input> = in_order.iter().filter_map(|winner| Input::of(winner)).collect();
    execute(tx, INPUTS, &inputs).await?;
    let history: Vec<Past<'_>> = in_order.iter().flat_map(|winner| Past::of(winner, batch.commit_id)).collect();
    execute(tx, HISTORY, &history).await?;
    let commands = in_order.iter().flat_map(|winner| &winner.commands);
    let messages = messages::group(batch.commit_id, batch.now, commands);
    let rows: Vec<Message<'_>> = messages.iter().map(|message| Message::of(message, now)).collect();
    execute(tx, OUTBOX, &rows).await?;
    let confirmed: Vec<_> = batch.confirmed.iter().map(|id| id.simple()).collect();
    execute(tx, CONFIRMED, &confirmed).await?;

    let outcome = |transition: &Transition| outcomes.remove(&transition.header.id).unwrap_or(Outcome::Lost);
    Ok(Committed { outcomes: batch.transitions.iter().map(outcome).collect(), messages })
}

/// The outcomes of those that won; others of the sagas that are not new lost.
async fn change(
    tx: &DatabaseTransaction,
    in_order: &[&Transition],
    stamp: Stamp,
) -> Result<BTreeMap<Uuid, Outcome>, DbErr> {
    let changes: Vec<Change<'_>> = in_order.iter().filter_map(|transition| Change::of(transition, stamp)).collect();
    let won = ids(&answers(tx, CHANGE, &changes).await?)?;
    Ok(won.into_iter().map(|id| (id, Outcome::Committed)).collect())
}

/// The outcomes of starts. One that lost on its business key gives its start key back.
async fn start(
    tx: &DatabaseTransaction,
    in_order: &[&Transition],
    stamp: Stamp,
) -> Result<BTreeMap<Uuid, Outcome>, DbErr> {
    let asked: Vec<Key<'_>> = in_order.iter().filter_map(|transition| Key::of(transition)).collect();
    let took = ids(&answers(tx, TAKE_KEYS, &asked).await?)?;
    let (took_key, known): (Vec<Key<'_>>, Vec<Key<'_>>) = asked.into_iter().partition(|key| took.contains(&key.id()));
    let mut outcomes = key_owners(tx, &known).await?;

    let starts = in_order.iter().filter(|transition| took.contains(&transition.header.id));
    let starts: Vec<Start<'_>> = starts.map(|transition| Start::of(transition, stamp)).collect();
    let won = ids(&answers(tx, START, &starts).await?)?;
    let refused: Vec<Key<'_>> = took_key.into_iter().filter(|key| !won.contains(&key.id())).collect();
    execute(tx, GIVE_KEYS_BACK, &refused).await?;
    let refused: Vec<Start<'_>> = starts.into_iter().filter(|start| !won.contains(&start.id())).collect();
    outcomes.extend(open_sagas(tx, &refused).await?);
    outcomes.extend(won.into_iter().map(|id| (id, Outcome::Committed)));
    Ok(outcomes)
}

/// Which saga each start key belongs to.
async fn key_owners(tx: &DatabaseTransaction, keys: &[Key<'_>]) -> Result<BTreeMap<Uuid, Outcome>, DbErr> {
    let owner = |row: &QueryResult| {
        let outcome =
            Outcome::KeyTaken { saga_id: row.try_get("", "saga_id")?, fingerprint: row.try_get("", "fingerprint")? };
        Ok((row.try_get("", "asked")?, outcome))
    };
    answers(tx, READ_KEYS, keys).await?.iter().map(owner).collect()
}

/// Which open saga has each business key.
async fn open_sagas(tx: &DatabaseTransaction, starts: &[Start<'_>]) -> Result<BTreeMap<Uuid, Outcome>, DbErr> {
    let open = |row: &QueryResult| {
        Ok((row.try_get("", "asked")?, Outcome::BusinessKeyTaken { saga_id: row.try_get("", "saga_id")? }))
    };
    answers(tx, READ_OPEN, starts).await?.iter().map(open).collect()
}

fn ids(rows: &[QueryResult]) -> Result<BTreeSet<Uuid>, DbErr> {
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Runs a statement over `rows`, unless there are none, and returns the rows it answers with.
async fn answers<T: Serialize>(
    tx: &DatabaseTransaction,
    text: &'static str,
    rows: &[T],
) -> Result<Vec<QueryResult>, DbErr> {
    if rows.is_empty() { Ok(Vec::new()) } else { tx.query_all_raw(set_sql::over(text, rows)).await }
}

/// Runs a statement over `rows`, unless there are none.
async fn execute<T: Serialize>(tx: &DatabaseTransaction, text: &'static str, rows: &[T]) -> Result<(), DbErr> {
    if !rows.is_empty() {
        tx.execute_raw(set_sql::over(text, rows)).await?;
    }
    Ok(())
}
