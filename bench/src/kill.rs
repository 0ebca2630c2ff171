//! kill -9 of one of two orchestrators: how long until the other has ended every saga that was in flight, its own and
//! those of the dead, while its own clients go on asking for more.
//!
//! Must hold: the dead one stays dead until the last is ended; a saga counts as in flight when its start was committed
//! before the kill, whoever started it; times are taken outside the engines, from the instant before the kill to the look
//! that finds nothing open any more.

use std::time::Duration;

use anyhow::{Context, bail};
use db::Db;
use runtime::Tasks;
use saga_defs::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ConnectionTrait, QueryResult};
use serde::Serialize;
use serde_json::json;
use testkit::process::Process;
use tokio::time::Instant;

use crate::args::{KillArgs, Side};
use crate::entry::entry;
use crate::load::{Arrival, Load};
use crate::say;
use crate::world::{self, Setup};

/// How the two orchestrators are set up.
const SETUP: Setup = Setup { http: false, batch: true, workers: None };
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// When it counts as never.
const ENDED_MAX: Duration = Duration::from_secs(60);
/// How long an effect that is made twice is waited for.
const SETTLED: Duration = Duration::from_secs(2);
/// Longer than any measurement.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// One kill.
#[derive(Clone, Debug, Default, Serialize)]
struct Round {
    in_flight: u64,
    seconds_until_decided: f64,
    seconds_until_ended: f64,
    /// Of those in flight, how many had not ended after so many tenths of a second.
    open_by_tenths: Vec<u64>,
    /// What the outbox held at the first look: rows, and how many milliseconds ahead the last is due.
    outbox_rows: u64,
    outbox_due_in_ms: i64,
}

/// Kills one of two, again and again, a new one in its place each time.
pub(crate) async fn run(args: KillArgs) -> anyhow::Result<()> {
    let services = world::settled_services().await?;
    let vhost = services.vhost().await;
    let (url, amqp) = (services.postgres_url(), vhost.url());
    let effects = world::effects(url).await?;
    let engine = world::opened(url, "engine").await?;
    migrations::up::<migrations::Engine>(engine.unlimited()).await?;
    let _participants = world::serving(Side::Engine, url, amqp, true).await?;
    // Each has as many clients as sagas are wanted: about half of them all wait for their start at any instant.
    let clients = args.in_flight.max(1).to_string();
    let role = ["orchestrator", "--postgres", url, "--amqp", amqp, "--in-flight", &clients];
    let (mut victim, mut survivor) = (world::children(&role).await?, world::children(&role).await?);
    let mut rounds = Vec::new();
    for number in 1..=args.rounds.max(1) {
        eprintln!("{number} of {}: {} s of load, then the kill", args.rounds, args.warm_up);
        tokio::time::sleep(Duration::try_from_secs_f64(args.warm_up)?).await;
        until_in_flight(&engine, args.in_flight).await?;
        let round = measure(&engine, &mut victim).await?;
        eprintln!("{}", serde_json::to_string(&round)?);
        rounds.push(round);
        // The other one next time.
        victim = std::mem::replace(&mut survivor, world::children(&role).await?);
    }
    tokio::time::sleep(SETTLED).await;
    let doubled = world::doubled(&effects).await?;
    let worst = |figure: fn(&Round) -> f64| rounds.iter().map(figure).fold(0.0, f64::max);
    let report = json!({
        "in_flight": rounds.iter().map(|round| round.in_flight).min(),
        "seconds_until_decided": worst(|round| round.seconds_until_decided),
        "seconds_until_ended": worst(|round| round.seconds_until_ended),
        "doubled": doubled,
        "rounds": rounds,
    });
    say(&report.to_string());
    if doubled > 0 {
        bail!("{doubled} effects were made more than once");
    }
    Ok(())
}

/// Waits for an instant with enough open sagas, whose number swings from commit to commit.
async fn until_in_flight(engine: &Db, wanted: usize) -> anyhow::Result<()> {
    let limit = Instant::now() + ENDED_MAX;
    while open(engine, engine.now()).await?.sagas < wanted as u64 {
        if Instant::now() > limit {
            bail!("never {wanted} sagas in flight");
        }
    }
    Ok(())
}

