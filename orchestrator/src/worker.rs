//! A worker: takes what has arrived, decides it, and commits it, one batch at a time.
//!
//! While one batch is with the store the next is put together. Must hold: a batch is what arrived while the last one was
//! under way, and who is alone waits for nobody; a worker never waits for a publisher, a client or another worker; the
//! number of inputs in hand is bounded; what was taken is committed, settled or kept.

use std::future::{Future, pending, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use runtime::Pause;
use runtime::tasks::until;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backlog::{Alone, Backlog, Next};
use crate::commit::{self, Again, Attempt, Kept, PAUSE};
use crate::decided::{About, Decided};
use crate::gather::Gather;
use crate::shared::Shared;
use crate::work::Work;

/// What was decided longer ago is decided again: its timeouts have begun to run.
const STALE: Duration = Duration::from_secs(1);

/// One worker, and what it has in hand.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Work>,
    /// Whether the queue may still give something.
    open: bool,
    backlog: Backlog<Work>,
    gather: Gather,
    pause: Pause,
    next: Making,
    under_way: Option<UnderWay>,
    /// Whether something was tried by itself last: then it is the others' turn.
    others: bool,
}

/// The batch that is being put together.
struct Making {
    decided: Decided,
    /// Inputs of sagas and start keys that are in a batch already.
    parked: Vec<Work>,
    taken: usize,
    room: usize,
    /// When company for it was first waited for.
    since: Instant,
}

/// The batch that is with the store.
struct UnderWay {
    commit: Pin<Box<dyn Future<Output = Attempt> + Send>>,
    about: About,
    taken: usize,
    since: Instant,
}

