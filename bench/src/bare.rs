//! The bare job: the rows and the messages of a saga, and nothing else.
//!
//! For telling how much of a figure is the services' and their drivers'. It writes as the engine does, one transaction for
//! all that came meanwhile, at the database's pool and at the transport that the engine has. But it keeps where a saga is in
//! its messages alone, has no outbox, no deadline, no key of a start, looks for no repeat and hints at nothing, and a crash
//! loses what is under way. Whether small transactions at once or large ones later are cheaper depends on the case, so there
//! is either. Must hold: the cheaper of the two is a lower bound of doing the job that way.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use db::Db;
use futures_util::FutureExt;
use runtime::Tasks;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use transport::{Consumer, Delivery, Handed, Message, Publisher, Queue, Transport};
use uuid::Uuid;

use crate::args::BareKind;
use crate::bare_sql::{self, Done};
use crate::job::{Place, STEPS};
use crate::load::Entry;

/// Commands and replies that share a message, and messages that share a transaction.
const TOGETHER_MAX: usize = 256;
/// Bytes that a command and a reply have beside what is told here, about.
const FILLER: usize = 200;
/// How long the rest of the sagas in flight is waited for.
const PATIENCE: Duration = Duration::from_millis(5);

/// A command and its reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    saga_id: Uuid,
    version: i32,
    at: Place,
    /// The saga's third step refuses.
    refuse: bool,
    /// This step has refused.
    refused: bool,
    filler: String,
}

/// A publisher whose messages hold many items or one each.
struct Post {
    publisher: Arc<dyn Publisher>,
    items_max: usize,
}

impl Post {
    fn open(transport: &dyn Transport, batch: bool, tasks: &Tasks) -> Self {
        let publisher = transport.publisher();
        let fates = Arc::clone(&publisher);
        tasks.spawn(until_stopping(tasks.clone(), async move {
            while fates.settled().await.iter().all(|message| message.confirmed) {}
            bail!("a message is lost")
        }));
        Self { publisher, items_max: if batch { TOGETHER_MAX } else { 1 } }
    }

    async fn send(&self, queue: &Queue, items: &[Item]) -> anyhow::Result<()> {
        let mut messages = Vec::new();
        for some in items.chunks(self.items_max) {
            messages.push(Message::new(Uuid::now_v7(), queue.clone(), serde_json::to_string(some)?));
        }
        while !messages.is_empty() {
            let handed = self.publisher.publish(&messages);
            let mut taken = handed.into_iter();
            messages.retain(|_| taken.next() != Some(Handed::Over));
            if !messages.is_empty() {
                self.publisher.room(queue).await;
            }
        }
        Ok(())
    }
}

/// Works until it fails or the run is over, whatever is under way then.
async fn until_stopping(tasks: Tasks, work: impl Future<Output = anyhow::Result<()>>) {
    tokio::select! {
        () = tasks.stopping() => {}
        result = work => if let Err(error) = result {
            eprintln!("bare: {error:#}");
        },
    }
}

fn items(deliveries: &[Delivery]) -> anyhow::Result<Vec<Item>> {
    let mut all = Vec::new();
    for delivery in deliveries {
        all.extend(serde_json::from_slice::<Vec<Item>>(&delivery.body)?);
    }
    Ok(all)
}

fn queue_of(step: usize) -> Queue {
    Queue::Participant(STEPS[step].to_owned())
}

struct Start {
    saga_id: Uuid,
    refuse: bool,
}

type Waiting = Arc<Mutex<HashMap<Uuid, oneshot::Sender<bool>>>>;

/// Where bare sagas enter.
pub(crate) struct Bare {
    starts: mpsc::Sender<Start>,
    waiting: Waiting,
}

