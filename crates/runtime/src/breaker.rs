//! A circuit breaker around one provider.
//!
//! Not around the database or the broker: the outbox buffers those, and an open breaker would only hide the backlog.
//! Must hold: half-open lets exactly one call through; the time-out is inside the guarded call, so that silence
//! counts; a dropped call counts as nothing and leaves the way free; only errors the caller names count, because a
//! declined card is no outage. This file is the only home of `failsafe`, which brings the state machine; it follows
//! the machine's clock, not tokio's.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use failsafe::backoff::Constant;
use failsafe::failure_policy::ConsecutiveFailures;
use failsafe::{Instrument, StateMachine};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How a breaker behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names it in metrics and logs.
    pub name: &'static str,
    /// Failures in a row after which it opens; at least 1.
    pub failures_to_open: u32,
    /// How long it stays open before it lets one call through.
    pub open_period: Duration,
    /// How long a call may take.
    pub call_timeout: Duration,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls go through.
    Closed,
    /// Calls are rejected, until the open period is over and a call comes.
    Open,
    /// One call is tried, others are rejected.
    HalfOpen,
}

impl State {
    const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }
}

/// Why a guarded call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakerError<E: fmt::Debug + std::error::Error + 'static> {
    /// Not called: the provider is taken to be down.
    #[error("the circuit breaker is open")]
    Open,
    /// No answer in time; what the call did is unknown.
    #[error("the call was not answered in time")]
    TimedOut,
    /// The call failed.
    #[error("the guarded call failed")]
    Call(#[source] E),
}

/// Guards calls to one provider. Clones share the state.
#[derive(Clone, Debug)]
pub struct Breaker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    /// One lock over a change and what is noted about it keeps both in step.
    machine: Mutex<Machine>,
    watch: Watch,
    probe: Arc<Semaphore>,
}

type Machine = StateMachine<ConsecutiveFailures<Constant>, Watch>;

/// Notes the machine's transitions, which it does not show otherwise.
#[derive(Clone, Debug)]
struct Watch {
    name: &'static str,
    state: Arc<AtomicU8>,
    /// Counts transitions, so that a call's result is taken only by the state that admitted it.
    era: Arc<AtomicU64>,
}

impl Watch {
    fn state(&self) -> State {
        let code = self.state.load(Ordering::Acquire);
        State::ALL.into_iter().find(|state| state.code() == code).unwrap_or(State::Open)
    }

    fn enter(&self, entered: State) {
        let left = self.state.swap(entered.code(), Ordering::AcqRel);
        for state in State::ALL {
            let here = if state == entered { 1.0 } else { 0.0 };
            metrics::gauge!("bookend_breaker_state", "breaker" => self.name, "state" => state.name()).set(here);
        }
        if left == entered.code() {
            return;
        }
        self.era.fetch_add(1, Ordering::AcqRel);
        metrics::counter!("bookend_breaker_transitions_total", "breaker" => self.name, "to" => entered.name())
            .increment(1);
        tracing::info!(breaker = self.name, state = entered.name(), "a circuit breaker changed");
    }
}

impl Instrument for Watch {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.enter(State::Open);
    }

    fn on_half_open(&self) {
        self.enter(State::HalfOpen);
    }

    fn on_closed(&self) {
        self.enter(State::Closed);
    }
}

/// The right to make one call.
struct Admission {
    era: u64,
    /// Held by the one call of the half-open state until it ends or is dropped.
    _probe: Option<OwnedSemaphorePermit>,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let watch = Watch { name: options.name, state: Arc::default(), era: Arc::default() };
        let policy = failsafe::failure_policy::consecutive_failures(
            options.failures_to_open.max(1),
            failsafe::backoff::constant(options.open_period),
        );
        let machine = Mutex::new(StateMachine::new(policy, watch.clone()));
        Self(Arc::new(Inner { options, machine, watch, probe: Arc::new(Semaphore::new(1)) }))
    }

    /// Where it stands. It stays open until a call comes after the open period.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.watch.state()
    }

    /// Makes the call if the breaker lets it through. `is_outage` says which errors count as failures; the others
    /// are answers and count as successes.
    ///
    /// # Errors
    /// See [`BreakerError`].
    pub async fn call<T, E>(
        &self,
        is_outage: impl FnOnce(&E) -> bool,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BreakerError<E>>
    where
        E: std::error::Error + 'static,
    {
        let Some(admission) = self.admit() else {
            self.count("rejected");
            return Err(BreakerError::Open);
        };
        match tokio::time::timeout(self.0.options.call_timeout, call).await {
            Ok(Ok(value)) => {
                self.record(&admission, true, "succeeded");
                Ok(value)
            }
            Ok(Err(error)) if is_outage(&error) => {
                self.record(&admission, false, "failed");
                Err(BreakerError::Call(error))
            }
            Ok(Err(error)) => {
                self.record(&admission, true, "refused");
                Err(BreakerError::Call(error))
            }
            Err(_) => {
                self.record(&admission, false, "timed_out");
                Err(BreakerError::TimedOut)
            }
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self) -> Option<Admission> {
        let machine = self.machine();
        if !machine.is_call_permitted() {
            return None;
        }
        let probe = match self.0.watch.state() {
            State::Closed => None,
            // The machine itself would let every caller through now.
            State::HalfOpen | State::Open => Some(Arc::clone(&self.0.probe).try_acquire_owned().ok()?),
        };
        Some(Admission { era: self.0.watch.era.load(Ordering::Acquire), _probe: probe })
    }

    fn record(&self, admission: &Admission, well: bool, result: &'static str) {
        self.count(result);
        let machine = self.machine();
        if self.0.watch.era.load(Ordering::Acquire) != admission.era {
            // Begun before the last transition: it says nothing about the provider of now.
            return;
        }
        if well { machine.on_success() } else { machine.on_error() }
    }

    fn count(&self, result: &'static str) {
        let breaker = self.0.options.name;
        metrics::counter!("bookend_breaker_calls_total", "breaker" => breaker, "result" => result).increment(1);
    }
}

#[cfg(test)]
mod tests;