async fn measure(engine: &Db, victim: &mut Process) -> anyhow::Result<Round> {
    let begun = Instant::now();
    victim.kill().context("it can't be killed")?;
    let killed_at = engine.now();
    let (outbox_rows, outbox_due_in_ms) = outbox(engine, killed_at).await?;
    let mut round = Round { outbox_rows, outbox_due_in_ms, ..Round::default() };
    loop {
        let open = open(engine, killed_at).await?;
        let seconds = begun.elapsed().as_secs_f64();
        while (round.open_by_tenths.len() as f64 + 1.0) / 10.0 <= seconds {
            round.open_by_tenths.push(open.sagas);
        }
        if open.undecided > 0 {
            round.seconds_until_decided = seconds;
        }
        if open.sagas == 0 {
            round.seconds_until_ended = seconds;
            round.in_flight = in_flight(engine, killed_at).await?;
            return Ok(round);
        }
        if begun.elapsed() > ENDED_MAX {
            bail!("{} sagas have not ended {} s after the kill", open.sagas, ENDED_MAX.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Sagas that have not ended.
struct Open {
    sagas: u64,
    undecided: u64,
}

async fn open(engine: &Db, born_until: Timestamp) -> anyhow::Result<Open> {
    let select = Query::select()
        .expr_as(Expr::col("id").count(), "sagas")
        .expr_as(Expr::col("decided_at").count(), "decided")
        .from("sagas")
        // As the index has it: what has ended is not looked at.
        .and_where(Expr::col("tenant").eq("bench"))
        .and_where(Expr::col("status").is_in(["running", "compensating", "stuck"]))
        .and_where(Expr::col("created_at").lte(born_until.0))
        .to_owned();
    let row = one(engine, &select).await?;
    let (sagas, decided): (i64, i64) = (row.try_get("", "sagas")?, row.try_get("", "decided")?);
    Ok(Open { sagas: sagas.unsigned_abs(), undecided: (sagas - decided).unsigned_abs() })
}

/// Sagas that were there at that instant and had not ended.
async fn in_flight(engine: &Db, at: Timestamp) -> anyhow::Result<u64> {
    let select = Query::select()
        .expr_as(Expr::col("id").count(), "sagas")
        .from("sagas")
        .and_where(Expr::col("created_at").lte(at.0))
        .and_where(Expr::col("ended_at").gt(at.0))
        .to_owned();
    let sagas: i64 = one(engine, &select).await?.try_get("", "sagas")?;
    Ok(sagas.unsigned_abs())
}

async fn outbox(engine: &Db, now: Timestamp) -> anyhow::Result<(u64, i64)> {
    let select = Query::select()
        .expr_as(Expr::col("id").count(), "rows")
        .expr_as(Expr::col("due_at").max(), "due")
        .from("outbox")
        .to_owned();
    let row = one(engine, &select).await?;
    let (rows, due): (i64, Option<i64>) = (row.try_get("", "rows")?, row.try_get("", "due")?);
    Ok((rows.unsigned_abs(), due.map_or(0, |due| (due - now.0) / 1_000)))
}

async fn one(engine: &Db, select: &sea_orm::sea_query::SelectStatement) -> anyhow::Result<QueryResult> {
    engine.reader().query_one(select).await?.context("a count is one row")
}

/// One of the two, with its own clients: until it is killed.
pub(crate) async fn orchestrator(postgres: &str, amqp: &str, in_flight: usize) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let engine = world::orchestrator(postgres, amqp, &tasks, SETUP).await?;
    let entry = entry(engine, SETUP, &tasks).await?;
    say("ready");
    let arrival = Arrival::Closed { in_flight };
    let load = Load { arrival, warm_up: Duration::ZERO, window: FOR_EVER, refusals: 0.0 };
    load.run(entry, async || {}, async || {}).await.map(|_| ())
}
