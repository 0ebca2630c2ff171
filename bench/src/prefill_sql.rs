//! Finished sagas in bulk: as many copies as wanted of a few that have really run, at every owner.
//!
//! Not for sagas that anything is still done with. Must hold: a copy has the bytes of its original and ids that lie as
//! real ones do, those of sagas in the order of time and those of effects anywhere; its instants lie before the original's;
//! nothing but these rows is left behind.

use std::collections::BTreeMap;

use std::time::Duration;

use anyhow::{Context, bail};
use db::Db;
use futures_util::future::try_join_all;
use saga_defs::Timestamp;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{AssertSqlSafe, Connection, raw_sql};
use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement};
use uuid::Uuid;

use crate::load::Entry;
use crate::world::Owners;

/// Sagas that are run and then copied.
const ORIGINALS: u64 = 8;
/// Their numbers, apart from those of any load.
const FIRST: u64 = u64::MAX / 4;
/// Copies of one transaction.
const CHUNK: u64 = 50_000;
/// Between the starts of two copies.
const GAP_US: i64 = 1_000;
/// Until the originals have ended.
const END_MAX: Duration = Duration::from_secs(60);

/// A table whose rows belong to sagas.
struct Table {
    name: &'static str,
    /// The column with the saga's id.
    saga: &'static str,
    instants: &'static [&'static str],
    /// The column that is made anew for each row, and how.
    key: Option<(&'static str, Key)>,
    /// Percent of a page that copies may fill, where that is not what rows may fill otherwise. A row that was placed while it
    /// was small and grew where it lay leaves less room than one that is placed as it ends; without this, new rows would lie
    /// between old ones, in pages that nobody touches any more.
    filled: Option<u32>,
}

/// How a key of its own is made.
#[derive(Clone, Copy)]
enum Key {
    /// As clients number what they start.
    Numbered,
    /// As derived ids lie.
    Random,
}

const ENGINE: [Table; 4] = [
    Table {
        name: "sagas",
        saga: "id",
        instants: &["created_at", "updated_at", "decided_at", "ended_at"],
        key: None,
        filled: Some(60),
    },
    Table { name: "history", saga: "saga_id", instants: &["at"], key: None, filled: None },
    Table {
        name: "start_keys",
        saga: "saga_id",
        instants: &["created_at"],
        key: Some(("key", Key::Numbered)),
        filled: None,
    },
    Table { name: "saga_inputs", saga: "saga_id", instants: &[], key: None, filled: None },
];

const PARTICIPANT: [Table; 2] = [
    Table {
        name: "inbox",
        saga: "saga_id",
        instants: &["created_at", "updated_at"],
        key: Some(("key", Key::Random)),
        filled: None,
    },
    Table { name: "effects", saga: "saga_id", instants: &[], key: None, filled: None },
];

/// Writes as many finished sagas at every owner.
pub(crate) async fn fill(owners: &Owners, entry: &dyn Entry, sagas: u64) -> anyhow::Result<()> {
    for number in 0..ORIGINALS {
        entry.run(FIRST + number, false).await?;
    }
    let originals = originals(&owners.engine).await?;
    let ids = ids_table(&owners.engine).await?;
    let mut hands = vec![Hand::new(&owners.engine, &ENGINE, &originals).await?];
    hands[0].run(&made(&owners.engine, &ids.here, &originals, sagas)).await?;
    for participant in &owners.participants {
        let mut hand = Hand::new(participant, &PARTICIPANT, &originals).await?;
        if let Some(attach) = &ids.attach {
            hand.run(attach).await?;
        }
        hands.push(hand);
    }
    let mut first = 1;
    while first <= sagas {
        let last = sagas.min(first + CHUNK - 1);
        let copies = hands.iter_mut().enumerate().map(|(number, hand)| {
            let ids = if number == 0 { &ids.here } else { &ids.there };
            hand.copy(ids, first, last)
        });
        try_join_all(copies).await?;
        eprintln!("{last} finished sagas written");
        first = last + 1;
    }
    for hand in hands[1..].iter_mut() {
        hand.clear(ids.attach.is_some()).await?;
    }
    hands[0].run(&format!("drop table {}", ids.here)).await?;
    hands[0].clear(false).await?;
    let written = hands[0].count("sagas").await?;
    if written < sagas + ORIGINALS {
        bail!("{written} sagas are there, {sagas} copies were to be written");
    }
    Ok(())
}

