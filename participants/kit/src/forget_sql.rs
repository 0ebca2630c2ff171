//! Forgets the effects of sagas that have ended: their inbox rows, as one statement over the set.
//!
//! Not for the owner's rows, which are its own to keep. Must hold: a row with an open call, with an announcement that
//! is owed, or in a state that this build does not know stays; rows are locked in key order, like everywhere else; the
//! cost follows what is named, not what is there.

use db::{Db, Transaction};
use sea_orm::prelude::Uuid;
use sea_orm::sea_query::{ArrayType, Value};
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, Statement};

use crate::Error;

/// The states that nothing follows are written out, so that the text is constant. Rows are found by their sagas, however
/// small the table was when the server made its plan: `offset 0` keeps the `lateral` part from being turned around.
const POSTGRES: &str = "
with named as materialized (
    select found.key from unnest($1::uuid[]) as n (saga_id)
    cross join lateral (select key from inbox where inbox.saga_id = n.saga_id offset 0) as found
), done as materialized (
    select key from inbox
    where key = any(array(select key from named))
    and participant = $2 and lease_until is null and announcing is null
    and state in ('executed', 'refused', 'tombstoned', 'undone', 'undo_refused')
    order by key
    for update
)
delete from inbox where key = any(array(select key from done))";

const SQLITE: &str = "
delete from inbox
where saga_id in (select unhex(value) from json_each(?)) and participant = ? and lease_until is null
and announcing is null and state in ('executed', 'refused', 'tombstoned', 'undone', 'undo_refused')";

/// Deletes the rows of `participant` that belong to `sagas` and are over. How many.
pub(crate) async fn forget(db: &Db, participant: &'static str, sagas: &[Uuid]) -> Result<u64, Error> {
    let sagas: Vec<Uuid> = sagas.to_vec();
    let forgotten = db.transaction(move |tx| {
        let sagas = sagas.clone();
        Box::pin(async move { delete(tx, participant, &sagas).await })
    });
    Ok(forgotten.await?)
}

async fn delete(tx: &Transaction, participant: &str, sagas: &[Uuid]) -> Result<u64, DbErr> {
    let backend = tx.get_database_backend();
    let (text, sagas) = match backend {
        DbBackend::Postgres => {
            let ids = sagas.iter().copied().map(Value::from).collect();
            (POSTGRES, Value::Array(ArrayType::Uuid, Some(Box::new(ids))))
        }
        _ => {
            let ids: Vec<_> = sagas.iter().map(|id| id.simple()).collect();
            (SQLITE, serde_json::to_string(&ids).expect("ids are JSON").into())
        }
    };
    let statement = Statement::from_sql_and_values(backend, text, [sagas, participant.into()]);
    Ok(tx.execute_raw(statement).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::State;

    #[test]
    fn the_texts_name_every_state_that_nothing_follows_and_no_other() {
        for state in State::ALL {
            let over = match state {
                State::Intent | State::Undoing => false,
                State::Executed | State::Refused | State::Tombstoned | State::Undone | State::UndoRefused => true,
            };
            for text in [POSTGRES, SQLITE] {
                assert_eq!(text.contains(&format!("'{}'", state.as_str())), over, "{state:?}");
            }
        }
    }
}
