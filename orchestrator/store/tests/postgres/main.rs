//! The store on PostgreSQL: what the port says, races that are forced, and answers that are lost.
#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

/// Instances of one engine on a schema of its own, and sagas to commit.
mod world;

/// A session beside the engine's that holds what they need.
mod holder;

mod claims;

mod commits;

mod conformance;

mod definitions;

mod fates;

mod keys;

mod plans;

mod read_only;

mod restart;
