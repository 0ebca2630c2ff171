//! The saga state machine: what happens next, decided without IO, clock, randomness or logging.
//!
//! [`apply()`] is the one door: it decides on an input, folds the events into the state and reads the commands off
//! the events. The engine performs what comes out. Must hold: `evolve` alone rebuilds the state from history and
//! never evaluates a payload template, so old history stays readable under new code; state is a map of steps, never
//! a cursor; a late or duplicate input is a row of a table, an impossible one a typed answer.
//! The rules are told in `docs/sagas.md`.

pub mod limits;

pub mod words;

pub mod step;

pub mod state;

pub mod event;

pub mod evolve;

pub mod input;

pub mod retry;

mod draft;

mod decide;

mod forward;

mod replies;

mod compensation;

pub mod admin;

pub mod apply;

pub mod view;

pub use apply::{Answer, Applied, Context, Ignored, apply, start};
pub use event::Event;
pub use evolve::{Corrupt, replay};
pub use input::{Action, Input, Operation, Refusal};
pub use state::{Decision, Saga, Status};

/// Format of the events and states that this build writes. A row of another format is left to builds that know it.
pub const FORMAT: u16 = 1;
