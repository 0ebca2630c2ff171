//! The script of a commit in which nobody loses, which is nearly every one: there is one process, and it decides on what it
//! committed last.
//!
//! Not for batches with losers: when somebody would not win, the script stops and is rolled back, and
//! [`super::commit_sql`] begins anew. Must hold:
//! - Each saga is changed where it is found, guarded by its version; that all were is known before anything hangs on it.
//! - A start whose key, or whose business key, is taken runs into the index that keeps it; so none may end at once.
//! - Columns with an index are left alone unless they change: SQLite writes an entry anew that is set to what it was. They
//!   change before starts ask for business keys, which ends free.

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
from ",
            changes!(),
            "
where sagas.id = n.id and sagas.version = n.expected;
select 1 where changes() <> cast($6 as integer) and json('another version: ' || changes());
update sagas set
    status = n.status, ended_at = n.ended_at,
    wake_at = case when sagas.wake_at < n.wake_at then sagas.wake_at else n.wake_at end
from ",
            changes!(),
            "
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
        concat!(insert_keys!(), ";", insert_sagas!(), ";", insert_inputs!(), ";")
    };
}

/// What hangs on them, and the answer, which comes behind the commit.
macro_rules! written {
    () => {
        concat!(
            insert_history!(),
            ";
insert into outbox (id, participant, body, due_at, attempts, created_at)
select id, participant, body, due_at, 0, created_at from ",
            messages!(),
            ";
delete from outbox where id in ",
            confirmed!(),
            ";
commit;
select 1 as committed"
        )
    };
}

/// A batch with starts in it.
pub(super) const COMMIT: &str = concat!(changed!(), started!(), written!());

/// A batch without.
pub(super) const CHANGE: &str = concat!(changed!(), written!());
