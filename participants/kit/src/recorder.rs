//! Verdicts are recorded together: what came in while one transaction ran is the next one's.
//!
//! Not for what a verdict changes: that is [`crate::verdict`]; not for trying again: whoever has the verdict does that.
//! Must hold: a verdict that finds nobody recording is recorded at once, without waiting for others; each one that is
//! handed in is answered as soon as its own transaction is over; one that the database refuses for a lasting reason,
//! or that others block, keeps none of its neighbours from being recorded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use db::Db;
use runtime::Tasks;
use tokio::sync::oneshot;

use crate::leases::Lessee;
use crate::verdict::{self, Recorded, Taught};
use crate::{Error, External};

/// Why a try to record a verdict failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Waiting may mend it.
    Transient,
    /// It waited too long for what others hold. By itself it keeps none of its neighbours waiting with it.
    Blocked,
    /// The database refuses this very verdict.
    Lasting,
}

impl Failure {
    fn of(error: &Error) -> Self {
        match (error.is_blocked(), error.is_transient()) {
            (true, _) => Self::Blocked,
            (false, true) => Self::Transient,
            (false, false) => Self::Lasting,
        }
    }
}

/// Records the verdicts of one participant, one transaction at a time.
#[derive(Debug)]
pub(crate) struct Recorder<P> {
    db: Db,
    participant: Arc<P>,
    lessee: Lessee,
    line: Mutex<Line>,
}

/// Bounded by the number of calls at a time: each has one verdict at most.
#[derive(Debug, Default)]
struct Line {
    waiting: Vec<Waiting>,
    /// Whether a task records, and will look again before it ends.
    busy: bool,
}

/// A verdict in line.
#[derive(Debug)]
struct Waiting {
    taught: Arc<Taught>,
    /// It was refused or blocked before: it is tried by itself, so that it breaks nobody's transaction again.
    alone: bool,
    answer: oneshot::Sender<Result<Recorded, Failure>>,
}

impl<P: External> Recorder<P> {
    pub(crate) fn new(db: Db, participant: Arc<P>, lessee: Lessee) -> Self {
        Self { db, participant, lessee, line: Mutex::default() }
    }

    /// Tries once to record a verdict, in the next transaction. Whoever was refused or blocked before stands `alone`.
    pub(crate) async fn record(
        recorder: &Arc<Self>,
        tasks: &Tasks,
        taught: Arc<Taught>,
        alone: bool,
    ) -> Result<Recorded, Failure> {
        let (answer, answered) = oneshot::channel();
        if recorder.line().join(Waiting { taught, alone, answer }) {
            tasks.spawn_vital("recorder", Arc::clone(recorder).run());
        }
        answered.await.unwrap_or(Err(Failure::Transient))
    }

    async fn run(self: Arc<Self>) {
        while let Some(batch) = self.next() {
            self.batch(batch).await;
        }
    }

    fn next(&self) -> Option<Vec<Waiting>> {
        self.line().next()
    }

    /// Records what it can. A part that is refused for a lasting reason, or blocked, is halved, until the guilty one stands alone.
    async fn batch(&self, batch: Vec<Waiting>) {
        let (alone, together): (Vec<Waiting>, Vec<Waiting>) = batch.into_iter().partition(|waiting| waiting.alone);
        let mut parts: VecDeque<Vec<Waiting>> = alone.into_iter().map(|waiting| vec![waiting]).collect();
        parts.push_front(together);
        let mut blocked = 0;
        while let Some(mut part) = parts.pop_front() {
            if part.is_empty() {
                continue;
            }
            let taught: Arc<[Arc<Taught>]> = part.iter().map(|waiting| Arc::clone(&waiting.taught)).collect();
            match verdict::record(&self.db, &self.participant, self.lessee, taught).await {
                Ok(recorded) => {
                    blocked = 0;
                    for (waiting, recorded) in part.into_iter().zip(recorded) {
                        waiting.tell(Ok(recorded));
                    }
                }
                Err(error) => {
                    self.report(&error, &part);
                    let failure = Failure::of(&error);
                    if failure == Failure::Transient || part.len() == 1 {
                        blocked += u32::from(failure == Failure::Blocked);
                        if blocked > 1 {
                            // Nobody's fault: each of the others would wait as long.
                            part.extend(parts.drain(..).flatten());
                        }
                        part.into_iter().for_each(|waiting| waiting.tell(Err(failure)));
                        continue;
                    }
                    let rest = part.split_off(part.len() / 2);
                    parts.push_front(rest);
                    parts.push_front(part);
                }
            }
        }
    }

    fn report(&self, error: &Error, part: &[Waiting]) {
        let keys: Vec<String> = part.iter().map(|waiting| waiting.taught.key().to_string()).collect();
        let error = error as &dyn std::error::Error;
        tracing::error!(error, participant = self.lessee.participant, ?keys, "verdicts could not be recorded");
    }

    /// No code panics half-way through a change, so what is behind a poisoned lock is whole.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// True when nobody records: then the caller sees to it.
    fn join(&mut self, waiting: Waiting) -> bool {
        self.waiting.push(waiting);
        !std::mem::replace(&mut self.busy, true)
    }

    /// All that wait. Nobody records any more when there are none.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        self.busy = !self.waiting.is_empty();
        self.busy.then(|| std::mem::take(&mut self.waiting))
    }
}

impl Waiting {
    fn tell(self, answer: Result<Recorded, Failure>) {
        // Whoever does not listen any more ended with the process's tasks; the row's lease goes on.
        let _ = self.answer.send(answer);
    }
}
