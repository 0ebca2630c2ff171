//! Two instances on one PostgreSQL, brought to the same effect at the same moment: what the contract says holds.
//!
//! Each race is forced: one instance is held inside its transaction until the other was seen waiting for it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

#[path = "../support/mod.rs"]
mod support;

mod transactional;

mod external;
