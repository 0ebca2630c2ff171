//! Databases, participants and a desk for the kit's tests.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use db::{Db, Transaction};
use fixture::{LIMIT, Owned, Stack};
use participant_kit::conformance::{command, scripted};
use participant_kit::handler::{Answered, Received, Replies, Run, Ticket};
use participant_kit::{Definite, Effect, External, Handler, Transactional, Verdict};
use runtime::Tasks;
use saga_defs::{Command, Outcome, Reply, Timestamp, Verb};
use sea_orm::sea_query::{self, Asterisk, ColumnDef, Expr, ExprTrait as _, Query};
use sea_orm::{ConnAcquireErr, ConnectionTrait as _, DbErr};
use serde_json::json;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot};
use uuid::Uuid;

/// A database with an inbox.
pub(crate) async fn database(stack: Stack) -> Owned {
    Owned::open::<migrations::Clinic>(stack).await
}

/// How often each effect was called for, made and undone.
#[derive(Default)]
pub(crate) struct Counts {
    counts: Mutex<BTreeMap<(Uuid, &'static str), u64>>,
    /// How many more verdicts find the database out of reach.
    unrecorded: AtomicU64,
    /// Whether the database takes verdicts that it refused before.
    mended: AtomicBool,
    /// The effects of each try to record a slice, in their order.
    slices: Mutex<Vec<Vec<Uuid>>>,
    /// Where tries to record wait for a permit, if they do.
    recording: Mutex<Option<Arc<Semaphore>>>,
}

impl Counts {
    pub(crate) fn get(&self, key: Uuid, what: &'static str) -> u64 {
        self.counts.lock().unwrap().get(&(key, what)).copied().unwrap_or(0)
    }

    /// The next `times` verdicts find the database out of reach.
    pub(crate) fn fail_records(&self, times: u64) {
        self.unrecorded.store(times, Ordering::SeqCst);
    }

    /// From now on no verdict is refused.
    pub(crate) fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn records_to_fail(&self) -> u64 {
        self.unrecorded.load(Ordering::SeqCst)
    }

    /// Keeps transactions open that record, until this gets permits.
    pub(crate) fn hold_records(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.recording.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    /// The effects of each try to record, since this was asked last.
    pub(crate) fn slices(&self) -> Vec<Vec<Uuid>> {
        std::mem::take(&mut self.slices.lock().unwrap())
    }

    /// Waits until so many tries to record have begun.
    pub(crate) async fn tries(&self, count: usize) {
        testkit::eventually(LIMIT, "verdicts are being recorded", async || {
            let begun = self.slices.lock().unwrap().len();
            if begun >= count { Ok(()) } else { Err(format!("{begun} tries")) }
        })
        .await;
    }

    /// Waits until each effect was called for, and its verdict is on its way.
    pub(crate) async fn called(&self, keys: &[Uuid], times: u64) {
        testkit::eventually(LIMIT, "the provider has answered", async || {
            let open: Vec<&Uuid> = keys.iter().filter(|key| self.get(**key, "called") < times).collect();
            if open.is_empty() { Ok(()) } else { Err(format!("not {open:?}")) }
        })
        .await;
    }

    /// Counts one more; how many there were before.
    fn add(&self, key: Uuid, what: &'static str) -> u64 {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry((key, what)).or_default();
        *count += 1;
        *count - 1
    }

    /// Executes as the payload asks.
    pub(crate) fn execute(&self, command: &Command) -> Outcome {
        let before = self.add(command.key, "called");
        let outcome = scripted(&command.payload, before);
        if matches!(outcome, Outcome::Succeeded { .. }) {
            self.add(command.key, "made");
        }
        outcome
    }

    pub(crate) fn undo(&self, key: Uuid) -> Outcome {
        self.add(key, "undone");
        Outcome::succeeded(json!({}))
    }
}

/// Creates the table of effects.
pub(crate) async fn create_effects(db: &Db) {
    let mut effects = sea_query::Table::create();
    effects.table("effects").col(ColumnDef::new("key").uuid()).col(ColumnDef::new("what").string());
    db.writer().execute(&effects).await.unwrap();
}

/// Writes an effect.
pub(crate) async fn add_effect(tx: &Transaction, key: Uuid, what: &str) -> Result<(), DbErr> {
    let row = [key.into(), what.into()];
    tx.execute(Query::insert().into_table("effects").columns(["key", "what"]).values_panic(row)).await.map(|_| ())
}

/// How many effects there are of this key and kind.
pub(crate) async fn effects(db: &Db, key: Uuid, what: &str) -> usize {
    let mut count = Query::select();
    count.expr(Expr::col(Asterisk).count()).from("effects");
    count.and_where(Expr::col("key").eq(key)).and_where(Expr::col("what").eq(what));
    let count: i64 = db.reader().query_one(&count).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    usize::try_from(count).unwrap()
}

/// A participant whose effects are rows.
pub(crate) struct Table {
    pub(crate) counts: Arc<Counts>,
    pub(crate) undoable: bool,
}

#[async_trait]
impl Transactional for Table {
    fn name(&self) -> &'static str {
        "table"
    }

