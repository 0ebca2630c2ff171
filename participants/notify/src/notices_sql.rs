//! The statement that adds a set of notices, in both dialects.
//!
//! Must hold: its text does not depend on the size of the set; a notice that is there already stays as it is.

use db::sets::{Text, texts, uuids};
use saga_defs::Timestamp;
use sea_orm::{DbBackend, Statement};
use serde::Serialize;
use uuid::fmt::Simple;

use crate::notices::New;

const INSERT: Text = Text {
    postgres: "
insert into notices (key, saga_id, appointment_id, channel, provider_ref, created_at)
select
    unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::text[]), unnest($5::text[]), $6
on conflict (key) do nothing",
    sqlite: "
insert into notices (key, saga_id, appointment_id, channel, provider_ref, created_at)
select
    unhex(value ->> 'key'), unhex(value ->> 'saga_id'), unhex(value ->> 'appointment_id'), value ->> 'channel',
    value ->> 'provider_ref', ?2
from jsonb_each(?1) where true
on conflict (key) do nothing",
};

/// Adds notices.
pub(crate) fn insert(backend: DbBackend, notices: &[New], now: Timestamp) -> Statement {
    let columns = || {
        vec![
            uuids(notices.iter().map(|notice| notice.key)),
            uuids(notices.iter().map(|notice| notice.saga_id)),
            uuids(notices.iter().map(|notice| notice.appointment_id)),
            texts(notices.iter().map(|notice| notice.sent.channel.as_str())),
            texts(notices.iter().map(|notice| notice.sent.provider_ref.as_str())),
        ]
    };
    INSERT.over(backend, columns, || notices.iter().map(Row::of).collect(), [now.0.into()])
}

/// A notice as SQLite reads it.
#[derive(Serialize)]
struct Row<'a> {
    key: Simple,
    saga_id: Simple,
    appointment_id: Simple,
    channel: &'static str,
    provider_ref: &'a str,
}

impl<'a> Row<'a> {
    fn of(notice: &'a New) -> Self {
        Self {
            key: notice.key.simple(),
            saga_id: notice.saga_id.simple(),
            appointment_id: notice.appointment_id.simple(),
            channel: notice.sent.channel.as_str(),
            provider_ref: &notice.sent.provider_ref,
        }
    }
}
