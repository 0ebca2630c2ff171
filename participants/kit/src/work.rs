//! What is done about one row: its call is made, the verdict recorded, and whoever asked told.
//!
//! Not for finding rows: commands and the sweep of [`crate::external`] bring them. Must hold: a call is begun on a lease that is
//! known to be this run's, and as its row says by then if it had to wait; one whose verdict is in hand is not made again; an item's
//! reply leaves when that item is done, whatever its neighbours do.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use db::Db;
use futures_util::FutureExt as _;
use runtime::Tasks;
use saga_defs::{Outcome, Reply, Verb};
use sea_orm::DbErr;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use crate::announce::{self, Announced};
use crate::external::ExternalOptions;
use crate::handler::{Received, Replies, Run};
use crate::inbox::State;
use crate::lanes::{Lane, Lanes, Room};
use crate::leases::Lessee;
use crate::live::{Live, Mark};
use crate::recorder::{Failure, Recorder};
use crate::rows::Model;
use crate::verdict::{Call, Recorded, Taught};
use crate::{Error, External, Verdict};

/// How often a verdict is tried to be recorded that the database refuses, before its delivery and its room go to others; and how
/// often once shutdown began, before its call is left to the sweep.
const RECORD_ATTEMPTS: u32 = 5;
/// Wait between two tries to record a verdict, or to look at a row before its call.
const RETRY: Duration = Duration::from_millis(200);
/// Longest wait between two tries to record a verdict that the database refuses, or that has to wait for others' locks.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What all rows of a participant share.
pub(crate) struct Core<P> {
    pub(crate) db: Db,
    pub(crate) participant: Arc<P>,
    pub(crate) options: ExternalOptions,
    pub(crate) lessee: Lessee,
    pub(crate) lanes: Lanes,
    pub(crate) live: Live,
    recorder: Arc<Recorder<P>>,
    /// Room for verdicts that the database refuses and that hold up no call.
    refused: Semaphore,
}

/// What is to be done about one row.
pub(crate) struct Work {
    key: Uuid,
    /// Of the row, when it was leased for this.
    state: State,
    next: Option<Call>,
    /// The command that the next call answers.
    waiting: Option<Received>,
    announcing: Vec<Reply>,
    /// Before its lease was taken.
    leased: Instant,
}

/// What a call has in hand until its verdict is recorded.
struct Hand {
    replies: Replies,
    waiting: Option<Received>,
    room: Option<Room>,
}

impl Work {
    pub(crate) fn answering(call: Call, received: Received, leased: Instant) -> Self {
        let (key, state) = (received.command.key, call.open_state());
        Self { key, state, next: Some(call), waiting: Some(received), announcing: Vec::new(), leased }
    }

    /// What a row that was swept up lacks.
    pub(crate) fn of(row: &Model, interrupted: bool, leased: Instant) -> Result<Self, DbErr> {
        let next = if row.is_open() { Some(Call::of(row, interrupted)?) } else { None };
        Ok(Self { key: row.key, state: row.state()?, next, waiting: None, announcing: row.announcing()?, leased })
    }
}

impl<P: External> Core<P> {
    pub(crate) fn new(db: Db, participant: P, options: ExternalOptions) -> Self {
        let lessee = Lessee { participant: participant.name(), owner: options.owner, lease: options.lease };
        let participant = Arc::new(participant);
        Self {
            recorder: Arc::new(Recorder::new(db.clone(), Arc::clone(&participant), lessee)),
            db,
            participant,
            lessee,
            lanes: Lanes::new(options.concurrency),
            refused: Semaphore::new(options.concurrency),
            live: Live::default(),
            options,
        }
    }

    /// Begins with what a command asks for, as soon as there is room.
    pub(crate) fn start(core: &Arc<Self>, run: &Run, work: Work) {
        Self::spawn(core, run, work, Lane::Commands, None);
    }

    /// Begins with what was swept up, for which there is room.
    pub(crate) fn continue_in(core: &Arc<Self>, run: &Run, work: Work, room: Room) {
        Self::spawn(core, run, work, Lane::Swept, Some(room));
    }

    fn spawn(core: &Arc<Self>, run: &Run, work: Work, lane: Lane, room: Option<Room>) {
        let mark = core.live.mark(work.key);
        run.tasks.spawn(drive(Arc::clone(core), run.clone(), work, lane, room, mark));
    }

