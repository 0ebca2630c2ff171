//! What starts have met: the owners of their start keys, and the open sagas with their business keys.
//!
//! Must hold: it is read after the statement that met it, whose own picture of the database may be older.

use std::collections::BTreeMap;

use db::Db;
use sea_orm::sqlx::postgres::{PgArguments, PgRow};
use sea_orm::sqlx::{Arguments as _, Error as Driver, Row};
use uuid::Uuid;

use crate::{Error, Guard, Outcome, StartKey, Transition};

/// One statement for both, so that they are of one moment; a start key says more than a business key.
const MET: &str = "
select n.id, k.saga_id, k.fingerprint, s.id as open_id
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
    as n (id, key_tenant, key_principal, start_key, tenant, business_key)
left join start_keys as k on k.tenant = n.key_tenant and k.principal = n.key_principal and k.key = n.start_key
left join sagas as s on s.tenant = n.tenant and s.business_key = n.business_key and s.ended_at is null";

/// What each of these starts has met; nothing for one that would find its keys free now.
pub(in crate::sql) async fn read(db: &Db, starts: &[&Transition]) -> Result<BTreeMap<Uuid, Outcome>, Error> {
    let rows = db.postgres_statement(MET, arguments(starts)).await?;
    let met: Result<Vec<Option<(Uuid, Outcome)>>, Driver> = rows.iter().map(met).collect();
    Ok(met.map_err(db::Error::from_driver)?.into_iter().flatten().collect())
}

fn arguments(starts: &[&Transition]) -> db::Bound {
    let start_key = |start: &&'_ Transition| -> Option<StartKey> {
        match &start.guard {
            Guard::Start { start_key, .. } => Some(start_key.clone()),
            Guard::Version(_) => None,
        }
    };
    let keys: Vec<Option<StartKey>> = starts.iter().map(start_key).collect();
    let part =
        |part: fn(&StartKey) -> &str| -> Vec<Option<&str>> { keys.iter().map(|key| key.as_ref().map(part)).collect() };
    let mut arguments = PgArguments::default();
    arguments.add(starts.iter().map(|start| start.header.id).collect::<Vec<Uuid>>())?;
    arguments.add(part(|key| &key.tenant))?;
    arguments.add(part(|key| &key.principal))?;
    arguments.add(part(|key| &key.key))?;
    arguments.add(starts.iter().map(|start| start.header.tenant.as_str()).collect::<Vec<&str>>())?;
    arguments.add(starts.iter().map(|start| start.header.key.as_deref()).collect::<Vec<Option<&str>>>())?;
    Ok(arguments)
}

fn met(row: &PgRow) -> Result<Option<(Uuid, Outcome)>, Driver> {
    let id = row.try_get("id")?;
    if let Some(saga_id) = row.try_get::<Option<Uuid>, _>("saga_id")? {
        return Ok(Some((id, Outcome::KeyTaken { saga_id, fingerprint: row.try_get("fingerprint")? })));
    }
    let open: Option<Uuid> = row.try_get("open_id")?;
    Ok(open.map(|saga_id| (id, Outcome::BusinessKeyTaken { saga_id })))
}
