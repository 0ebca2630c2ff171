//! Published definitions.
//!
//! Must hold: what is published never changes; a call publishes all it was given or nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use db::Transaction;
use saga_defs::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult};

use super::{SqlStore, rows};
use crate::{Error, PublishedDefinition};

/// Rows of one statement: a database limits the number of parameters.
const ROWS_MAX: usize = 500;

#[derive(FromQueryResult)]
struct Row {
    name: String,
    version: i32,
    digest: String,
    body: String,
}

impl From<Row> for PublishedDefinition {
    fn from(row: Row) -> Self {
        let version = u32::try_from(row.version).unwrap_or(0);
        Self { name: row.name, version, digest: row.digest, body: row.body }
    }
}

pub(super) async fn publish(store: &SqlStore, definitions: &[PublishedDefinition]) -> Result<(), Error> {
    if definitions.is_empty() {
        return Ok(());
    }
    let (definitions, now): (Arc<[_]>, _) = (definitions.into(), store.db.now());
    let changed: Arc<OnceLock<String>> = Arc::default();
    let found = Arc::clone(&changed);
    let published = store.db.transaction(move |tx| {
        let (definitions, found) = (Arc::clone(&definitions), Arc::clone(&found));
        Box::pin(async move { insert(tx, &definitions, now, &found).await })
    });
    match (published.await, changed.get()) {
        (Err(_), Some(reference)) => Err(Error::DefinitionChanged(reference.clone())),
        (published, _) => Ok(published?),
    }
}

/// Fails, so that all is rolled back, when a definition is published with another content, which it then names.
async fn insert(
    tx: &Transaction,
    definitions: &[PublishedDefinition],
    now: Timestamp,
    found: &OnceLock<String>,
) -> Result<(), DbErr> {
    check(tx, definitions, found).await?;
    for chunk in definitions.chunks(ROWS_MAX) {
        let mut insert = Query::insert();
        insert
            .into_table("definitions")
            .columns(["name", "version", "digest", "body", "published_at"])
            .on_conflict(OnConflict::new().do_nothing().to_owned());
        for definition in chunk {
            insert.values_panic([
                definition.name.as_str().into(),
                definition.version.into(),
                definition.digest.as_str().into(),
                definition.body.as_str().into(),
                now.0.into(),
            ]);
        }
        tx.execute(&insert).await?;
    }
    // An insert waits for whoever publishes the same version, and then inserts nothing: that one was not there before.
    check(tx, definitions, found).await
}

async fn check(tx: &Transaction, definitions: &[PublishedDefinition], found: &OnceLock<String>) -> Result<(), DbErr> {
    for chunk in definitions.chunks(ROWS_MAX) {
        if let Some(reference) = changed(tx, chunk).await? {
            found.get_or_init(|| reference);
            return Err(DbErr::RecordNotInserted);
        }
    }
    Ok(())
}

/// The reference of a definition that is published with another content.
async fn changed(tx: &Transaction, definitions: &[PublishedDefinition]) -> Result<Option<String>, DbErr> {
    let names = definitions.iter().map(|definition| definition.name.as_str());
    let select = Query::select()
        .columns(["name", "version", "digest", "body"])
        .from("definitions")
        .and_where(Expr::col("name").is_in(names))
        .to_owned();
    let stored: Vec<Row> = rows(tx, &select).await?;
    let stored = stored.into_iter().map(PublishedDefinition::from);
    let digests: BTreeMap<_, _> = stored.map(|row| ((row.name, row.version), row.digest)).collect();
    let other = definitions.iter().find(|definition| {
        let stored = digests.get(&(definition.name.clone(), definition.version));
        stored.is_some_and(|digest| *digest != definition.digest)
    });
    Ok(other.map(|definition| format!("{}@{}", definition.name, definition.version)))
}

pub(super) async fn all(store: &SqlStore) -> Result<Vec<PublishedDefinition>, Error> {
    let select = Query::select()
        .columns(["name", "version", "digest", "body"])
        .from("definitions")
        .order_by("name", Order::Asc)
        .order_by("version", Order::Asc)
        .to_owned();
    Ok(store.read::<Row, _>(&select).await?.into_iter().map(PublishedDefinition::from).collect())
}
