//! The rows that a commit hands to its statements; for SQLite as JSON arrays, whose members are counted from zero by
//! [`super::sqlite::sets_sql`].
//!
//! Arrays, because names would be most of what is written, read and compared. Long texts, which are JSON themselves, lie beside
//! the rows on SQLite: within a row each of their quotes would be escaped, and read again one by one. Must hold: columns beside
//! `state` are derived from the state and from nothing else; ids are written as plain hex, which the statements turn into the
//! 16 bytes that are stored.

use saga_defs::Timestamp;
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};
use uuid::Uuid;
use uuid::fmt::Simple;

use super::words::word;
use crate::messages::{HEAD_START_MS, Planned};
use crate::{Guard, HistoryRow, Transition};

/// Writes a row as an array of these members.
macro_rules! as_array {
    ($row:ty: $($($member:ident).+),+ $(,)?) => {
        impl Serialize for $row {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut row = serializer.serialize_seq(None)?;
                $(row.serialize_element(&self.$($member).+)?;)+
                row.end()
            }
        }
    };
}

/// The long texts of a commit, one behind the other.
#[derive(Default)]
pub(super) struct Beside(String);

/// Where a text lies beside the rows: the number of its first byte, counted from one, times 2^32, and how many they are.
#[derive(Serialize)]
struct Place(u64);

impl Beside {
    fn lay(&mut self, text: &str) -> Place {
        let first = self.0.len() as u64 + 1;
        self.0.push_str(text);
        Place(first << 32 | text.len() as u64)
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// What every transition changes.
pub(super) struct Changing<'a> {
    pub(super) format: u16,
    pub(super) status: String,
    pub(super) decision: Option<String>,
    pub(super) failure_code: Option<&'a str>,
    pub(super) stuck_cause: Option<String>,
    pub(super) waiting_on: Option<&'a str>,
    pub(super) version: u64,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) updated_at: Timestamp,
    pub(super) decided_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) state: String,
}

/// When a commit is, and the format that its states are written in.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) now: Timestamp,
    pub(super) format: u16,
}

impl<'a> Changing<'a> {
    pub(super) fn of(transition: &'a Transition, Stamp { now, format }: Stamp) -> Self {
        let saga = &transition.saga;
        let stuck_on = saga.stuck.as_ref().map(|stuck| stuck.step.as_str());
        Self {
            format,
            status: word(saga.status()),
            decision: saga.decision.map(word),
            failure_code: saga.failure.as_ref().map(|failure| failure.code.as_str()),
            stuck_cause: saga.stuck.as_ref().map(|stuck| word(stuck.cause)),
            waiting_on: stuck_on.or_else(|| saga.waiting().map(|(step, ..)| step)),
            version: saga.version,
            wake_at: saga.wake_at(),
            updated_at: now,
            decided_at: saga.decided_at,
            ended_at: saga.is_ended().then_some(now),
            state: serde_json::to_string(saga).expect("states have string keys and no failing serializers"),
        }
    }
}

/// A saga that exists, and the version it must have.
pub(super) struct Change<'a> {
    id: Simple,
    expected: u64,
    changing: Changing<'a>,
    state: Place,
}

as_array!(
    Change<'_>: id, expected, changing.format, changing.status, changing.decision, changing.failure_code,
    changing.stuck_cause, changing.waiting_on, changing.version, changing.wake_at, changing.updated_at,
    changing.decided_at, changing.ended_at, state,
);

impl<'a> Change<'a> {
    /// None for a start.
    pub(super) fn of(transition: &'a Transition, stamp: Stamp, beside: &mut Beside) -> Option<Self> {
        match transition.guard {
            Guard::Start { .. } => None,
            Guard::Version(expected) => {
                let changing = Changing::of(transition, stamp);
                let state = beside.lay(&changing.state);
                Some(Self { id: transition.header.id.simple(), expected, changing, state })
            }
        }
    }
}

/// A new saga.
pub(super) struct Start<'a> {
    id: Simple,
    tenant: &'a str,
    principal: &'a str,
    business_key: Option<&'a str>,
    definition: &'a str,
    definition_version: u32,
    digest: &'a str,
    created_at: Timestamp,
    changing: Changing<'a>,
    state: Place,
}

as_array!(
    Start<'_>: id, tenant, principal, business_key, definition, definition_version, digest, created_at,
    changing.format, changing.status, changing.decision, changing.failure_code, changing.stuck_cause,
    changing.waiting_on, changing.version, changing.wake_at, changing.updated_at, changing.decided_at,
    changing.ended_at, state,
);

