//! The clinic's statements over sets of slots and appointments, in both dialects.
//!
//! Not for deciding. Must hold: a statement's text does not depend on the size of its set; slots are locked in the order
//! of their ids. On PostgreSQL rows are found by `= any`, and a set is never joined to a table or to another set: the
//! plan is made once, for a set and a table of unknown size, and could compare each row with each for ever.

use db::sets::{Text, texts, uuids};
use saga_defs::Timestamp;
use sea_orm::{ActiveEnum, DbBackend, Statement, Value};
use serde::Serialize;
use uuid::Uuid;
use uuid::fmt::Simple;

use crate::appointments::{Asked, Held, Status};
use crate::slots;

/// PostgreSQL only.
const LOCK: &str = "
select id from slots
where id = any($1::uuid[] || array(select slot_id from appointments where id = any($2)))
order by id
for update";

/// Columns are named, because a session that has prepared `*` can't use it any more once an upgrade adds one.
const SLOTS: Text = Text {
    postgres: "
select id, doctor_id, starts_at, ends_at, price_minor, currency, status, version
from slots where id = any($1) order by id for update",
    sqlite: "
select id, doctor_id, starts_at, ends_at, price_minor, currency, status, version
from slots where id in (select unhex(value) from json_each(?1))",
};

const MOVE_SLOTS: Text = Text {
    postgres: "update slots set status = $3, version = version + 1 where id = any($1) and status = $2",
    sqlite: "
update slots set status = ?3, version = version + 1
where id in (select unhex(value) from json_each(?1)) and status = ?2",
};

/// Of several for one slot the first gets in: the index on active appointments sees them in their order.
const INSERT: Text = Text {
    postgres: "
insert into appointments (
    id, slot_id, saga_id, key, patient_name, patient_phone, patient_email, status, created_at, updated_at
)
select n.id, n.slot_id, n.saga_id, n.key, n.patient_name, n.patient_phone, n.patient_email, $8, $9, $9
from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[]) with ordinality
    as n (id, slot_id, saga_id, key, patient_name, patient_phone, patient_email, position)
order by n.position
on conflict do nothing
returning id, slot_id",
    sqlite: "
insert into appointments (
    id, slot_id, saga_id, key, patient_name, patient_phone, patient_email, status, created_at, updated_at
)
select
    unhex(value ->> 'id'), unhex(value ->> 'slot_id'), unhex(value ->> 'saga_id'), unhex(value ->> 'key'),
    value ->> 'patient_name', value ->> 'patient_phone', value ->> 'patient_email', ?2, ?3, ?3
from jsonb_each(?1) as n where true
order by n.key
on conflict do nothing
returning id, slot_id",
};

const OF_KEYS: Text = Text {
    postgres: "select id, key, slot_id, status from appointments where key = any($1) order by id for update",
    sqlite: "
select id, key, slot_id, status from appointments where key in (select unhex(value) from json_each(?1))",
};

const RELEASE: Text = Text {
    postgres: "
update appointments set
    status = $3, patient_name = null, patient_phone = null, patient_email = null, updated_at = $4
where id = any($1) and status = $2",
    sqlite: "
update appointments set
    status = ?3, patient_name = null, patient_phone = null, patient_email = null, updated_at = ?4
where id in (select unhex(value) from json_each(?1)) and status = ?2",
};

const CONFIRM: Text = Text {
    postgres: "
update appointments set status = $4, updated_at = $5
where id = any($1) and status = $3
and ((id, saga_id) in (select n.id, n.saga_id from unnest($1::uuid[], $2::uuid[]) as n (id, saga_id))) is true
returning id, saga_id, slot_id",
    sqlite: "
update appointments set status = ?3, updated_at = ?4
where id in (select unhex(value ->> 'appointment_id') from jsonb_each(?1)) and status = ?2
and (id, saga_id) in (select unhex(value ->> 'appointment_id'), unhex(value ->> 'saga_id') from jsonb_each(?1))
returning id, saga_id, slot_id",
};

