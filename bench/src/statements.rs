//! What each statement costs the database, from `pg_stat_statements`.
//!
//! Not for judging. Must hold: costs are of the window alone, so the counters are set back when it begins.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Serialize;
use testkit::Services;

/// How many of the dearest are told.
const TOLD: u32 = 16;

/// One statement, whatever its parameters.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) calls: f64,
    /// Time in the server, of all calls.
    pub(crate) ms: f64,
    pub(crate) rows: f64,
    /// Pages touched, of all calls.
    pub(crate) buffers: f64,
}

/// Begins to count.
pub(crate) async fn reset(services: &Services) -> anyhow::Result<()> {
    let sql = "create extension if not exists pg_stat_statements; select pg_stat_statements_reset();";
    services.query(sql).await.map(|_| ()).context("pg_stat_statements is not there")
}

/// The dearest statements, the dearest first.
pub(crate) async fn read(services: &Services) -> anyhow::Result<Vec<Statement>> {
    let sql = format!(
        "select calls, total_exec_time, rows, shared_blks_hit + shared_blks_read, \
         left(regexp_replace(query, '\\s+', ' ', 'g'), 90) from pg_stat_statements \
         order by total_exec_time desc limit {TOLD};"
    );
    Ok(services.query(&sql).await?.lines().filter_map(statement).collect())
}

fn statement(line: &str) -> Option<Statement> {
    let mut parts = line.splitn(5, '|');
    let mut number = || parts.next()?.trim().parse::<f64>().ok();
    let (calls, ms, rows, buffers) = (number()?, number()?, number()?, number()?);
    Some(Statement { text: parts.next()?.to_owned(), calls, ms, rows, buffers })
}

/// All statements over tables of ours, by their text: those of several schemas together.
pub(crate) async fn all(services: &Services) -> anyhow::Result<BTreeMap<String, Statement>> {
    // Inserts of any number of rows are one statement; long texts begin alike, so that their length is part of the name.
    let sql = "select sum(calls), sum(total_exec_time), sum(rows), sum(shared_blks_hit + shared_blks_read), \
               left(min(text), 100) || ' (' || length(min(text)) || ' characters)' \
               from (select *, regexp_replace(regexp_replace(query, '\\s+', ' ', 'g'), \
               '(VALUES \\([^)]*\\))(, \\([^)]*\\))+', '\\1, ...') as text from pg_stat_statements) as each \
               where text ~* '(from|into|update) ' and text !~* 'pg_' group by md5(text);";
    let statements = services.query(sql).await?;
    Ok(statements.lines().filter_map(statement).map(|statement| (statement.text.clone(), statement)).collect())
}
