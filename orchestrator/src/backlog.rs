//! What a worker has in hand and must try again, and with what company.
//!
//! Not for waiting or committing. Must hold: an input that brings the store down whenever it is tried ends up alone, is
//! tried ever more seldom, and keeps nobody from being tried; the number of inputs in hand is bounded.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// When what failed alone is tried again, doubled each time up to the bound.
const ALONE: Duration = Duration::from_secs(1);
const ALONE_MAX: Duration = Duration::from_secs(30);

/// Inputs in hand.
#[derive(Debug)]
pub(crate) struct Backlog<T> {
    batch_max: usize,
    /// Most of the next batch: half of one that failed, because one of it may be the reason; doubled when one went through.
    size: usize,
    again: VecDeque<T>,
    /// Whether what is to be tried again failed before. Then nothing new joins it.
    suspect: bool,
    /// What failed alone; at most as many as fill a batch.
    alone: Vec<Alone<T>>,
}

/// What failed alone, and is to be tried by itself.
#[derive(Debug)]
pub(crate) struct Alone<T> {
    due: Instant,
    /// What is kept of it when it fails again.
    pub(crate) tried: Tried,
    pub(crate) input: T,
}

/// How something that failed alone was tried so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    /// How long it was waited before this try.
    wait: Duration,
    /// The store has taken something else since, after which it was tried once more, at once: it may have been the store that failed.
    excused: bool,
}

/// What is to be tried next.
#[derive(Debug)]
pub(crate) struct Next<T> {
    pub(crate) inputs: Vec<T>,
    /// How many others may come along.
    pub(crate) room: usize,
}

impl<T> Backlog<T> {
    pub(crate) fn new(batch_max: usize) -> Self {
        Self { batch_max, size: batch_max, again: VecDeque::new(), suspect: false, alone: Vec::new() }
    }

    /// What is to be tried now; may be nothing.
    pub(crate) fn next(&mut self) -> Next<T> {
        let inputs: Vec<T> = self.again.drain(..self.size.min(self.again.len())).collect();
        let joins = self.again.is_empty() && (inputs.is_empty() || !self.suspect);
        let room = if joins { self.size - inputs.len() } else { 0 };
        self.suspect &= !self.again.is_empty();
        Next { inputs, room }
    }

    /// Something that is to be tried by itself now.
    pub(crate) fn alone(&mut self, now: Instant) -> Option<Alone<T>> {
        let position = self.alone.iter().position(|alone| alone.due <= now)?;
        Some(self.alone.remove(position))
    }

    /// When something is to be tried by itself next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.alone.iter().map(|alone| alone.due).min()
    }

    /// The store took a batch, all but these. What failed alone while it took nothing has its turn now, once.
    pub(crate) fn done(&mut self, losers: Vec<T>, now: Instant) {
        for alone in self.alone.iter_mut().filter(|alone| !alone.tried.excused) {
            alone.tried.excused = true;
            alone.due = now;
        }
        self.again.extend(losers);
        self.size = (self.size * 2).min(self.batch_max);
    }

    /// These were not tried, and can be now.
    pub(crate) fn put_back(&mut self, inputs: Vec<T>) {
        self.again.extend(inputs);
    }

    /// The store failed with these.
    pub(crate) fn failed(&mut self, mut inputs: Vec<T>, now: Instant) {
        if inputs.len() == 1 && self.alone.len() < self.batch_max {
            let tried = Tried { wait: ALONE, excused: false };
            self.alone.extend(inputs.pop().map(|input| Alone { due: now + ALONE, tried, input }));
            return;
        }
        self.size = (inputs.len() / 2).max(1);
        self.again.extend(inputs);
        self.suspect = true;
    }

    /// The store failed again with what was tried by itself.
    pub(crate) fn failed_alone(&mut self, inputs: Vec<T>, tried: Tried, now: Instant) {
        let wait = (tried.wait * 2).min(ALONE_MAX);
        let tried = Tried { wait, ..tried };
        self.alone.extend(inputs.into_iter().map(|input| Alone { due: now + wait, tried, input }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUILTY: u32 = 3;

    /// Tries once; a batch with the guilty one fails. What went through.
    fn step(backlog: &mut Backlog<u32>, fresh: &mut Vec<u32>, now: Instant) -> Vec<u32> {
        if let Some(alone) = backlog.alone(now) {
            assert_eq!(alone.input, GUILTY);
            backlog.failed_alone(vec![alone.input], alone.tried, now);
            return Vec::new();
        }
        let mut next = backlog.next();
        let more = next.room.min(fresh.len());
        next.inputs.extend(fresh.drain(..more));
        let inputs = next.inputs;
        if inputs.contains(&GUILTY) {
            backlog.failed(inputs, now);
            Vec::new()
        } else {
            backlog.done(Vec::new(), now);
            inputs
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_guilty_one_ends_up_alone_and_the_others_go_through() {
        let (mut backlog, mut fresh) = (Backlog::new(8), (0..20).collect::<Vec<u32>>());
        let (mut through, mut tries) = (Vec::new(), 0);
        while through.len() < 19 {
            through.extend(step(&mut backlog, &mut fresh, Instant::now()));
            tries += 1;
            assert!(tries < 20, "{through:?}");
        }
        assert!(!through.contains(&GUILTY));
        let due = backlog.due().map(|due| due - Instant::now());
        assert_eq!(due, Some(ALONE * 2), "it had its turn when the others went through");
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_alone_in_an_outage_is_tried_as_soon_as_something_goes_through() {
        let (mut backlog, outage) = (Backlog::new(8), Instant::now());
        backlog.failed(vec![1], outage);
        while outage.elapsed() < Duration::from_secs(20) {
            tokio::time::advance(backlog.due().expect("it is in hand") - Instant::now()).await;
            let alone = backlog.alone(Instant::now()).expect("its turn");
            backlog.failed_alone(vec![alone.input], alone.tried, Instant::now());
        }
        assert!(backlog.alone(Instant::now()).is_none());
        backlog.done(Vec::new(), Instant::now());
        let alone = backlog.alone(Instant::now()).expect("its turn");
        // Should it be guilty after all, others that go through mean nothing for it any more.
        backlog.failed_alone(vec![alone.input], alone.tried, Instant::now());
        backlog.done(Vec::new(), Instant::now());
        assert!(backlog.alone(Instant::now()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_alone_is_tried_ever_more_seldom_and_never_with_others() {
        let (mut backlog, mut fresh) = (Backlog::new(1), vec![GUILTY]);
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            assert!(step(&mut backlog, &mut fresh, Instant::now()).is_empty());
            let due = backlog.due().expect("it is in hand");
            assert_eq!((due - Instant::now()).as_secs(), expected);
            fresh.push(expected as u32 + 100);
            assert_eq!(step(&mut backlog, &mut fresh, Instant::now()).len(), 1, "somebody else goes through meanwhile");
            tokio::time::advance(due - Instant::now()).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_hand_is_bounded_while_everything_fails() {
        let mut backlog = Backlog::new(4);
        let mut given = 0;
        for _ in 0..100 {
            let mut next = backlog.next();
            for _ in 0..next.room {
                next.inputs.push(given);
                given += 1;
            }
            backlog.failed(next.inputs, Instant::now());
        }
        assert!(given <= 12, "{given} were taken in hand");
    }
}