/// Locks slots, and the slots of appointments, on PostgreSQL.
pub(crate) fn lock(slots: Vec<Uuid>, appointments: Vec<Uuid>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, LOCK, [uuids(slots), uuids(appointments)])
}

/// Reads slots and locks them.
pub(crate) fn slots(backend: DbBackend, ids: &[Uuid]) -> Statement {
    SLOTS.over_ids(backend, ids, [])
}

/// Gives those of the slots that are `from` the status `to`.
pub(crate) fn move_slots(backend: DbBackend, ids: &[Uuid], from: slots::Status, to: slots::Status) -> Statement {
    MOVE_SLOTS.over_ids(backend, ids, [text(&from), text(&to)])
}

/// Adds pending appointments made at `now`, and tells which of them, by id and slot, got in.
pub(crate) fn insert(backend: DbBackend, asked: &[Asked<'_>], now: Timestamp) -> Statement {
    let columns = || {
        vec![
            uuids(asked.iter().map(Asked::id)),
            uuids(asked.iter().map(|asked| asked.reserve.slot_id)),
            uuids(asked.iter().map(|asked| asked.hold.saga_id)),
            uuids(asked.iter().map(|asked| asked.hold.key)),
            texts(asked.iter().map(|asked| asked.reserve.patient.name.as_str())),
            texts(asked.iter().map(|asked| asked.reserve.patient.phone.as_str())),
            texts(asked.iter().map(|asked| asked.reserve.patient.email.as_str())),
        ]
    };
    INSERT.over(backend, columns, || asked.iter().map(New::of).collect(), [text(&Status::Pending), now.0.into()])
}

/// Reads the appointments that effects made, and locks them.
pub(crate) fn of_keys(backend: DbBackend, keys: &[Uuid]) -> Statement {
    OF_KEYS.over_ids(backend, keys, [])
}

/// Releases those of the appointments that are pending, and forgets who they were for.
pub(crate) fn release(backend: DbBackend, ids: &[Uuid], now: Timestamp) -> Statement {
    RELEASE.over_ids(backend, ids, [text(&Status::Pending), text(&Status::Released), now.0.into()])
}

/// Confirms those of the appointments that are pending for the saga that asks, and tells which.
pub(crate) fn confirm(backend: DbBackend, asked: &[Held], now: Timestamp) -> Statement {
    let columns =
        || vec![uuids(asked.iter().map(|held| held.appointment_id)), uuids(asked.iter().map(|held| held.saga_id))];
    let more = [text(&Status::Pending), text(&Status::Confirmed), now.0.into()];
    CONFIRM.over(backend, columns, || asked.iter().map(Confirmed::of).collect(), more)
}

fn text(status: &impl ActiveEnum<Value = String>) -> Value {
    status.to_value().into()
}

/// An appointment to be added, as SQLite reads it.
#[derive(Serialize)]
struct New<'a> {
    id: Simple,
    slot_id: Simple,
    saga_id: Simple,
    key: Simple,
    patient_name: &'a str,
    patient_phone: &'a str,
    patient_email: &'a str,
}

impl<'a> New<'a> {
    fn of(asked: &Asked<'a>) -> Self {
        let Asked { hold, reserve } = *asked;
        Self {
            id: asked.id().simple(),
            slot_id: reserve.slot_id.simple(),
            saga_id: hold.saga_id.simple(),
            key: hold.key.simple(),
            patient_name: &reserve.patient.name,
            patient_phone: &reserve.patient.phone,
            patient_email: &reserve.patient.email,
        }
    }
}

/// An appointment to be confirmed, as SQLite reads it.
#[derive(Serialize)]
struct Confirmed {
    appointment_id: Simple,
    saga_id: Simple,
}

impl Confirmed {
    fn of(held: &Held) -> Self {
        Self { appointment_id: held.appointment_id.simple(), saga_id: held.saga_id.simple() }
    }
}
