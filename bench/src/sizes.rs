//! How large tables and indexes are, how deep, and what they would be with more sagas.
//!
//! Not for what a statement takes. Must hold: what is computed for more sagas is computed from what is there, by growth in
//! proportion; an index that holds only what is open does not grow.

use std::collections::BTreeMap;

use serde::Serialize;
use testkit::Services;

use crate::job::STEPS;

/// An index and what was done with it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Index {
    pub(crate) owner: String,
    table: String,
    pub(crate) name: String,
    pub(crate) bytes: f64,
    /// Pages above the leaves on each way down.
    pub(crate) level: f64,
    leaf_pages: f64,
    internal_pages: f64,
    /// Ways down since the server began: searches, and entries written.
    #[serde(skip)]
    pub(crate) descents: f64,
}

/// A table with what is stored out of line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    owner: String,
    name: String,
    bytes: f64,
    rows: f64,
}

/// What an engine and its participants have stored.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sizes {
    pub(crate) tables: Vec<Table>,
    pub(crate) indexes: Vec<Index>,
}

/// As text, because the server's tool prints text.
const TABLES: &str = "select n.nspname, c.relname, pg_table_size(c.oid), greatest(c.reltuples, 0)
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.relkind = 'r' and n.nspname in";

/// Entries are written by inserts, and by updates that leave their page's chain. A partial index gets fewer: what is said
/// of it is the most that it can be.
const INDEXES: &str = "select n.nspname, t.relname, i.relname, s.index_size, s.tree_level, s.leaf_pages,
        s.internal_pages, u.idx_scan + r.n_tup_ins + r.n_tup_upd - r.n_tup_hot_upd
    from pg_index as x join pg_class as i on i.oid = x.indexrelid join pg_class as t on t.oid = x.indrelid
    join pg_namespace as n on n.oid = i.relnamespace
    join pg_stat_user_indexes as u on u.indexrelid = i.oid join pg_stat_user_tables as r on r.relid = t.oid
    cross join lateral pgstatindex(i.oid::regclass) as s where n.nspname in";

impl Sizes {
    pub(crate) async fn read(services: &Services) -> anyhow::Result<Self> {
        services.query("create extension if not exists pgstattuple;").await?;
        let owners: Vec<String> = ["engine"].iter().chain(&STEPS).map(|owner| format!("'{owner}'")).collect();
        let ask = async |sql: &str| services.query(&format!("{sql} ({});", owners.join(", "))).await;
        let (tables, indexes) = (ask(TABLES).await?, ask(INDEXES).await?);
        let mut indexes: Vec<Index> =
            indexes.lines().filter_map(|line| index(&line.split('|').collect::<Vec<_>>())).collect();
        // Two readings are compared one by one.
        indexes.sort_by(|one, other| (&one.owner, &one.name).cmp(&(&other.owner, &other.name)));
        Ok(Self {
            tables: tables.lines().filter_map(|line| table(&line.split('|').collect::<Vec<_>>())).collect(),
            indexes,
        })
    }

    pub(crate) fn bytes(&self) -> f64 {
        let tables = self.tables.iter().map(|table| table.bytes);
        tables.chain(self.indexes.iter().map(|index| index.bytes)).sum()
    }

    /// Bytes for each finished saga, by table; what the indexes of a table take is in it.
    pub(crate) fn bytes_per_saga(&self, sagas: f64) -> BTreeMap<String, f64> {
        let mut bytes = BTreeMap::new();
        for table in &self.tables {
            *bytes.entry(table.name.clone()).or_insert(0.0) += table.bytes / sagas;
        }
        for index in &self.indexes {
            *bytes.entry(index.table.clone()).or_insert(0.0) += index.bytes / sagas;
        }
        bytes.retain(|_, bytes| *bytes >= 1.0);
        bytes
    }

    /// The indexes with `times` as many entries, where they grow at all: how deep, by name.
    pub(crate) fn levels(&self, sagas: f64, times: f64) -> BTreeMap<String, (f64, f64)> {
        let grown =
            |index: &Index| (format!("{}.{}", index.owner, index.name), (index.level, index.grown(sagas, times)));
        self.indexes.iter().filter(|index| index.grows(sagas)).map(grown).collect()
    }

    /// Pages that each saga would touch in addition, by whether they are the engine's, with `times` as many entries:
    /// one for each level and each way down, of which `before` had seen so many, `done` sagas ago.
    pub(crate) fn more_pages(&self, before: &Self, done: f64, sagas: f64, times: f64) -> (f64, f64) {
        let (mut engine, mut others) = (0.0, 0.0);
        for (index, then) in self.indexes.iter().zip(&before.indexes) {
            let descents = (index.descents - then.descents) / done;
            let more = descents * (then.grown(sagas, times) - then.level);
            *(if index.owner == "engine" { &mut engine } else { &mut others }) += more;
        }
        (engine, others)
    }
}

impl Index {
    /// An entry for each saga takes more than four bytes.
    fn grows(&self, sagas: f64) -> bool {
        self.leaf_pages * 8_192.0 > sagas * 4.0
    }

    /// Its depth with `times` as many entries, if each page above the leaves holds as many as now.
    fn grown(&self, sagas: f64, times: f64) -> f64 {
        if !self.grows(sagas) || self.internal_pages < 2.0 {
            return self.level;
        }
        let (fanout, leaves) = (self.leaf_pages / self.internal_pages, self.leaf_pages * times);
        (leaves.ln() / fanout.ln()).ceil().max(self.level)
    }
}

fn number(text: Option<&&str>) -> Option<f64> {
    text?.trim().parse().ok()
}

fn table(fields: &[&str]) -> Option<Table> {
    let name = |at: usize| fields.get(at).map(|text| (*text).to_owned());
    Some(Table { owner: name(0)?, name: name(1)?, bytes: number(fields.get(2))?, rows: number(fields.get(3))? })
}

fn index(fields: &[&str]) -> Option<Index> {
    let name = |at: usize| fields.get(at).map(|text| (*text).to_owned());
    Some(Index {
        owner: name(0)?,
        table: name(1)?,
        name: name(2)?,
        bytes: number(fields.get(3))?,
        level: number(fields.get(4))?,
        leaf_pages: number(fields.get(5))?,
        internal_pages: number(fields.get(6))?,
        descents: number(fields.get(7))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_grows_by_a_level_when_its_pages_are_full() {
        let line = "engine|sagas|sagas_pkey|40960000|2|5000|26|7".split('|').collect::<Vec<_>>();
        let index = index(&line).unwrap();
        assert_eq!(index.grown(1e6, 1.0), 2.0);
        assert_eq!(index.grown(1e6, 100.0), 3.0);
        let open = Index { leaf_pages: 3.0, internal_pages: 1.0, level: 1.0, ..index };
        assert_eq!(open.grown(1e6, 100.0), 1.0, "it holds what is open");
    }
}