impl Bare {
    pub(crate) fn start(db: Db, transport: &dyn Transport, batch: bool, kind: BareKind, tasks: &Tasks) -> Arc<Self> {
        let (starts, to_start) = mpsc::channel(TOGETHER_MAX);
        let waiting = Waiting::default();
        let replies = transport.consumer(&Queue::Replies, 4 * TOGETHER_MAX);
        let (post, together) = (Post::open(transport, batch, tasks), kind == BareKind::Together);
        let mut mover = Mover { db, post, to_start, replies, waiting: Arc::clone(&waiting), together };
        tasks.spawn(until_stopping(tasks.clone(), async move { mover.run().await }));
        Arc::new(Self { starts, waiting })
    }
}

#[async_trait]
impl Entry for Bare {
    async fn run(&self, _number: u64, refuse: bool) -> anyhow::Result<()> {
        let saga_id = Uuid::now_v7();
        let (ended, end) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(saga_id, ended);
        self.starts.send(Start { saga_id, refuse }).await.ok().context("it takes no more")?;
        let completed = end.await.context("it ended")?;
        if completed == refuse {
            bail!("saga {saga_id} ended the other way");
        }
        Ok(())
    }
}

/// What one transaction is about.
#[derive(Default)]
struct Inputs {
    starts: Vec<Start>,
    replies: Vec<Item>,
    tags: Vec<u64>,
}

impl Inputs {
    fn add(&mut self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        self.tags.extend(deliveries.iter().map(|delivery| delivery.tag));
        self.replies.extend(items(deliveries)?);
        Ok(())
    }
}

/// Moves sagas: all that came meanwhile in one transaction.
struct Mover {
    db: Db,
    post: Post,
    to_start: mpsc::Receiver<Start>,
    replies: Box<dyn Consumer>,
    waiting: Waiting,
    together: bool,
}

impl Mover {
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut inputs = Inputs::default();
        while self.gather(&mut inputs).await? {
            if self.together {
                timeout(PATIENCE, self.gather_all(&mut inputs)).await.unwrap_or(Ok(()))?;
            }
            self.advance(std::mem::take(&mut inputs)).await?;
        }
        Ok(())
    }

    /// Waits for anything and takes all there is. False when nothing more comes. Cancel-safe.
    async fn gather(&mut self, inputs: &mut Inputs) -> anyhow::Result<bool> {
        tokio::select! {
            came = self.to_start.recv_many(&mut inputs.starts, TOGETHER_MAX) => if came == 0 { return Ok(false) },
            came = self.replies.receive(TOGETHER_MAX) => match came {
                Some(came) => inputs.add(&came)?,
                None => return Ok(false),
            },
        }
        while let Ok(start) = self.to_start.try_recv() {
            inputs.starts.push(start);
        }
        if let Some(Some(came)) = self.replies.receive(TOGETHER_MAX).now_or_never() {
            inputs.add(&came)?;
        }
        Ok(true)
    }

    /// Waits until every saga in flight is there.
    async fn gather_all(&mut self, inputs: &mut Inputs) -> anyhow::Result<()> {
        while inputs.starts.len() + inputs.replies.len() < self.waiting().len() && self.gather(inputs).await? {}
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<bool>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn advance(&mut self, inputs: Inputs) -> anyhow::Result<()> {
        let (mut versions, mut ended) = (Vec::new(), Vec::new());
        let mut commands: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
        for Start { saga_id, refuse } in inputs.starts {
            let filler = "c".repeat(FILLER);
            versions.push((saga_id, 1));
            let item = Item { saga_id, version: 1, at: Place::default(), refuse, refused: false, filler };
            commands.entry(0).or_default().push(item);
        }
        for reply in inputs.replies {
            let version = reply.version + 1;
            versions.push((reply.saga_id, version));
            match reply.at.next(!reply.refused) {
                Some(at) => {
                    let command = Item { version, at, refused: false, ..reply };
                    commands.entry(at.step).or_default().push(command);
                }
                None => ended.push((reply.saga_id, !reply.at.undo)),
            }
        }
        bare_sql::move_to(&self.db, &versions).await?;
        for (step, items) in commands {
            self.post.send(&queue_of(step), &items).await?;
        }
        self.replies.acknowledge(&inputs.tags).await;
        let mut waiting = self.waiting();
        for (saga_id, completed) in ended {
            // Whoever waits has gone only when the run has failed.
            let _ = waiting.remove(&saga_id).map(|waits| waits.send(completed));
        }
        Ok(())
    }
}