impl<'a> Start<'a> {
    /// None for a saga that exists.
    pub(super) fn of(transition: &'a Transition, stamp: Stamp, beside: &mut Beside) -> Option<Self> {
        match transition.guard {
            Guard::Start { .. } => {}
            Guard::Version(_) => return None,
        }
        let header = &transition.header;
        let changing = Changing::of(transition, stamp);
        let state = beside.lay(&changing.state);
        Some(Self {
            id: header.id.simple(),
            tenant: &header.tenant,
            principal: &header.principal,
            business_key: header.key.as_deref(),
            definition: &header.definition,
            definition_version: header.definition_version,
            digest: &header.digest,
            created_at: header.created_at,
            changing,
            state,
        })
    }
}

/// A start key and who wants it, and the business key that goes with it.
pub(super) struct Key<'a> {
    saga_tenant: &'a str,
    business_key: Option<&'a str>,
    tenant: &'a str,
    principal: &'a str,
    key: &'a str,
    saga_id: Simple,
    fingerprint: &'a str,
    created_at: Timestamp,
}

as_array!(Key<'_>: saga_tenant, business_key, tenant, principal, key, saga_id, fingerprint, created_at);

impl<'a> Key<'a> {
    /// None for a saga that exists.
    pub(super) fn of(transition: &'a Transition) -> Option<Self> {
        match &transition.guard {
            Guard::Start { start_key, fingerprint, .. } => Some(Self {
                saga_tenant: &transition.header.tenant,
                business_key: transition.header.key.as_deref(),
                tenant: &start_key.tenant,
                principal: &start_key.principal,
                key: &start_key.key,
                saga_id: transition.header.id.simple(),
                fingerprint,
                created_at: transition.header.created_at,
            }),
            Guard::Version(_) => None,
        }
    }
}

/// An input document.
pub(super) struct Input {
    saga_id: Simple,
    body: Place,
}

as_array!(Input: saga_id, body);

impl Input {
    /// None for a saga that exists.
    pub(super) fn of(transition: &Transition, beside: &mut Beside) -> Option<Self> {
        match &transition.guard {
            Guard::Start { input, .. } => {
                Some(Self { saga_id: transition.header.id.simple(), body: beside.lay(&input.to_string()) })
            }
            Guard::Version(_) => None,
        }
    }
}

/// A row of history.
pub(super) struct Past<'a> {
    saga_id: Simple,
    commit_id: Simple,
    seq: u64,
    at: Timestamp,
    actor: &'a str,
    reason: Option<&'a str>,
    operation_id: Option<Simple>,
    format: u16,
    events: Place,
}

as_array!(Past<'_>: saga_id, commit_id, seq, at, actor, reason, operation_id, format, events);

impl<'a> Past<'a> {
    pub(super) fn of(transition: &Transition, row: &'a HistoryRow, commit_id: Uuid, beside: &mut Beside) -> Self {
        Self {
            saga_id: transition.header.id.simple(),
            commit_id: commit_id.simple(),
            seq: row.seq,
            at: row.at,
            actor: &row.actor,
            reason: row.reason.as_deref(),
            operation_id: row.operation_id.map(Uuid::simple),
            format: row.format,
            events: beside.lay(&row.events),
        }
    }
}

/// An outbox row whose commands have all won.
pub(super) struct Message {
    id: Simple,
    participant: String,
    body: Place,
    due_at: Timestamp,
    created_at: Timestamp,
}

as_array!(Message: id, participant, body, due_at, created_at);

impl Message {
    pub(super) fn of(planned: &Planned, now: Timestamp, beside: &mut Beside) -> Option<Self> {
        let message = planned.message(|_| true)?;
        let (id, body) = (message.id.simple(), beside.lay(&message.body));
        Some(Self { id, participant: message.participant, body, due_at: now.plus_ms(HEAD_START_MS), created_at: now })
    }
}

/// A command, and the outbox row that it is to lie in.
pub(super) struct Item<'a> {
    id: Simple,
    participant: &'a str,
    saga_id: Simple,
    item: Place,
    due_at: Timestamp,
    created_at: Timestamp,
}

as_array!(Item<'_>: id, participant, saga_id, item, due_at, created_at);

impl<'a> Item<'a> {
    pub(super) fn of(
        message: &'a Planned,
        (saga_id, item): &(Uuid, String),
        now: Timestamp,
        beside: &mut Beside,
    ) -> Self {
        Self {
            id: message.id.simple(),
            participant: &message.participant,
            saga_id: saga_id.simple(),
            item: beside.lay(item),
            due_at: now.plus_ms(HEAD_START_MS),
            created_at: now,
        }
    }
}