    fn undoable(&self) -> bool {
        self.undoable
    }

    async fn execute(&self, tx: &Transaction, _now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        let mut outcomes = Vec::new();
        for command in commands {
            let outcome = self.counts.execute(command);
            if matches!(outcome, Outcome::Succeeded { .. }) {
                add_effect(tx, command.key, "made").await?;
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    async fn undo(&self, tx: &Transaction, _now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        for command in commands {
            add_effect(tx, command.key, "undone").await?;
        }
        Ok(commands.iter().map(|command| self.counts.undo(command.key)).collect())
    }
}

/// A provider that dedupes by its key, and whose answers can be held back.
pub(crate) struct Provider {
    pub(crate) counts: Arc<Counts>,
    pub(crate) undoable: bool,
    /// A permit lets one call through.
    pub(crate) gate: Arc<Semaphore>,
    /// Told at the begin of each call.
    pub(crate) began: mpsc::Sender<Effect>,
    /// What was recorded, in order.
    pub(crate) recorded: Arc<Mutex<Vec<(Uuid, Verb)>>>,
}

impl Provider {
    async fn pass(&self, effect: &Effect) {
        // A test that does not look has no room left, or hung up.
        self.began.try_send(effect.clone()).ok();
        self.gate.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl External for Provider {
    fn name(&self) -> &'static str {
        "provider"
    }

    fn undoable(&self) -> bool {
        self.undoable
    }

    async fn execute(&self, effect: &Effect) -> Verdict {
        self.pass(effect).await;
        let called = self.counts.get(effect.command.key, "called");
        let outcome = self.counts.execute(&effect.command);
        assert!(called >= effect.command.payload["breaks"].as_u64().unwrap_or(0), "as the test asked");
        match outcome {
            Outcome::Retry { after_ms } => {
                Verdict::Unknown { retry_after_ms: after_ms, provider_ref: Some("object".to_owned()) }
            }
            definite @ (Outcome::Succeeded { .. } | Outcome::Refused { .. }) => Verdict::Definite(definite),
        }
    }

    async fn undo(&self, effect: &Effect) -> Verdict {
        self.pass(effect).await;
        Verdict::Definite(self.counts.undo(effect.command.key))
    }

    async fn record(&self, _tx: &Transaction, _now: Timestamp, verdicts: &[Definite<'_>]) -> Result<(), DbErr> {
        self.counts.slices.lock().unwrap().push(verdicts.iter().map(|one| one.effect.command.key).collect());
        let gate = self.counts.recording.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        let fail = |left: u64| left.checked_sub(1);
        if self.counts.unrecorded.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail).is_ok() {
            return Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
        }
        // What is written down here must not be what a rollback takes back.
        match verdicts.iter().find_map(|one| one.effect.command.payload["poison"].as_str()) {
            Some(_) if self.counts.mended.load(Ordering::SeqCst) => {}
            Some("refused") => return Err(DbErr::Custom("as the test asked".to_owned())),
            Some(_) => panic!("as the test asked"),
            None => {}
        }
        let recorded = verdicts.iter().map(|one| (one.effect.command.key, one.verb));
        self.recorded.lock().unwrap().extend(recorded);
        Ok(())
    }
}

/// Hands batches to a handler and collects what it says, as a queue would.
pub(crate) struct Desk {
    handler: Arc<dyn Handler>,
    pub(crate) run: Run,
    state: AsyncMutex<DeskState>,
}

struct DeskState {
    answered: mpsc::Receiver<Answered>,
    last: u64,
    /// Replies that no batch waited for.
    spare: Vec<Reply>,
    /// Whether announcements arrive: else nobody hears whether they are safe.
    deaf: bool,
    unheard: Vec<oneshot::Sender<()>>,
}

impl DeskState {
    /// What is said next, and the ticket that came back with it.
    async fn next(&mut self) -> (Option<Reply>, Option<Ticket>) {
        let next = tokio::time::timeout(LIMIT, self.answered.recv()).await;
        match next.expect("an answer in time").expect("the desk is open") {
            Answered::Reply(reply, ticket) => (Some(reply), Some(ticket)),
            Answered::Announcement(reply, told) => {
                if self.deaf {
                    self.unheard.push(told);
                } else {
                    told.send(()).expect("it is waited for");
                }
                (Some(reply), None)
            }
            Answered::Letter(letter, _) => panic!("a dead letter: {letter:?}"),
            Answered::Silence(ticket) => (None, Some(ticket)),
        }
    }
}

impl Desk {
    pub(crate) async fn open(handler: Arc<dyn Handler>) -> Self {
        let (replies, answered) = Replies::channel(1_000);
        let run = Run { replies, tasks: Tasks::new() };
        handler.start(&run).await.unwrap();
        let state = DeskState { answered, last: 0, spare: Vec::new(), deaf: false, unheard: Vec::new() };
        Self { handler, run, state: AsyncMutex::new(state) }
    }

    /// Ends the run, and listens to the last. Returns how many tasks were still running.
    pub(crate) async fn shutdown(&self) -> usize {
        let mut state = self.state.lock().await;
        let listen = async {
            loop {
                state.next().await;
            }
        };
        tokio::select! {
            biased;
            left = self.run.tasks.shutdown(LIMIT) => left,
            () = listen => unreachable!("it listens for ever"),
        }
    }

    /// From now on nobody hears whether an announcement is safe.
    pub(crate) async fn turn_deaf(&self) {
        self.state.lock().await.deaf = true;
    }

    /// Announcements arrive again.
    pub(crate) async fn hear(&self) {
        self.state.lock().await.deaf = false;
    }

    /// It becomes known that no announcement arrived.
    pub(crate) async fn lose_announcements(&self) -> usize {
        std::mem::take(&mut self.state.lock().await.unheard).len()
    }

    /// Hands over a batch without waiting for its answers.
    pub(crate) async fn hand_over(&self, commands: &[Command]) -> Vec<Ticket> {
        let mut state = self.state.lock().await;
        let batch: Vec<Received> = commands
            .iter()
            .map(|command| {
                state.last += 1;
                Received { command: command.clone(), ticket: Ticket(state.last) }
            })
            .collect();
        self.handler.handle(&self.run, &batch).await.unwrap();
        batch.into_iter().map(|received| received.ticket).collect()
    }

    /// The next ticket that comes back without an answer.
    pub(crate) async fn given_up(&self) -> Ticket {
        let mut state = self.state.lock().await;
        loop {
            match state.next().await {
                (None, Some(ticket)) => return ticket,
                (reply, _) => state.spare.extend(reply),
            }
        }
    }

    /// Tells the handler of sagas that have ended; how many rows it forgot.
    pub(crate) async fn forget(&self, sagas: &[Uuid]) -> u64 {
        self.handler.forget(sagas).await.unwrap()
    }

    /// The first answers to a batch, in order.
    pub(crate) async fn send(&self, commands: &[Command]) -> Vec<Outcome> {
        let tickets = self.hand_over(commands).await;
        let mut outcomes: BTreeMap<Ticket, Outcome> = BTreeMap::new();
        let mut state = self.state.lock().await;
        while tickets.iter().any(|ticket| !outcomes.contains_key(ticket)) {
            match state.next().await {
                (Some(reply), Some(ticket)) => drop(outcomes.insert(ticket, reply.outcome)),
                (Some(reply), None) => state.spare.push(reply),
                (None, _) => panic!("a command was given up"),
            }
        }
        tickets.iter().map(|ticket| outcomes[ticket].clone()).collect()
    }

    /// The next reply to a command id that is not `retry`, whoever asked.
    pub(crate) async fn definite(&self, command_id: Uuid) -> Outcome {
        let mut state = self.state.lock().await;
        loop {
            let spare = state.spare.iter().position(|reply| reply.command_id == command_id);
            let reply = match spare {
                Some(position) => state.spare.remove(position),
                None => state.next().await.0.expect("a reply"),
            };
            match (reply.command_id == command_id, &reply.outcome) {
                (true, Outcome::Succeeded { .. } | Outcome::Refused { .. }) => return reply.outcome,
                (true, Outcome::Retry { .. }) => {}
                (false, _) => state.spare.push(reply),
            }
        }
    }
}

/// A participant whose effects are rows with the text that it was asked to keep. The database refuses the second of one
/// effect.
pub(crate) struct Shelf;

#[async_trait]
impl Transactional for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn undoable(&self) -> bool {
        false
    }

    async fn execute(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        for command in commands {
            let text = command.payload["text"].as_str().unwrap().to_owned();
            let columns = ["id", "doctor_id", "starts_at", "ends_at", "price_minor", "currency", "status", "version"];
            let (key, now) = (command.key, now.0);
            let row =
                [key.into(), key.into(), now.into(), now.into(), 1_i64.into(), text.into(), "free".into(), 1.into()];
            tx.execute(Query::insert().into_table("slots").columns(columns).values_panic(row)).await?;
        }
        Ok(commands.iter().map(|_| Outcome::succeeded(json!({}))).collect())
    }

    async fn undo(&self, _tx: &Transaction, _now: Timestamp, _commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        panic!("the effect is declared as not undoable")
    }
}

/// Asks the shelf to keep a text.
pub(crate) fn keep(key: u128, text: &str) -> Command {
    command("shelf", Uuid::from_u128(key), Verb::Execute, 1, json!({ "text": text }))
}
