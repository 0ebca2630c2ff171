//! The shape whose effects happen at a provider: an intent is committed first, the call runs outside every
//! transaction, its verdict is committed after.
//!
//! Not for what a verdict changes: that is the module `verdict`; nor for recording several together: that is `recorder`.
//! Must hold: no call without a committed intent; an intent is never forgotten: until a definite verdict, and until that
//! is announced, its row is leased to a live run or due for the sweep; an item's reply leaves when that item is done,
//! whatever its neighbours do.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use db::Db;
use futures_util::FutureExt as _;
use runtime::Tasks;
use saga_defs::{Outcome, Reply, Verb};
use sea_orm::DbErr;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use crate::announce::{self, Announced};
use crate::handler::{Handler, Received, Run};
use crate::intents::{self, Planned};
use crate::leases::Lessee;
use crate::live::{Live, Mark};
use crate::recorder::{Failure, Recorder};
use crate::rows::Model;
use crate::verdict::{Call, Recorded, Taught};
use crate::{Error, External, Verdict, forget_sql, inbox};

/// How often a verdict is tried to be recorded that the database refuses, or once shutdown began, before its call is left
/// to the sweep.
const RECORD_ATTEMPTS_MAX: u32 = 5;
/// Wait between two tries to record a verdict.
const RECORD_RETRY: Duration = Duration::from_millis(200);
/// When a call that panicked is made again, at the earliest.
const PANIC_RETRY_MS: u64 = 5_000;

/// How an [`ExternalHandler`] calls its provider.
#[derive(Clone, Debug)]
pub struct ExternalOptions {
    /// Most calls at a time.
    pub concurrency: usize,
    /// How long an intent belongs to a run that shows no sign of life. Longer than any call.
    pub lease: Duration,
    /// How often calls and announcements that nobody has under way are looked for.
    pub sweep_every: Duration,
    /// Ends the leases of all other runs at the start. Only where this process is provably alone with its database.
    pub take_over_at_start: bool,
    /// Names this run among all that ever were.
    pub owner: Uuid,
}

impl Default for ExternalOptions {
    fn default() -> Self {
        Self {
            concurrency: 32,
            lease: Duration::from_secs(60),
            sweep_every: Duration::from_millis(500),
            take_over_at_start: false,
            owner: Uuid::new_v4(),
        }
    }
}

/// Serves an [`External`] participant over the inbox of its database.
pub struct ExternalHandler<P>(Arc<Core<P>>);

impl<P: External> fmt::Debug for ExternalHandler<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalHandler({})", self.0.participant.name())
    }
}

impl<P: External> ExternalHandler<P> {
    /// A handler over `db`, whose ladder must have the inbox table.
    #[must_use]
    pub fn new(db: Db, participant: P, options: ExternalOptions) -> Self {
        let lessee = Lessee { participant: participant.name(), owner: options.owner, lease: options.lease };
        let participant = Arc::new(participant);
        Self(Arc::new(Core {
            recorder: Arc::new(Recorder::new(db.clone(), Arc::clone(&participant), lessee)),
            db,
            participant,
            lessee,
            permits: Semaphore::new(options.concurrency),
            live: Live::default(),
            options,
        }))
    }
}

#[async_trait]
impl<P: External> Handler for ExternalHandler<P> {
    fn participant(&self) -> &'static str {
        self.0.participant.name()
    }

    async fn start(&self, run: &Run) -> Result<(), Error> {
        if self.0.options.take_over_at_start {
            self.0.lessee.take_over(&self.0.db).await?;
        }
        run.tasks.spawn_vital("sweep", sweep(Arc::clone(&self.0), run.clone()));
        Ok(())
    }

    async fn handle(&self, run: &Run, batch: &[Received]) -> Result<(), Error> {
        let core = &self.0;
        let planned = intents::plan(&core.db, core.lessee, core.participant.undoable(), batch).await?;
        for (received, planned) in batch.iter().zip(planned) {
            inbox::count(core.lessee.participant, planned.label());
            match planned {
                Planned::Answer(outcome, _) => {
                    run.replies.send(received.command.reply(outcome), received.ticket).await;
                }
                Planned::Call(call) => Core::start(core, run, Work::answering(*call, received.clone())),
            }
        }
        Ok(())
    }

    async fn forget(&self, sagas: &[Uuid]) -> Result<u64, Error> {
        forget_sql::forget(&self.0.db, self.0.lessee.participant, sagas).await
    }
}

struct Core<P> {
    db: Db,
    participant: Arc<P>,
    options: ExternalOptions,
    lessee: Lessee,
    recorder: Arc<Recorder<P>>,
    permits: Semaphore,
    live: Live,
}

/// Why a verdict was not recorded.
enum Unrecorded {
    /// The database will not have it.
    Refused,
    /// This run ends. The delivery in hand stays unacknowledged and comes again.
    Stopping,
}

/// What is to be done about one row.
struct Work {
    key: Uuid,
    next: Option<Call>,
    /// The command that the next call answers.
    waiting: Option<Received>,
    announcing: Vec<Reply>,
}

impl Work {
    fn answering(call: Call, received: Received) -> Self {
        Self { key: received.command.key, next: Some(call), waiting: Some(received), announcing: Vec::new() }
    }

    /// What a row that was swept up lacks.
    fn of(row: &Model, interrupted: bool) -> Result<Self, DbErr> {
        let mut next = if row.is_open() { Some(Call::of(row)?) } else { None };
        if let Some(call) = &mut next {
            call.effect.interrupted = interrupted;
        }
        Ok(Self { key: row.key, next, waiting: None, announcing: row.announcing()? })
    }
}