    /// Says what went wrong with a step of the sweep, which is made again in any case.
    pub(crate) fn report(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, participant = self.lessee.participant, "open calls could not be looked for");
        }
    }

    /// Waits for room; none once shutdown began.
    async fn enter(&self, tasks: &Tasks, lane: Lane) -> Option<Room> {
        tokio::select! {
            biased;
            () = tasks.stopping() => None,
            room = self.lanes.enter(lane) => Some(room),
        }
    }

    /// None when the call broke: what came of it is as open as after a crash.
    async fn call(&self, call: &Call) -> Option<Verdict> {
        let work = match call.verb {
            Verb::Execute => self.participant.execute(&call.effect),
            Verb::Compensate => self.participant.undo(&call.effect),
        };
        let verdict = AssertUnwindSafe(work).catch_unwind().await;
        if verdict.is_err() {
            tracing::error!(participant = self.lessee.participant, key = %call.effect.command.key, "a provider call panicked");
        }
        verdict.ok()
    }

    /// The call as its row says now, if the row's lease is this run's for long enough to begin it. One that waited in line may have
    /// been called off meanwhile, or this process may have stood still until another run took the row.
    async fn look(&self, tasks: &Tasks, call: Call, leased: Instant, waited: bool) -> Option<Call> {
        let fresh = leased.elapsed() < self.options.lease / 3;
        if fresh && !waited {
            return Some(call);
        }
        loop {
            match self.look_once(&call, fresh).await {
                Ok(now) => return now,
                Err(error) => {
                    let (error, key) = (&error as &dyn std::error::Error, call.effect.command.key);
                    tracing::warn!(error, %key, "a row could not be looked at before its call; again soon");
                }
            }
            if !tasks.sleep(RETRY).await {
                return None;
            }
        }
    }

    /// A lease that is not fresh is taken anew.
    async fn look_once(&self, call: &Call, fresh: bool) -> Result<Option<Call>, Error> {
        let (key, state) = (call.effect.command.key, call.open_state());
        let row = if fresh {
            self.lessee.look(&self.db, key, state).await?
        } else {
            self.lessee.hold(&self.db, key, state).await?
        };
        let now = row.as_ref().map(|row| Call::of(row, call.effect.interrupted)).transpose();
        now.map_err(|error| Error::Db(error.into()))
    }

    /// Records a verdict; none when this run ended first, and left the call to the sweep. A database that is out of reach is waited
    /// for: a verdict may be recorded already, and then whoever asked is to hear of it. One that refuses the verdict is asked
    /// ever more seldom, because a call whose verdict is known must not be made again; meanwhile others get its place.
    async fn record(&self, tasks: &Tasks, taught: Taught, hand: &mut Hand) -> Option<Recorded> {
        let mut taught = Arc::new(taught);
        let (mut refused, mut stopping, mut wait, mut alone) = (0, 0, RETRY, false);
        let mut aside = None;
        loop {
            let failure = match Recorder::record(&self.recorder, tasks, Arc::clone(&taught), alone).await {
                Ok(recorded) => return Some(recorded),
                Err(failure) => failure,
            };
            match failure {
                Failure::Transient => {}
                Failure::Blocked => (alone, wait) = (true, longer(wait)),
                Failure::Lasting => (alone, refused) = (true, refused + 1),
            }
            if refused >= RECORD_ATTEMPTS {
                wait = longer(wait);
                if let Some(received) = hand.waiting.take() {
                    hand.replies.give_back(received.ticket).await;
                    // Nobody has the attempt in hand any more, so it is owed an answer.
                    taught = Arc::new(Taught { in_hand: None, ..Taught::clone(&taught) });
                }
                aside = aside.or_else(|| self.refused.try_acquire().ok());
                if aside.is_some() {
                    hand.room = None;
                }
            }
            stopping += u32::from(tasks.is_stopping());
            if stopping >= RECORD_ATTEMPTS {
                return None;
            }
            if !tasks.sleep(wait).await {
                // Not cut short by shutdown: a verdict in hand is worth the wait.
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Leaves what was not begun to whoever sweeps first.
    async fn release(&self, key: Uuid, state: State, call: Option<&Call>) {
        let interrupted = call.is_some_and(|call| call.effect.interrupted);
        if let Err(error) = self.lessee.release(&self.db, key, state, interrupted).await {
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
}

fn longer(wait: Duration) -> Duration {
    (wait * 2).min(RETRY_MAX)
}

/// Makes a call and what follows from it, and announces what is owed.
async fn drive<P: External>(core: Arc<Core<P>>, run: Run, work: Work, lane: Lane, room: Option<Room>, mark: Mark) {
    let Run { replies, tasks } = run;
    let Work { key, state, mut next, waiting, announcing, mut leased } = work;
    let mut waited = false;
    // Held to the end, so that no more is announced at a time than is called.
    let room = match room {
        Some(room) => (!tasks.is_stopping()).then_some(room),
        None => match core.enter(&tasks, lane).now_or_never() {
            Some(entered) => entered,
            None => {
                waited = true;
                core.enter(&tasks, lane).await
            }
        },
    };
    let Some(room) = room else { return core.release(key, state, next.as_ref()).await };
    let mut hand = Hand { replies, waiting, room: Some(room) };
    let mut mark = Some(mark);
    let mut announced = Announced::default();
    announced.send(&hand.replies, announcing).await;
    while let Some(call) = next.take() {
        if hand.room.is_none() {
            hand.room = core.enter(&tasks, lane).await;
        }
        if tasks.is_stopping() {
            core.release(key, call.open_state(), Some(&call)).await;
            break;
        }
        let Some(call) = core.look(&tasks, call, leased, waited).await else {
            // Whoever has it tells the attempt in hand, too.
            if let Some(received) = hand.waiting.take() {
                hand.replies.give_back(received.ticket).await;
            }
            break;
        };
        let verdict = core.call(&call).await;
        leased = Instant::now();
        let in_hand = hand.waiting.as_ref().map(|received| received.command.command_id);
        let Some(recorded) = core.record(&tasks, Taught { call, verdict, in_hand }, &mut hand).await else { break };
        if matches!(recorded.outcome, Outcome::Retry { .. }) {
            // The call is postponed, and due again whatever is still to be confirmed here.
            mark = None;
        }
        if let Some(received) = hand.waiting.take() {
            hand.replies.send(received.command.reply(recorded.outcome), received.ticket).await;
        }
        announced.send(&hand.replies, recorded.announcing).await;
        next = recorded.next;
    }
    let Hand { replies, room, .. } = hand;
    // While anybody can still answer, the last confirms are waited for without a limit.
    drop(replies);
    if !announced.is_empty() {
        core.told(key, announced).await;
    }
    drop((mark, room));
}