/// The sagas to copy, once all have ended, and when each began.
async fn originals(engine: &Db) -> anyhow::Result<Vec<(Uuid, Timestamp)>> {
    let text = format!("select id, created_at from sagas where ended_at is not null order by id limit {ORIGINALS}");
    let rows = testkit::eventually(END_MAX, "the first sagas end", async || {
        let rows = asked(engine, &text).await.map_err(|error| error.to_string())?;
        if rows.len() as u64 == ORIGINALS { Ok(rows) } else { Err(format!("{} have ended", rows.len())) }
    })
    .await;
    let original = |row: &QueryResult| Ok((row.try_get("", "id")?, Timestamp(row.try_get("", "created_at")?)));
    rows.iter().map(original).collect()
}

async fn asked(db: &Db, text: &str) -> Result<Vec<QueryResult>, sea_orm::DbErr> {
    db.reader().query_all_raw(Statement::from_string(db.backend(), text.to_owned())).await
}

/// Percent of a page that PostgreSQL fills with rows of this table.
async fn usually_filled(db: &Db, table: &str) -> anyhow::Result<u32> {
    let text = format!(
        "select coalesce(substring(array_to_string(reloptions, ',') from 'fillfactor=([0-9]+)'), '100') as percent \
         from pg_class where oid = '{table}'::regclass"
    );
    let rows = asked(db, &text).await?;
    let percent: String = rows.first().context("a table has a row")?.try_get("", "percent")?;
    Ok(percent.parse()?)
}

/// What the table of new ids is called where it is, and at the other owners.
struct Ids {
    here: String,
    there: String,
    /// What makes it known there.
    attach: Option<String>,
}

async fn ids_table(engine: &Db) -> anyhow::Result<Ids> {
    let (text, column) = match engine.backend() {
        DbBackend::Postgres => ("select current_schema()::text as place", "place"),
        _ => ("select file from pragma_database_list where name = 'main'", "file"),
    };
    let rows = asked(engine, text).await?;
    let place: String = rows.first().context("a database is somewhere")?.try_get("", column)?;
    Ok(match engine.backend() {
        DbBackend::Postgres => {
            let name = format!("{place}.filled");
            Ids { here: name.clone(), there: name, attach: None }
        }
        _ => Ids {
            here: "filled".to_owned(),
            there: "engine.filled".to_owned(),
            attach: Some(format!("attach database '{place}' as engine")),
        },
    })
}

/// Makes the table of new ids: one for each copy, born a little later than the one before.
fn made(engine: &Db, table: &str, originals: &[(Uuid, Timestamp)], sagas: u64) -> String {
    let born = originals.iter().map(|(_, born)| born.0).min().unwrap_or_default();
    let shift = format!("(n - {sagas} - 1) * {GAP_US}");
    let ms = format!("(({born} + {shift}) / 1000)");
    let (uuid, series, id) = match engine.backend() {
        DbBackend::Postgres => (
            "uuid",
            format!("select n from generate_series(1::bigint, {sagas}) as n"),
            format!(
                "(lpad(to_hex({ms}), 12, '0') || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid"
            ),
        ),
        _ => (
            "blob",
            format!(
                "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < {sagas}) \
                 select n from numbers"
            ),
            format!(
                "unhex(printf('%012x', {ms}) || '7' || substr(hex(randomblob(2)), 2) \
                 || '8' || substr(hex(randomblob(8)), 2))"
            ),
        ),
    };
    let of_original = |value: &dyn Fn(&(Uuid, Timestamp)) -> String| {
        let cases = originals.iter().enumerate().map(|(number, it)| format!("when {number} then {}", value(it)));
        format!("case n % {} {} end", originals.len(), cases.collect::<Vec<_>>().join(" "))
    };
    let original = of_original(&|(id, _)| literal(engine.backend(), *id));
    // The originals began one after the other; a copy begins when its own id says.
    let later = of_original(&|(_, its)| (its.0 - born).to_string());
    format!(
        "create table {table} (n bigint primary key, original {uuid}, id {uuid}, shift bigint); \
         insert into {table} select n, {original}, {id}, {shift} - {later} from ({series}) as numbers;"
    )
}

fn literal(backend: DbBackend, id: Uuid) -> String {
    match backend {
        DbBackend::Postgres => format!("'{id}'::uuid"),
        _ => format!("x'{}'", id.simple()),
    }
}