impl<P: External> Core<P> {
    fn start(core: &Arc<Self>, run: &Run, work: Work) {
        let mark = core.live.mark(work.key);
        run.tasks.spawn(drive(Arc::clone(core), run.clone(), work, mark));
    }

    async fn call(&self, call: &Call) -> Verdict {
        let work = match call.verb {
            Verb::Execute => self.participant.execute(&call.effect),
            Verb::Compensate => self.participant.undo(&call.effect),
        };
        AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(participant = self.lessee.participant, key = %call.effect.command.key, "a provider call panicked");
            Verdict::Unknown { retry_after_ms: PANIC_RETRY_MS, provider_ref: None }
        })
    }

    /// Records a verdict, or leaves the call to the sweep. A database that is out of reach is waited for: a verdict may be
    /// recorded already, and then whoever asked is to hear of it.
    async fn record(&self, tasks: &Tasks, taught: Taught) -> Result<Recorded, Unrecorded> {
        let taught = Arc::new(taught);
        let (mut refused, mut stopping) = (0, 0);
        loop {
            match Recorder::record(&self.recorder, tasks, Arc::clone(&taught), refused > 0).await {
                Ok(recorded) => return Ok(recorded),
                Err(Failure::Lasting) => refused += 1,
                Err(Failure::Transient) => {}
            }
            stopping += u32::from(tasks.is_stopping());
            if refused >= RECORD_ATTEMPTS_MAX {
                return Err(Unrecorded::Refused);
            }
            if stopping >= RECORD_ATTEMPTS_MAX {
                return Err(Unrecorded::Stopping);
            }
            // Not cut short by shutdown: a verdict in hand is worth the wait.
            tokio::time::sleep(RECORD_RETRY).await;
        }
    }

    /// Leaves a call that was not begun to whoever sweeps first.
    async fn release(&self, key: Uuid) {
        if let Err(error) = self.lessee.release(&self.db, &[key]).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %key, "a lease could not be ended; it will lapse");
        }
    }

    /// Forgets what was announced, as soon as it is safe.
    async fn told(&self, key: Uuid, announced: Announced) {
        let safe = announced.safe().await;
        if let Err(error) = announce::told(&self.db, self.lessee, key, safe).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %key, "an announcement could not be noted; it will be repeated");
        }
    }

    /// Renews the leases of what is under way, and continues what nobody has under way.
    async fn sweep(core: &Arc<Self>, run: &Run, renewed: &mut Instant) -> Result<(), Error> {
        if renewed.elapsed() >= core.options.lease / 3 {
            let live = core.live.keys();
            if !live.is_empty() {
                core.lessee.renew(&core.db, &live).await?;
            }
            *renewed = Instant::now();
        }
        let (free, live) = (core.permits.available_permits(), core.live.keys());
        if free == 0 {
            return Ok(());
        }
        let mut due = core.lessee.due(&core.db, free + live.len()).await?;
        due.retain(|key| !live.contains(key));
        due.truncate(free);
        if due.is_empty() {
            return Ok(());
        }
        for (row, interrupted) in core.lessee.claim(&core.db, due).await? {
            match Work::of(&row, interrupted) {
                Ok(work) => Self::start(core, run, work),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, key = %row.key, "an unfinished row could not be read");
                }
            }
        }
        Ok(())
    }
}

async fn sweep<P: External>(core: Arc<Core<P>>, run: Run) {
    let mut renewed = Instant::now();
    loop {
        if let Err(error) = Core::sweep(&core, &run, &mut renewed).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, participant = core.lessee.participant, "open calls could not be looked for");
        }
        if !run.tasks.sleep(core.options.sweep_every).await {
            return;
        }
    }
}

/// Makes a call and what follows from it, and announces what is owed.
async fn drive<P: External>(core: Arc<Core<P>>, run: Run, work: Work, mark: Mark) {
    let (Work { key, mut next, mut waiting, announcing }, Run { replies, tasks }) = (work, run);
    // Held to the end, so that no more is announced at a time than is called.
    let permit = tokio::select! {
        biased;
        () = tasks.stopping() => None,
        permit = core.permits.acquire() => permit.ok(),
    };
    if permit.is_none() {
        core.release(key).await;
        return;
    }
    let mut mark = Some(mark);
    let mut announced = Announced::default();
    announced.send(&replies, announcing).await;
    while let Some(call) = next.take() {
        if tasks.is_stopping() {
            core.release(key).await;
            break;
        }
        let verdict = core.call(&call).await;
        let in_hand = waiting.as_ref().map(|received| received.command.command_id);
        let recorded = match core.record(&tasks, Taught { call, verdict, in_hand }).await {
            Ok(recorded) => recorded,
            Err(unrecorded) => {
                if let (Unrecorded::Refused, Some(received)) = (unrecorded, waiting.take()) {
                    replies.give_back(received.ticket).await;
                }
                break;
            }
        };
        if matches!(recorded.outcome, Outcome::Retry { .. }) {
            // The call is postponed, and due again whatever is still to be confirmed here.
            mark = None;
        }
        if let Some(received) = waiting.take() {
            replies.send(received.command.reply(recorded.outcome), received.ticket).await;
        }
        announced.send(&replies, recorded.announcing).await;
        next = recorded.next;
    }
    // While anybody can still answer, the last confirms are waited for without a limit.
    drop(replies);
    if !announced.is_empty() {
        core.told(key, announced).await;
    }
    drop(mark);
}
