//! The sets that a commit on SQLite is handed, opened and with names for what [`crate::sql::commit_rows`] counts, and what both
//! scripts write of them alike.
//!
//! Rows are opened by `jsonb_each`, of which reading a member costs a third less of a commit than of `json_each`, which writes
//! each row out as text for every member that is read. Must hold: a set is opened here alone, so that all who read it read the
//! same; what a script does not name is not worked out.

/// `$4` holds the long texts, of which a member tells the place.
macro_rules! text {
    ($member:literal) => {
        concat!(
            "cast(substr(cast($4 as blob), (value ->> ",
            $member,
            ") >> 32, (value ->> ",
            $member,
            ") & 0xffffffff) as text)"
        )
    };
}

/// `$1`: sagas that exist.
macro_rules! changes {
    () => {
        concat!(
            "(
    select
        unhex(value ->> 0) as id, value ->> 1 as expected, value ->> 2 as format, value ->> 3 as status,
        value ->> 4 as decision, value ->> 5 as failure_code, value ->> 6 as stuck_cause, value ->> 7 as waiting_on,
        value ->> 8 as version, value ->> 9 as wake_at, value ->> 10 as updated_at, value ->> 11 as decided_at,
        value ->> 12 as ended_at, ",
            text!(13),
            " as state
    from jsonb_each($1)
) as n"
        )
    };
}

/// `$2`: rows of history.
macro_rules! past {
    () => {
        concat!(
            "(
    select
        unhex(value ->> 0) as saga_id, unhex(value ->> 1) as commit_id, value ->> 2 as seq, value ->> 3 as at,
        value ->> 4 as actor, value ->> 5 as reason, unhex(value ->> 6) as operation_id, value ->> 7 as format, ",
            text!(8),
            " as events
    from jsonb_each($2)
) as n"
        )
    };
}

/// `$3`, where nobody loses: outbox rows.
macro_rules! messages {
    () => {
        concat!(
            "(
    select unhex(value ->> 0) as id, value ->> 1 as participant, ",
            text!(2),
            " as body, value ->> 3 as due_at, value ->> 4 as created_at
    from jsonb_each($3)
) as n"
        )
    };
}

/// `$3`, where somebody may lose: commands, and the outbox rows that they are to lie in.
macro_rules! items {
    () => {
        concat!(
            "(
    select
        key as position, unhex(value ->> 0) as id, value ->> 1 as participant, unhex(value ->> 2) as saga_id, ",
            text!(3),
            " as item, value ->> 4 as due_at, value ->> 5 as created_at
    from jsonb_each($3)
) as n"
        )
    };
}

/// `$5`: outbox rows that are done with.
macro_rules! confirmed {
    () => {
        "(select unhex(value) from json_each($5))"
    };
}

/// Start keys, and the business keys that go with them.
macro_rules! keys {
    ($set:literal) => {
        concat!(
            "(
    select
        value ->> 0 as saga_tenant, value ->> 1 as business_key, value ->> 2 as tenant, value ->> 3 as principal,
        value ->> 4 as key, unhex(value ->> 5) as saga_id, value ->> 6 as fingerprint, value ->> 7 as created_at
    from jsonb_each(",
            $set,
            ")
) as n"
        )
    };
}

/// `$8`: new sagas.
macro_rules! starts {
    () => {
        concat!(
            "(
    select
        unhex(value ->> 0) as id, value ->> 1 as tenant, value ->> 2 as principal, value ->> 3 as business_key,
        value ->> 4 as definition, value ->> 5 as definition_version, value ->> 6 as digest, value ->> 7 as created_at,
        value ->> 8 as format, value ->> 9 as status, value ->> 10 as decision, value ->> 11 as failure_code,
        value ->> 12 as stuck_cause, value ->> 13 as waiting_on, value ->> 14 as version, value ->> 15 as wake_at,
        value ->> 16 as updated_at, value ->> 17 as decided_at, value ->> 18 as ended_at, ",
            text!(19),
            " as state
    from jsonb_each($8)
) as n"
        )
    };
}

/// `$9`: what they were started with.
macro_rules! inputs {
    () => {
        concat!("(\n    select unhex(value ->> 0) as saga_id, ", text!(1), " as body from jsonb_each($9)\n) as n")
    };
}

/// What is written of new sagas: of all, unless a condition follows.
macro_rules! insert_keys {
    () => {
        concat!(
            "
insert into start_keys (tenant, principal, key, saga_id, fingerprint, created_at)
select tenant, principal, key, saga_id, fingerprint, created_at from ",
            keys!("$7")
        )
    };
}

macro_rules! insert_sagas {
    () => {
        concat!(
            "
insert into sagas (
    id, tenant, principal, business_key, definition, definition_version, digest, created_at,
    format, status, decision, failure_code, stuck_cause, waiting_on, version, wake_at,
    updated_at, decided_at, ended_at, state
)
select
    id, tenant, principal, business_key, definition, definition_version, digest, created_at,
    format, status, decision, failure_code, stuck_cause, waiting_on, version, wake_at,
    updated_at, decided_at, ended_at, state
from ",
            starts!()
        )
    };
}

macro_rules! insert_inputs {
    () => {
        concat!("\ninsert into saga_inputs (saga_id, body) select saga_id, body from ", inputs!())
    };
}

/// What is written of every transition: of all, unless a condition follows.
macro_rules! insert_history {
    () => {
        concat!(
            "
insert into history (saga_id, seq, at, actor, reason, operation_id, commit_id, format, events)
select saga_id, seq, at, actor, reason, operation_id, commit_id, format, events from ",
            past!()
        )
    };
}