/// Whoever copies the rows of one owner. On PostgreSQL a session without a limit on how long a statement may take.
struct Hand {
    db: Db,
    session: Option<PgConnection>,
    tables: Vec<(&'static Table, Vec<String>)>,
    /// What each table's pages are filled to when nobody copies.
    usual: BTreeMap<&'static str, u32>,
}

impl Hand {
    /// With the originals' rows set apart, so that they need not be looked for among their copies.
    async fn new(db: &Db, tables: &'static [Table], originals: &[(Uuid, Timestamp)]) -> anyhow::Result<Self> {
        let session = match db.backend() {
            DbBackend::Postgres => {
                let options = db.unlimited().get_postgres_connection_pool().connect_options();
                let options = (*options).clone().options([("statement_timeout", "0")]);
                Some(PgConnection::connect_with(&options).await?)
            }
            _ => None,
        };
        let mut hand = Self { db: db.clone(), session, tables: Vec::new(), usual: BTreeMap::new() };
        let ids: Vec<String> = originals.iter().map(|(id, _)| literal(db.backend(), *id)).collect();
        for table in tables {
            let Table { name, saga, .. } = table;
            let ids = ids.join(", ");
            hand.run(&format!("create table filled_{name} as select * from {name} where {saga} in ({ids})")).await?;
            let rows = asked(db, &format!("select * from filled_{name}")).await?;
            let first = rows.first().with_context(|| format!("the first sagas left nothing in {name}"))?;
            hand.tables.push((table, first.column_names()));
            if let (DbBackend::Postgres, Some(filled)) = (db.backend(), table.filled) {
                hand.usual.insert(name, usually_filled(db, name).await?);
                hand.fill_pages(name, filled).await?;
            }
        }
        Ok(hand)
    }

    async fn run(&mut self, text: &str) -> anyhow::Result<()> {
        match &mut self.session {
            Some(session) => raw_sql(AssertSqlSafe(text.to_owned())).execute(session).await.map(|_| ())?,
            None => self.db.writer().execute_unprepared(text).await.map(|_| ())?,
        }
        Ok(())
    }

    async fn fill_pages(&mut self, table: &str, percent: u32) -> anyhow::Result<()> {
        self.run(&format!("alter table {table} set (fillfactor = {percent})")).await
    }

    /// Writes the rows of some copies.
    async fn copy(&mut self, ids: &str, first: u64, last: u64) -> anyhow::Result<()> {
        let texts: Vec<String> = self
            .tables
            .iter()
            .map(|(table, columns)| copying(self.db.backend(), table, columns, ids, (first, last)))
            .collect();
        for text in texts {
            self.run(&text).await?;
        }
        Ok(())
    }

    /// Leaves nothing behind, and the tables as they are when nothing happened to them for long.
    async fn clear(&mut self, attached: bool) -> anyhow::Result<()> {
        let tables: Vec<&'static Table> = self.tables.iter().map(|(table, _)| *table).collect();
        for table in &tables {
            self.run(&format!("drop table filled_{}", table.name)).await?;
        }
        for (table, usual) in std::mem::take(&mut self.usual) {
            self.fill_pages(table, usual).await?;
        }
        let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
        if attached {
            self.run("detach database engine").await?;
        }
        match self.db.backend() {
            DbBackend::Postgres => self.run(&format!("vacuum (freeze, analyze) {}", names.join(", "))).await,
            _ => self.run("pragma wal_checkpoint(truncate)").await,
        }
    }

    async fn count(&self, table: &str) -> anyhow::Result<u64> {
        let rows = asked(&self.db, &format!("select count(*) as found from {table}")).await?;
        let found: i64 = rows.first().context("a count has a row")?.try_get("", "found")?;
        Ok(u64::try_from(found)?)
    }
}

/// `cross join`, which SQLite takes in the order in which it is written: one copy after the other.
fn copying(backend: DbBackend, table: &Table, columns: &[String], ids: &str, (first, last): (u64, u64)) -> String {
    let value = |column: &String| match table.key {
        _ if column == table.saga => "f.id".to_owned(),
        Some((key, Key::Numbered)) if column == key => "'filled-' || f.n".to_owned(),
        Some((key, Key::Random)) if column == key => match backend {
            DbBackend::Postgres => "gen_random_uuid()".to_owned(),
            _ => "randomblob(16)".to_owned(),
        },
        _ if table.instants.contains(&column.as_str()) => format!("t.{column} + f.shift"),
        _ => format!("t.{column}"),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let Table { name, saga, .. } = table;
    format!(
        "insert into {name} ({}) select {} from {ids} as f cross join filled_{name} as t \
         where t.{saga} = f.original and f.n between {first} and {last}",
        columns.join(", "),
        values.join(", "),
    )
}

#[cfg(test)]
mod tests;
