//! Load: so many sagas in flight, or so many arriving per second, and how long each takes.
//!
//! Must hold: with a rate, a latency begins when the saga was meant to start, so that a stall counts for all who had to
//! wait behind it (coordinated omission); what is begun in the window is measured to its end.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Longest that a saga may take.
pub(crate) const SAGA_MAX: Duration = Duration::from_secs(120);

/// Where sagas enter.
#[async_trait]
pub(crate) trait Entry: Send + Sync {
    /// Runs one saga to its end; `refuse` makes its third step refuse.
    async fn run(&self, number: u64, refuse: bool) -> anyhow::Result<()>;
}

/// How sagas come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    /// As soon as another one has ended, so many at a time.
    Closed { in_flight: usize },
    /// So many per second, whatever becomes of them.
    Open { rate: f64 },
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) arrival: Arrival,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// The share of sagas whose third step refuses.
    pub(crate) refusals: f64,
}

/// What a window came to.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Sagas that ended in the window.
    pub(crate) sagas: u64,
    pub(crate) seconds: f64,
    /// Microseconds, of sagas that began in the window, or were meant to.
    pub(crate) latency: Histogram<u64>,
    /// Sagas of the warm-up, the window, and between them. All of them have ended.
    pub(crate) begun: u64,
}

impl Load {
    /// Runs the load, which goes on while `begin` reads what is counted from the window's begin on; `end` reads it again at its
    /// end. Then what is under way comes to its end.
    pub(crate) async fn run(
        &self,
        entry: Arc<dyn Entry>,
        begin: impl AsyncFnOnce(),
        end: impl AsyncFnOnce(),
    ) -> anyhow::Result<Measured> {
        let started = Instant::now();
        let latency = Histogram::new(3).context("three digits")?;
        let flights = FuturesUnordered::new();
        let mut run = Run { load: *self, entry, flights, number: 0, started, opened: None, sagas: 0, latency };
        run.go_on(tokio::time::sleep_until(started + self.warm_up)).await?;
        run.go_on(begin()).await?;
        let opened = Instant::now();
        (run.opened, run.sagas) = (Some(opened), 0);
        run.go_on(tokio::time::sleep_until(opened + self.window)).await?;
        let (sagas, seconds) = (run.sagas, opened.elapsed().as_secs_f64());
        end().await;
        while let Some(ended) = run.flights.next().await {
            run.ended(ended?)?;
        }
        Ok(Measured { sagas, seconds, latency: run.latency, begun: run.number })
    }

    /// How many of the first so many are refused: spread evenly, the share's whole part grows by one.
    pub(crate) fn refused(&self, begun: u64) -> u64 {
        (begun as f64 * self.refusals).floor() as u64
    }
}

/// A saga: when it was meant to begin, and how long it took from then on.
type Flight = Pin<Box<dyn Future<Output = anyhow::Result<(Instant, Duration)>> + Send>>;

struct Run {
    load: Load,
    entry: Arc<dyn Entry>,
    flights: FuturesUnordered<Flight>,
    number: u64,
    started: Instant,
    /// When the window was, once it was.
    opened: Option<Instant>,
    sagas: u64,
    latency: Histogram<u64>,
}

impl Run {
    /// Keeps the load up until something is done.
    async fn go_on<T>(&mut self, until: impl Future<Output = T>) -> anyhow::Result<T> {
        let mut until = pin!(until);
        loop {
            self.fill();
            let arrival = self.next_arrival();
            tokio::select! {
                biased;
                done = &mut until => return Ok(done),
                Some(ended) = self.flights.next(), if !self.flights.is_empty() => self.ended(ended?)?,
                () = tokio::time::sleep_until(arrival) => {}
            }
        }
    }

    fn ended(&mut self, (meant, took): (Instant, Duration)) -> anyhow::Result<()> {
        self.sagas += 1;
        if self.opened.is_some_and(|opened| meant >= opened) {
            self.latency.record(micros(took)).context("a latency")?;
        }
        Ok(())
    }

    /// Starts what is to be started by now.
    fn fill(&mut self) {
        match self.load.arrival {
            Arrival::Closed { in_flight } => {
                while self.flights.len() < in_flight {
                    self.start(Instant::now());
                }
            }
            Arrival::Open { .. } => {
                while self.next_arrival() <= Instant::now() {
                    self.start(self.next_arrival());
                }
            }
        }
    }

    fn next_arrival(&self) -> Instant {
        match self.load.arrival {
            Arrival::Closed { .. } => Instant::now() + SAGA_MAX,
            Arrival::Open { rate } => self.started + Duration::from_secs_f64(self.number as f64 / rate),
        }
    }

    fn start(&mut self, meant: Instant) {
        self.number += 1;
        let (entry, number) = (Arc::clone(&self.entry), self.number);
        let refuse = self.load.refused(number) > self.load.refused(number - 1);
        self.flights.push(Box::pin(async move {
            match tokio::time::timeout(SAGA_MAX, entry.run(number, refuse)).await {
                Ok(ended) => ended?,
                Err(_) => bail!("a saga took longer than {} s", SAGA_MAX.as_secs()),
            }
            Ok((meant, meant.elapsed()))
        }));
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
