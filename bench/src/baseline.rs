//! The baseline: the same job as somebody writes it who has no engine, and writes it well.
//!
//! One transaction per transition, one message at a time, every confirm awaited before the delivery is acknowledged; an
//! inbox at the participants and a history at the orchestrator, on the same kind of queue. Not an engine: it has no
//! timers, no relay and no operations, so whatever it costs is a lower bound of doing the job that way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use runtime::Tasks;
use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::sqlx::{PgPool, query, query_as, query_scalar};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::job::{Made, Place, STEPS};
use crate::load::Entry;

const REPLIES: &str = "naive.replies";
/// Deliveries that a consumer has in hand.
const PREFETCH: u16 = 256;
/// Sessions of the orchestrator, and of each participant.
const SESSIONS: [u32; 2] = [12, 4];

const TABLES: &str = "
create table if not exists naive_sagas (id uuid primary key, status text not null, step int not null, refuse boolean not null);
create table if not exists naive_history (saga_id uuid, seq int, event text not null, at timestamptz not null default now(), primary key (saga_id, seq));
create table if not exists naive_inbox (saga_id uuid, step text, undo boolean, outcome text not null, primary key (saga_id, step, undo));
create table if not exists effects (saga_id uuid not null, step text not null, undone boolean not null);
";

#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    saga_id: Uuid,
    at: Place,
    refuse: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answered {
    saga_id: Uuid,
    at: Place,
    done: bool,
}

/// A database and a broker.
struct Side {
    pool: PgPool,
    channel: Channel,
    _connection: Connection,
}

impl Side {
    async fn open(postgres: &str, amqp: &str, sessions: u32) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(sessions).test_before_acquire(false).connect(postgres).await?;
        let connection = Connection::connect(amqp, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        for queue in STEPS.map(queue_of).iter().map(String::as_str).chain([REPLIES]) {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.into(), options, arguments).await?;
        }
        Ok(Self { pool, channel, _connection: connection })
    }

    /// Publishes one message and waits until the broker has it.
    async fn publish<T: Serialize + Sync>(&self, queue: &str, message: &T) -> anyhow::Result<()> {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let (body, options) = (serde_json::to_vec(message)?, BasicPublishOptions::default());
        let confirm = self.channel.basic_publish("".into(), queue.into(), options, &body, properties).await?.await?;
        if confirm.is_nack() {
            bail!("the broker refused a message");
        }
        Ok(())
    }

    /// Handles each delivery of a queue in a task of its own, and acknowledges it when that is done.
    async fn consume<F, W>(self: Arc<Self>, queue: &str, tasks: &Tasks, handle: F) -> anyhow::Result<()>
    where
        F: Fn(Vec<u8>) -> W + Clone + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = self.channel.basic_consume(queue.into(), "".into(), options, arguments).await?;
        let inner = tasks.clone();
        tasks.spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let Delivery { data, acker, .. } = delivery;
                let work = handle(data);
                inner.spawn(async move {
                    if let Err(error) = work.await {
                        eprintln!("baseline: {error:#}");
                        return;
                    }
                    if let Err(error) = acker.ack(BasicAckOptions::default()).await {
                        eprintln!("baseline: {error}");
                    }
                });
            }
        });
        Ok(())
    }
}

fn queue_of(step: &str) -> String {
    format!("naive.{step}")
}

/// The orchestrator.
pub(crate) struct Baseline {
    side: Arc<Side>,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<bool>>>,
}

impl Baseline {
    pub(crate) async fn start(postgres: &str, amqp: &str, tasks: &Tasks) -> anyhow::Result<Arc<Self>> {
        let side = Arc::new(Side::open(postgres, amqp, SESSIONS[0]).await?);
        let it = Arc::new(Self { side: Arc::clone(&side), waiting: Mutex::default() });
        let handler = Arc::clone(&it);
        side.consume(REPLIES, tasks, move |body| Arc::clone(&handler).answered(body)).await?;
        Ok(it)
    }

    async fn ask(&self, asked: &Asked) -> anyhow::Result<()> {
        self.side.publish(&queue_of(STEPS[asked.at.step]), asked).await
    }

