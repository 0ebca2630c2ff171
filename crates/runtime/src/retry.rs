//! Short retries inside one process: an HTTP call to a provider, a first connection.
//!
//! Never for saga steps: their delays are rows in the database and survive a restart. Must hold: only what is known
//! to be transient is tried again; attempts and total time are both limited; an attempt begins after its delay, and
//! its delay follows tokio's time. This file is the only home of `backoff`, from which it takes the delays.

use std::fmt;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;
use tokio::time::Instant;

/// How often and for how long to try.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Attempts in all, the first included; at least 1.
    pub attempts_max: u32,
    /// The delay before the second attempt; it doubles from then on.
    pub delay_first: Duration,
    /// The longest delay.
    pub delay_max: Duration,
    /// No attempt begins, and none goes on, after this time in all.
    pub total_max: Duration,
    /// Spreads delays between half and whole, the same way for the same seed. None for exact delays.
    pub jitter_seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            delay_first: Duration::from_millis(50),
            delay_max: Duration::from_secs(1),
            total_max: Duration::from_secs(5),
            jitter_seed: None,
        }
    }
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// The same call would fail again.
    Permanent(E),
    /// The same call may work later.
    Transient {
        /// What went wrong.
        error: E,
        /// Not earlier than this, if the other side said so.
        retry_after: Option<Duration>,
    },
}

impl<E> Failure<E> {
    /// A failure that may pass, without advice on when.
    pub fn transient(error: E) -> Self {
        Self::Transient { error, retry_after: None }
    }
}

/// Why trying ended without success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GaveUp<E: fmt::Debug + std::error::Error + 'static> {
    /// An attempt failed for good.
    #[error("the call failed for good")]
    Permanent(#[source] E),
    /// All attempts failed, or the next one would begin too late; this is the last failure.
    #[error("the call failed {attempts} time(s) in a row")]
    Exhausted {
        /// Attempts made.
        attempts: u32,
        /// The last failure.
        #[source]
        error: E,
    },
    /// The total time passed during an attempt, whose effect is unknown.
    #[error("the call was not answered in time")]
    TimedOut,
}

/// Calls `attempt` until it succeeds, fails for good, or the limits are reached.
///
/// # Errors
/// See [`GaveUp`].
pub async fn retry<T, E, F, Fut>(options: &Options, mut attempt: F) -> Result<T, GaveUp<E>>
where
    E: std::error::Error + 'static,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Failure<E>>>,
{
    let deadline = Instant::now() + options.total_max;
    let mut delays = Delays::new(options);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let result = tokio::time::timeout_at(deadline, attempt()).await.map_err(|_| GaveUp::TimedOut)?;
        let (error, retry_after) = match result {
            Ok(value) => return Ok(value),
            Err(Failure::Permanent(error)) => return Err(GaveUp::Permanent(error)),
            Err(Failure::Transient { error, retry_after }) => (error, retry_after),
        };
        let delay = delays.next().max(retry_after.unwrap_or_default());
        // Checked, because the advice of another side may be absurd.
        let begins = Instant::now().checked_add(delay);
        match begins {
            Some(begins) if attempts < options.attempts_max && begins < deadline => {
                tokio::time::sleep_until(begins).await;
            }
            Some(_) | None => return Err(GaveUp::Exhausted { attempts, error }),
        }
    }
}

/// The delays of one call. The crate's own loop is not used: it begins an attempt before its delay and measures its
/// budget by the machine's clock; its jitter has no seed.
struct Delays {
    sequence: ExponentialBackoff,
    longest: Duration,
    seed: Option<u64>,
}

impl Delays {
    fn new(options: &Options) -> Self {
        let sequence = ExponentialBackoffBuilder::new()
            .with_initial_interval(options.delay_first)
            .with_max_interval(options.delay_max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Self { sequence, longest: options.delay_max, seed: options.jitter_seed }
    }

    fn next(&mut self) -> Duration {
        let whole = self.sequence.next_backoff().unwrap_or(self.longest).min(self.longest);
        let Some(seed) = self.seed.as_mut() else { return whole };
        // Knuth's linear congruential generator: its high bits are even enough to spread a few delays.
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let thousandths = u32::try_from((*seed >> 33) % 501).unwrap_or(0);
        whole * (500 + thousandths) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("no")]
    struct No;

    const EXACT: Options = Options {
        attempts_max: 4,
        delay_first: Duration::from_secs(1),
        delay_max: Duration::from_secs(3),
        total_max: Duration::from_secs(60),
        jitter_seed: None,
    };

    /// When attempts begin, in milliseconds, and how it ends, if every attempt fails as `failure` says.
    async fn failing(options: &Options, failure: Failure<No>) -> (Vec<u128>, GaveUp<No>) {
        let origin = Instant::now();
        let mut begun = Vec::new();
        let ended = retry(options, || {
            begun.push(origin.elapsed().as_millis());
            std::future::ready(Err::<(), _>(failure.clone()))
        })
        .await;
        (begun, ended.unwrap_err())
    }

    #[tokio::test(start_paused = true)]
    async fn delays_double_up_to_the_longest_and_attempts_are_counted() {
        let (begun, ended) = failing(&EXACT, Failure::transient(No)).await;
        assert_eq!(begun, [0, 1_000, 3_000, 6_000]);
        assert_eq!(ended, GaveUp::Exhausted { attempts: 4, error: No });
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_failure_ends_it() {
        let (begun, ended) = failing(&EXACT, Failure::Permanent(No)).await;
        assert_eq!((begun.len(), ended), (1, GaveUp::Permanent(No)));
    }

    #[tokio::test(start_paused = true)]
    async fn advice_on_when_to_retry_is_followed_within_the_total() {
        let advice = |secs| Failure::Transient { error: No, retry_after: Some(Duration::from_secs(secs)) };
        assert_eq!(failing(&EXACT, advice(10)).await.0, [0, 10_000, 20_000, 30_000]);
        assert_eq!(failing(&EXACT, advice(50)).await.0, [0, 50_000]);
        assert_eq!(failing(&EXACT, advice(u64::MAX)).await.0, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_ends_with_the_total() {
        let origin = Instant::now();
        let ended = retry::<(), No, _, _>(&EXACT, std::future::pending).await;
        assert_eq!((ended, origin.elapsed()), (Err(GaveUp::TimedOut), EXACT.total_max));
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_follows_its_seed_and_stays_between_half_and_whole() {
        let seeded = |seed| Options { jitter_seed: Some(seed), ..EXACT };
        let (one, _) = failing(&seeded(1), Failure::transient(No)).await;
        assert_eq!(one, failing(&seeded(1), Failure::transient(No)).await.0);
        assert_ne!(one, failing(&seeded(2), Failure::transient(No)).await.0);
        for seed in 0..100 {
            let (begun, _) = failing(&seeded(seed), Failure::transient(No)).await;
            assert!((500..=1_000).contains(&begun[1]), "{begun:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn success_ends_it() {
        let mut left = 2;
        let ended = retry(&EXACT, || {
            left -= 1;
            std::future::ready(if left == 0 { Ok(7) } else { Err(Failure::transient(No)) })
        });
        assert_eq!(ended.await, Ok(7));
    }
}
