//! The shape whose effects happen at a provider: an intent is committed first, the call runs outside every
//! transaction, its verdict is committed after.
//!
//! Not for what is done about one row: that is the module `work`. Must hold: no call without a committed intent; an
//! intent is never forgotten: until a definite verdict, and until that is announced, its row is leased to a live run or
//! due for the sweep; what is swept up has calls of its own, however many commands come.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use db::Db;
use tokio::time::Instant;
use uuid::Uuid;

use crate::handler::{Handler, Received, Run};
use crate::intents::{self, Planned};
use crate::lanes::{Lane, Room};
use crate::work::{Core, Work};
use crate::{Error, External, forget_sql, inbox};

/// How an [`ExternalHandler`] calls its provider.
#[derive(Clone, Debug)]
pub struct ExternalOptions {
    /// Most calls at a time, two at least: a quarter is kept for what the sweep finds.
    pub concurrency: usize,
    /// How long an intent belongs to a run that shows no sign of life. It is renewed when a third is over, so two thirds must
    /// outlast a database that is away or gives no answer: else other runs make calls again whose verdicts this one has in
    /// hand. Shorter than sagas wait for an open call, see [`OPEN_RETRY_MS`](inbox::OPEN_RETRY_MS).
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
            lease: Duration::from_secs(30),
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
        Self(Arc::new(Core::new(db, participant, options)))
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
        let (core, leased) = (&self.0, Instant::now());
        let planned = intents::plan(&core.db, core.lessee, core.participant.undoable(), batch).await?;
        let mut answers = Vec::new();
        for (received, planned) in batch.iter().zip(planned) {
            inbox::count(core.lessee.participant, planned.label());
            match planned {
                Planned::Answer(outcome, _) => answers.push((received, outcome)),
                Planned::Call(call) => {
                    Core::start(core, run, Work::answering(*call, received.clone(), leased));
                }
            }
        }
        // Answers may have to wait for room, and leases run meanwhile.
        for (received, outcome) in answers {
            run.replies.send(received.command.reply(outcome), received.ticket).await;
        }
        Ok(())
    }

    async fn forget(&self, sagas: &[Uuid]) -> Result<u64, Error> {
        forget_sql::forget(&self.0.db, self.0.lessee.participant, sagas).await
    }
}

/// Renews leases and continues what nobody has under way. Once shutdown began leases are renewed until the last call is over.
async fn sweep<P: External>(core: Arc<Core<P>>, run: Run) {
    let tasks = run.tasks.clone();
    let (mut renewed, mut room) = (Instant::now(), None);
    loop {
        core.report(renew(&core, &mut renewed).await);
        let continued = continue_due(&core, &run, room.take()).await;
        let more = matches!(continued, Ok(true));
        core.report(continued.map(drop));
        room = tokio::select! {
            biased;
            awake = tasks.sleep(core.options.sweep_every) => {
                if !awake {
                    break;
                }
                None
            }
            // After a restart hundreds may be due: they wait for each other, and not for the next sweep.
            room = core.lanes.enter(Lane::Swept), if more => Some(room),
        };
    }
    // The queue of answers ends with the last that could answer.
    drop(run);
    let often = (core.options.lease / 6).max(Duration::from_millis(10));
    while tokio::time::timeout(often, core.live.idle()).await.is_err() {
        core.report(renew(&core, &mut renewed).await);
    }
}

/// Makes leases of what is under way last longer, when a third of their time is over.
async fn renew<P: External>(core: &Core<P>, renewed: &mut Instant) -> Result<(), Error> {
    if renewed.elapsed() >= core.options.lease / 3 {
        let began = Instant::now();
        core.lessee.renew(&core.db, &core.live.keys()).await?;
        *renewed = began;
    }
    Ok(())
}

/// Continues as much as there is room for of what nobody has under way; `room` was waited for. Whether it is worth to go on as
/// soon as there is room again: more is due, and it was not for rows that others hold that less was begun.
async fn continue_due<P: External>(core: &Arc<Core<P>>, run: &Run, room: Option<Room>) -> Result<bool, Error> {
    let mut rooms = Vec::from_iter(room);
    let free = rooms.len() + core.lanes.room_for_swept();
    let mut due = core.lessee.due(&core.db, free + 1 + core.live.keys().len()).await?;
    // As it is by now: what was marked while the database was asked is under way.
    let live = core.live.keys();
    due.retain(|key| !live.contains(key));
    while rooms.len() < due.len()
        && let Some(room) = core.lanes.try_enter_swept()
    {
        rooms.push(room);
    }
    let more = due.len() > rooms.len();
    due.truncate(rooms.len());
    if due.is_empty() {
        return Ok(more);
    }
    let leased = Instant::now();
    let claimed = core.lessee.claim(&core.db, due).await?;
    let more = more && !claimed.is_empty();
    for ((row, interrupted), room) in claimed.into_iter().zip(rooms) {
        match Work::of(&row, interrupted, leased) {
            Ok(work) => Core::continue_in(core, run, work, room),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, key = %row.key, "an unfinished row could not be read");
            }
        }
    }
    Ok(more)
}