    async fn answered(self: Arc<Self>, body: Vec<u8>) -> anyhow::Result<()> {
        let answer: Answered = serde_json::from_slice(&body)?;
        let mut tx = self.side.pool.begin().await?;
        let (step, refuse): (i32, bool) = query_as("select step, refuse from naive_sagas where id = $1 for update")
            .bind(answer.saga_id)
            .fetch_one(&mut *tx)
            .await?;
        if answer.at.step != usize::try_from(step)? {
            bail!("an answer to another step");
        }
        let next = answer.at.next(answer.done);
        let status = match (next, answer.at.undo) {
            (Some(Place { undo: true, .. }), _) => "compensating",
            (Some(Place { undo: false, .. }), _) => "running",
            (None, true) => "compensated",
            (None, false) => "completed",
        };
        let at = next.unwrap_or(answer.at);
        query("update naive_sagas set status = $2, step = $3 where id = $1")
            .bind(answer.saga_id)
            .bind(status)
            .bind(i32::try_from(at.step)?)
            .execute(&mut *tx)
            .await?;
        // Steps are gone through once forward, and once back.
        let seq = if answer.at.undo { 2 * STEPS.len() + 1 - answer.at.step } else { 2 + answer.at.step };
        query("insert into naive_history (saga_id, seq, event) values ($1, $2, $3)")
            .bind(answer.saga_id)
            .bind(i32::try_from(seq)?)
            .bind(String::from_utf8_lossy(&body).into_owned())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        match next {
            Some(at) => self.ask(&Asked { saga_id: answer.saga_id, at, refuse }).await,
            None => {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&answer.saga_id);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(!answer.at.undo);
                }
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Entry for Baseline {
    async fn run(&self, _number: u64, refuse: bool) -> anyhow::Result<()> {
        let saga_id = Uuid::now_v7();
        let (ended, end) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(saga_id, ended);
        let mut tx = self.side.pool.begin().await?;
        query("insert into naive_sagas values ($1, 'running', 0, $2)")
            .bind(saga_id)
            .bind(refuse)
            .execute(&mut *tx)
            .await?;
        query("insert into naive_history (saga_id, seq, event) values ($1, 1, 'started')")
            .bind(saga_id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.ask(&Asked { saga_id, at: Place::default(), refuse }).await?;
        let completed = end.await.context("the baseline ended")?;
        if completed == refuse {
            bail!("saga {saga_id} ended the other way");
        }
        Ok(())
    }
}

/// Creates the baseline's tables.
pub(crate) async fn create_tables(postgres: &str) -> anyhow::Result<()> {
    let pool = PgPool::connect(postgres).await?;
    sea_orm::sqlx::raw_sql(TABLES).execute(&pool).await?;
    Ok(())
}

/// Effects that were made more than once.
pub(crate) async fn doubled(postgres: &str) -> anyhow::Result<u64> {
    let pool = PgPool::connect(postgres).await?;
    let sql = "select count(*) from (select 1 from effects group by saga_id, step, undone having count(*) > 1) again";
    let doubled: i64 = query_scalar(sql).fetch_one(&pool).await?;
    Ok(u64::try_from(doubled)?)
}

/// Counts effects.
pub(crate) async fn made(postgres: &str) -> anyhow::Result<Made> {
    let pool = PgPool::connect(postgres).await?;
    let sql = "select count(*) filter (where not undone), count(*) filter (where undone) from effects";
    let (made, undone): (i64, i64) = query_as(sql).fetch_one(&pool).await?;
    Ok(Made { made: made.unsigned_abs(), undone: undone.unsigned_abs() })
}

/// The four participants.
pub(crate) async fn participants(postgres: &str, amqp: &str, tasks: &Tasks) -> anyhow::Result<()> {
    for step in STEPS {
        let side = Arc::new(Side::open(postgres, amqp, SESSIONS[1]).await?);
        let handler = Arc::clone(&side);
        side.consume(&queue_of(step), tasks, move |body| take(Arc::clone(&handler), step, body)).await?;
    }
    Ok(())
}

async fn take(side: Arc<Side>, step: &'static str, body: Vec<u8>) -> anyhow::Result<()> {
    let asked: Asked = serde_json::from_slice(&body)?;
    let refused = asked.refuse && asked.at.may_refuse();
    let mut tx = side.pool.begin().await?;
    let fresh = query("insert into naive_inbox values ($1, $2, $3, $4) on conflict do nothing")
        .bind(asked.saga_id)
        .bind(step)
        .bind(asked.at.undo)
        .bind(if refused { "refused" } else { "done" })
        .execute(&mut *tx)
        .await?
        .rows_affected()
        > 0;
    if fresh && !refused {
        query("insert into effects values ($1, $2, $3)")
            .bind(asked.saga_id)
            .bind(step)
            .bind(asked.at.undo)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    let answer = Answered { saga_id: asked.saga_id, at: asked.at, done: !refused };
    side.publish(REPLIES, &answer).await
}
