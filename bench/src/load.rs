//! Load: so many sagas in flight, or so many arriving per second, and how long each takes.
//!
//! Must hold: with a rate, a latency begins when the saga was meant to start, so that a stall counts for all who had to
//! wait behind it (coordinated omission); what is begun in the window is measured to its end.

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
    pub(crate) sagas: u64,
    pub(crate) seconds: f64,
    /// Microseconds, of sagas that ended in the window.
    pub(crate) latency: Histogram<u64>,
}

impl Load {
    /// Runs the load; `window` is told when the window begins, and ends the measurement of everything else at its end.
    pub(crate) async fn run(&self, entry: Arc<dyn Entry>, begin: impl AsyncFnOnce()) -> anyhow::Result<Measured> {
        let started = Instant::now();
        let (opens, closes) = (started + self.warm_up, started + self.warm_up + self.window);
        let mut run = Run { load: *self, entry, flights: FuturesUnordered::new(), number: 0, started };
        let mut latency = Histogram::new(3).context("three digits")?;
        run.fill();
        let mut begin = Some(begin);
        let (mut sagas, mut opened) = (0, opens);
        loop {
            let now = Instant::now();
            if now >= closes {
                break;
            }
            if now >= opens
                && let Some(begin) = begin.take()
            {
                begin().await;
                (sagas, opened) = (0, Instant::now());
                latency.reset();
            }
            let look = run.next_arrival().min(if begin.is_some() { opens } else { closes });
            tokio::select! {
                biased;
                Some(ended) = run.flights.next(), if !run.flights.is_empty() => {
                    latency.record(micros(ended?)).context("a latency")?;
                    sagas += 1;
                    run.fill();
                }
                () = tokio::time::sleep_until(look) => run.fill(),
            }
        }
        Ok(Measured { sagas, seconds: opened.elapsed().as_secs_f64(), latency })
    }
}

type Flight = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<Duration>> + Send>>;

struct Run {
    load: Load,
    entry: Arc<dyn Entry>,
    flights: FuturesUnordered<Flight>,
    number: u64,
    started: Instant,
}

impl Run {
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
        // Spread evenly: the share's whole part grows by one.
        let refuse = (number as f64 * self.load.refusals).floor() > ((number - 1) as f64 * self.load.refusals).floor();
        self.flights.push(Box::pin(async move {
            match tokio::time::timeout(SAGA_MAX, entry.run(number, refuse)).await {
                Ok(ended) => ended?,
                Err(_) => bail!("a saga took longer than {} s", SAGA_MAX.as_secs()),
            }
            Ok(meant.elapsed())
        }));
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
