//! The effects of the measured job, as one statement over a set, like those of the product's own participants.

use db::Transaction;
use db::sets::Text;
use sea_orm::{ConnectionTrait as _, DbErr};
use uuid::Uuid;

const INSERT: Text = Text {
    postgres: "insert into effects (saga_id, step, undone) select n.saga_id, $2, $3 from unnest($1::uuid[]) as n (saga_id)",
    sqlite: "insert into effects (saga_id, step, undone) select unhex(value), ?2, ?3 from json_each(?1)",
};

/// Writes one effect for each of the sagas.
pub(crate) async fn insert(tx: &Transaction, sagas: &[Uuid], step: &str, undone: bool) -> Result<(), DbErr> {
    if sagas.is_empty() {
        return Ok(());
    }
    let statement = INSERT.over_ids(tx.get_database_backend(), sagas, [step.into(), undone.into()]);
    tx.execute_raw(statement).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job;

    #[tokio::test]
    async fn one_effect_each_and_a_second_one_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let db = db::Db::open_sqlite(&dir.path().join("effects.sqlite")).await.unwrap();
        job::create_effects(db.writer()).await.unwrap();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for (sagas, undone, doubled) in [(vec![one, other], false, 0), (vec![one], true, 0), (vec![other], false, 1)] {
            let tx = db.begin().await.unwrap();
            insert(&tx, &sagas, "reserve", undone).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(job::doubled(db.reader()).await.unwrap(), doubled);
        }
    }
}
