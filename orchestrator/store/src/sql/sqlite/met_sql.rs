//! What starts have met: the owners of their start keys, and the open sagas with their business keys.
//!
//! Must hold: it is read after the commit that met it.

use std::collections::BTreeMap;

use db::Db;
use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use uuid::Uuid;

use crate::sql::commit_rows::Key;
use crate::sql::set_sql;
use crate::{Error, Outcome, Transition};

/// One statement for both, so that they are of one moment; a start key says more than a business key.
const MET: &str = concat!(
    "
select n.saga_id as id, k.saga_id as saga_id, k.fingerprint as fingerprint, s.id as open_id
from ",
    keys!("?"),
    "
left join start_keys as k on k.tenant = n.tenant and k.principal = n.principal and k.key = n.key
left join sagas as s on s.tenant = n.saga_tenant and s.business_key = n.business_key and s.ended_at is null"
);

/// What each of these starts has met; nothing for one that would find its keys free now.
pub(in crate::sql) async fn read(db: &Db, starts: &[&Transition]) -> Result<BTreeMap<Uuid, Outcome>, Error> {
    let keys: Vec<Key<'_>> = starts.iter().filter_map(|start| Key::of(start)).collect();
    let rows = db.reader().query_all_raw(set_sql::over(MET, &keys)).await.map_err(db::Error::from)?;
    let met: Result<Vec<Option<(Uuid, Outcome)>>, DbErr> = rows.iter().map(met).collect();
    Ok(met.map_err(db::Error::from)?.into_iter().flatten().collect())
}

fn met(row: &QueryResult) -> Result<Option<(Uuid, Outcome)>, DbErr> {
    let id = row.try_get("", "id")?;
    if let Some(saga_id) = row.try_get::<Option<Uuid>>("", "saga_id")? {
        return Ok(Some((id, Outcome::KeyTaken { saga_id, fingerprint: row.try_get("", "fingerprint")? })));
    }
    let open: Option<Uuid> = row.try_get("", "open_id")?;
    Ok(open.map(|saga_id| (id, Outcome::BusinessKeyTaken { saga_id })))
}