/// Takes the commands of one participant, as many in a transaction as came meanwhile.
pub(crate) fn participate(step: usize, db: Db, transport: &dyn Transport, batch: bool, tasks: &Tasks) {
    let post = Post::open(transport, batch, tasks);
    let commands = transport.consumer(&queue_of(step), TOGETHER_MAX);
    tasks.spawn(until_stopping(tasks.clone(), async move { take(step, &db, commands, &post).await }));
}

async fn take(step: usize, db: &Db, mut commands: Box<dyn Consumer>, post: &Post) -> anyhow::Result<()> {
    while let Some(deliveries) = commands.receive(TOGETHER_MAX).await {
        let mut all = items(&deliveries)?;
        for item in &mut all {
            item.refused = item.refuse && item.at.may_refuse();
        }
        let done = |item: &Item| Done { saga_id: item.saga_id, undo: item.at.undo, made: !item.refused };
        let done: Vec<Done> = all.iter().map(done).collect();
        db.transaction(move |tx| {
            let done = done.clone();
            Box::pin(async move { bare_sql::answer(tx, STEPS[step], &done).await })
        })
        .await?;
        post.send(&Queue::Replies, &all).await?;
        let tags: Vec<u64> = deliveries.iter().map(|delivery| delivery.tag).collect();
        commands.acknowledge(&tags).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use db::PostgresOptions;
    use sea_orm::ConnectionTrait as _;
    use sea_orm::sea_query::{Expr, Func, Query};
    use testkit::Services;
    use transport::in_process::{self, InProcess};

    use super::*;
    use crate::world;

    async fn count(db: &Db, table: &'static str) -> i64 {
        let rows = Query::select().expr_as(Func::count(Expr::val(1)), "found").from(table).to_owned();
        db.reader().query_one(&rows).await.unwrap().unwrap().try_get("", "found").unwrap()
    }

    #[tokio::test]
    #[ignore = "needs PostgreSQL: scripts/test"]
    async fn it_writes_the_rows_of_a_saga_either_way() {
        let schemas = Services::shared().schemas();
        let open = async |name: &str| {
            Db::open_postgres(&PostgresOptions::new(schemas.url(), schemas.name(name))).await.unwrap()
        };
        let engine = open("engine").await;
        migrations::up::<migrations::Engine>(engine.unlimited()).await.unwrap();
        bare_sql::create_for_engine(&engine).await.unwrap();
        let (queues, tasks) = (transport::topology::queues(STEPS), Tasks::new());
        let transport = InProcess::new(&in_process::Options { queues, capacity: 64, faults: None });
        let mut participants = Vec::new();
        for (number, step) in STEPS.into_iter().enumerate() {
            let db = open(step).await;
            world::prepare(&db).await.unwrap();
            bare_sql::create_for_participant(&db).await.unwrap();
            participate(number, db.clone(), &transport, number % 2 == 0, &tasks);
            participants.push(db);
        }
        for (kind, batch) in [(BareKind::AtOnce, true), (BareKind::Together, false)] {
            let own = Tasks::new();
            let bare = Bare::start(engine.clone(), &transport, batch, kind, &own);
            let all = tokio::join!(bare.run(1, false), bare.run(2, true), bare.run(3, false));
            all.0.and(all.1).and(all.2).unwrap();
            own.shutdown(Duration::from_secs(1)).await;
        }
        // Twice two that complete and one that is refused at its third step, which undoes two.
        assert_eq!(count(&engine, "bare_sagas").await, 6);
        assert_eq!(count(&engine, "bare_history").await, 4 * 5 + 2 * 6);
        for (db, (handled, made)) in participants.iter().zip([(8, 8), (8, 8), (6, 4), (4, 4)]) {
            assert_eq!((count(db, "bare_inbox").await, count(db, "effects").await), (handled, made));
        }
        tasks.shutdown(Duration::from_secs(1)).await;
    }
}
