//! What SQLite alone takes for a saga: its rows in as many transactions as it has, one after the other, and nothing around
//! them. No engine, no messages, no state to read or to work out, no second index, no input, no start key.
//!
//! For telling how much of a figure of the embedded stack is the database's. Must hold: rows are as long as those of the job,
//! durable like the product's and written through the same driver, so that nothing which the product can't do is counted
//! as saved.

use std::time::Duration;

use anyhow::{Context, bail};
use db::Db;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use sea_orm::{ConnectionTrait as _, DbErr, Statement};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::args::FloorArgs;
use crate::bare_sql::{EVENTS, OUTCOME, STATE};
use crate::job::{STEPS, create_effects};
use crate::meter::{Group, Meter};
use crate::{effects_sql, say};

const ENGINE: [&str; 2] = [
    "create table sagas (id blob primary key, version integer not null, state text not null)",
    "create table history (saga_id blob, seq integer, events text not null, primary key (saga_id, seq))",
];
const INBOX: &str = "create table inbox (key blob primary key, saga_id blob not null, outcome text not null)";

const START: &str = "begin immediate;
    insert into sagas select unhex(value), 1, $2 from json_each($1);
    insert into history select unhex(value), 1, $3 from json_each($1);
    commit; select 1 as committed";
const CHANGE: &str = "begin immediate;
    update sagas set version = version + 1, state = $2 where id in (select unhex(value) from json_each($1));
    insert into history select unhex(value), $4, $3 from json_each($1);
    commit; select 1 as committed";
const ANSWER: &str = "insert into inbox select unhex(value), unhex(value), ?2 from json_each(?1)";

/// The databases of one engine and its participants.
struct Owners {
    engine: Db,
    participants: Vec<Db>,
}

/// Moves cohorts of sagas for as long as was asked, and prints what that came to.
pub(crate) async fn run(args: FloorArgs) -> anyhow::Result<()> {
    if args.sagas == 0 || args.cohorts == 0 {
        bail!("give --sagas and --cohorts, more than zero");
    }
    let dir = tempfile::Builder::new().prefix("bookend-bench-").tempdir()?;
    let owners = create(dir.path()).await?;
    let meter = Meter { groups: vec![Group::of("all", std::process::id())] };
    let ends = Instant::now() + Duration::try_from_secs_f64(args.warm_up)?;
    try_join_all((0..args.cohorts).map(|_| move_cohorts(&owners, args.sagas, ends))).await?;
    let (before, began) = (meter.read(None).await?, Instant::now());
    let ends = began + Duration::try_from_secs_f64(args.seconds)?;
    let moved = try_join_all((0..args.cohorts).map(|_| move_cohorts(&owners, args.sagas, ends))).await?;
    let (after, seconds) = (meter.read(None).await?, began.elapsed().as_secs_f64());
    let mut latency = Histogram::<u64>::new(3).context("three digits")?;
    moved.iter().try_for_each(|of_cohort| latency.add(of_cohort)).context("latencies")?;
    let sagas = latency.len() as f64 * args.sagas as f64;
    let cpu: f64 = after.cpu_seconds.values().sum::<f64>() - before.cpu_seconds.values().sum::<f64>();
    let report = json!({
        "cohorts": args.cohorts,
        "sagas_per_cohort": args.sagas,
        "sagas_per_second": sagas / seconds,
        "p50_ms": latency.value_at_quantile(0.5) as f64 / 1_000.0,
        "cpu_seconds_per_1000": cpu / sagas * 1_000.0,
    });
    say(&report.to_string());
    Ok(())
}

async fn create(dir: &std::path::Path) -> anyhow::Result<Owners> {
    let engine = Db::open_sqlite(&dir.join("engine.sqlite")).await?;
    for table in ENGINE {
        engine.writer().execute_unprepared(table).await?;
    }
    let mut participants = Vec::new();
    for step in STEPS {
        let db = Db::open_sqlite(&dir.join(format!("{step}.sqlite"))).await?;
        create_effects(db.writer()).await?;
        db.writer().execute_unprepared(INBOX).await?;
        participants.push(db);
    }
    Ok(Owners { engine, participants })
}

/// Moves one cohort after the other until then; how long each took, in microseconds.
async fn move_cohorts(owners: &Owners, sagas: usize, ends: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut latency = Histogram::new(3).context("three digits")?;
    while Instant::now() < ends {
        let began = Instant::now();
        let ids: Vec<Uuid> = (0..sagas).map(|_| Uuid::now_v7()).collect();
        let set = json!(ids.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>()).to_string();
        let texts = || vec![set.clone(), "s".repeat(STATE), "e".repeat(EVENTS)];
        owners.engine.sqlite_script(START, texts()).await?;
        for (seq, (step, db)) in (2..).zip(STEPS.into_iter().zip(&owners.participants)) {
            participate(db, &ids, &set, step).await?;
            let changed = texts().into_iter().chain([format!("{seq}")]).collect();
            owners.engine.sqlite_script(CHANGE, changed).await?;
        }
        latency.record(u64::try_from(began.elapsed().as_micros())?).context("a latency")?;
    }
    Ok(latency)
}

async fn participate(db: &Db, ids: &[Uuid], set: &str, step: &'static str) -> Result<(), db::Error> {
    let (ids, set) = (ids.to_vec(), set.to_owned());
    db.transaction(move |tx| {
        let (ids, set) = (ids.clone(), set.clone());
        Box::pin(async move {
            effects_sql::insert(tx, &ids, step, false).await?;
            let values: [sea_orm::Value; 2] = [set.into(), "o".repeat(OUTCOME).into()];
            tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), ANSWER, values)).await?;
            Ok::<(), DbErr>(())
        })
    })
    .await
}