/// What a worker waits for.
enum Event {
    Landed(Attempt),
    Taken(Vec<Work>),
    /// It is time to look again.
    Due,
    Stopping,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Work>) -> Self {
        let mut backlog = Backlog::new(shared.options.batch_max);
        let next = Making::new(&backlog.next());
        let gather = Gather::default();
        Self { shared, queue, open: true, backlog, gather, pause: PAUSE, next, under_way: None, others: false }
    }

    /// Works until there will be nothing more, or the engine stops and the store is out of reach: what is not committed
    /// then was not acknowledged either.
    pub(crate) async fn run(mut self) {
        loop {
            if self.next.is_empty() {
                let next = self.backlog.next();
                self.next = Making::new(&next);
                if !next.inputs.is_empty() {
                    if !self.join(next.inputs).await {
                        return self.leave().await;
                    }
                    continue;
                }
            }
            if let Some(alone) = self.alone() {
                self.try_alone(alone).await;
                continue;
            }
            if self.is_due(Instant::now()) {
                self.launch().await;
                continue;
            }
            if !self.open && self.under_way.is_none() && self.next.is_empty() {
                return;
            }
            let goes_on = match self.event().await {
                Event::Landed(attempt) => self.land(attempt).await,
                Event::Taken(works) if works.is_empty() => {
                    self.open = false;
                    true
                }
                Event::Taken(works) => self.join(works).await,
                Event::Due => true,
                Event::Stopping => {
                    self.queue.close();
                    true
                }
            };
            if !goes_on {
                return self.leave().await;
            }
        }
    }

    /// The engine stops: what is with the store comes to its end, the rest was not acknowledged.
    async fn leave(self) {
        if let Some(batch) = self.under_way
            && let Attempt::Committed(landed) = batch.commit.await
        {
            landed.tell(&self.shared).await;
        }
    }

    async fn event(&mut self) -> Event {
        let closing = self.queue.is_closed();
        let room = if self.open { self.next.room } else { 0 };
        let look = match &self.under_way {
            Some(_) => None,
            None if self.next.is_empty() => self.backlog.due(),
            None => self.launch_at(),
        };
        let mut works = Vec::new();
        tokio::select! {
            biased;
            attempt = landing(&mut self.under_way) => Event::Landed(attempt),
            _ = self.queue.recv_many(&mut works, room), if room > 0 => Event::Taken(works),
            () = until(look) => Event::Due,
            () = self.shared.tasks.stopping(), if !closing => Event::Stopping,
        }
    }

    /// What is to be tried by itself, while nothing is under way and nobody else's turn has come.
    fn alone(&mut self) -> Option<Alone<Work>> {
        let wanted = !self.next.is_empty() || !self.queue.is_empty();
        if self.under_way.is_some() || (self.others && wanted) {
            return None;
        }
        self.backlog.alone(Instant::now())
    }

    /// Tries what failed alone. The batch in the making stays what it is: should it be about the same saga, its version
    /// tells.
    async fn try_alone(&mut self, alone: Alone<Work>) {
        self.others = true;
        let tried = alone.tried;
        let again = match commit::attempt(&self.shared, vec![alone.input]).await {
            Attempt::Committed(landed) => Again::Lost(landed.tell(&self.shared).await),
            Attempt::Not(Kept::Failed(inputs)) => Again::Failed(inputs),
            Attempt::Not(Kept::Poisoned(inputs)) => commit::in_parts(&self.shared, inputs).await,
        };
        match again {
            Again::Lost(losers) => self.backlog.put_back(losers),
            Again::Failed(inputs) => self.backlog.failed_alone(inputs, tried, Instant::now()),
        }
    }

    /// When the next batch is to be committed, once nothing more comes before. None while there is another one.
    fn launch_at(&self) -> Option<Instant> {
        if self.under_way.is_some() || self.next.decided.is_empty() {
            return None;
        }
        let (goal, patience) = self.gather.goal();
        let waits = self.open && self.next.room > 0 && self.next.taken < goal;
        Some(if waits { self.next.since + patience } else { self.next.since })
    }

    fn is_due(&self, now: Instant) -> bool {
        // What has arrived by now comes along.
        let comes = self.open && self.next.room > 0 && !self.queue.is_empty();
        !comes && self.launch_at().is_some_and(|at| at <= now)
    }

    /// Decides inputs and adds them to the next batch. False when the engine stops.
    async fn join(&mut self, works: Vec<Work>) -> bool {
        self.next.take(works.len());
        let (joining, parked) = self.next.decided.part(works, self.under_way.as_ref().map(|batch| &batch.about));
        self.next.parked.extend(parked);
        if joining.is_empty() {
            return true;
        }
        match self.next.decided.join(&self.shared, joining).await {
            Ok(()) => true,
            Err((error, works)) => self.kept(commit::failed(&error, works)).await,
        }
    }

    /// Gives the next batch to the store; one that is stale is decided again before, whatever the time was lost with.
    async fn launch(&mut self) {
        let fresh = Making::new(&Next { inputs: Vec::new(), room: 0 });
        let Making { mut decided, parked, taken, .. } = std::mem::replace(&mut self.next, fresh);
        if decided.age() > STALE {
            self.backlog.put_back(decided.into_works());
            self.backlog.put_back(parked);
            return;
        }
        self.others = false;
        self.backlog.put_back(parked);
        let about = std::mem::take(&mut decided.about);
        let shared = Arc::clone(&self.shared);
        let commit = Box::pin(async move { commit::commit(&shared, decided).await });
        let mut batch = UnderWay { commit, about, taken, since: Instant::now() };
        // It sets out now, not when it is looked at next.
        if let Poll::Ready(attempt) = poll_fn(|context| Poll::Ready(batch.commit.as_mut().poll(context))).await {
            batch.commit = Box::pin(ready(attempt));
        }
        self.under_way = Some(batch);
    }

    /// The batch under way is over: the next one sets out before anybody is told. False when the engine stops.
    async fn land(&mut self, attempt: Attempt) -> bool {
        let Some(UnderWay { taken, since, .. }) = self.under_way.take() else { return true };
        self.gather.turned(taken, since.elapsed());
        self.next.since = Instant::now();
        match attempt {
            Attempt::Committed(landed) => {
                let parked = std::mem::take(&mut self.next.parked);
                // What is to be tried by itself has its turn before.
                if self.backlog.due().is_none_or(|due| due > self.next.since) && self.is_due(self.next.since) {
                    self.launch().await;
                }
                let losers = landed.tell(&self.shared).await;
                self.tried(losers, parked);
                true
            }
            Attempt::Not(kept) => self.kept(kept).await,
        }
    }

    /// The store took what it was given, all but the losers. They are decided again, then what waited for that batch, and
    /// nothing newer before them.
    fn tried(&mut self, losers: Vec<Work>, parked: Vec<Work>) {
        self.pause.reset();
        if !losers.is_empty() || !parked.is_empty() {
            self.next.room = 0;
        }
        self.backlog.done(losers, Instant::now());
        self.backlog.put_back(parked);
    }

    /// The store is out of reach: everything in hand is to be decided again. False when the engine stops.
    async fn failed(&mut self, inputs: Vec<Work>) -> bool {
        self.backlog.failed(inputs, Instant::now());
        self.backlog.put_back(std::mem::take(&mut self.next.decided).into_works());
        self.backlog.put_back(std::mem::take(&mut self.next.parked));
        self.pause.wait(&self.shared.tasks).await
    }

    async fn poisoned(&mut self, inputs: Vec<Work>) -> bool {
        match commit::in_parts(&self.shared, inputs).await {
            Again::Lost(losers) => {
                let parked = std::mem::take(&mut self.next.parked);
                self.tried(losers, parked);
                true
            }
            Again::Failed(inputs) => self.failed(inputs).await,
        }
    }

    /// These inputs changed nothing. False when the engine stops.
    async fn kept(&mut self, kept: Kept) -> bool {
        match kept {
            Kept::Failed(inputs) => self.failed(inputs).await,
            Kept::Poisoned(inputs) => self.poisoned(inputs).await,
        }
    }
}

impl Making {
    fn new(next: &Next<Work>) -> Self {
        Self {
            decided: Decided::default(),
            parked: Vec::new(),
            taken: 0,
            room: next.room + next.inputs.len(),
            since: Instant::now(),
        }
    }

    /// Whether nothing that was taken is still here.
    fn is_empty(&self) -> bool {
        self.decided.is_empty() && self.parked.is_empty()
    }

    fn take(&mut self, inputs: usize) {
        if self.taken == 0 {
            self.since = Instant::now();
        }
        self.taken += inputs;
        self.room = self.room.saturating_sub(inputs);
    }
}

async fn landing(under_way: &mut Option<UnderWay>) -> Attempt {
    match under_way {
        Some(batch) => batch.commit.as_mut().await,
        None => pending().await,
    }
}
