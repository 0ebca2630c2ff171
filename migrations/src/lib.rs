//! The tables of every owner, one ladder each: engine, clinic, payment, notify.
//!
//! Must hold: a step on a ladder never changes once released; every step runs in a transaction; builders only, so
//! that each ladder fits SQLite and PostgreSQL alike. Instants are integer microseconds, money integer minor units.

/// Participants' inbox table, shared by the ladders of the three owners.
mod inbox;

mod engine;

mod clinic;

mod payment;

mod notify;

pub use clinic::Clinic;
pub use engine::Engine;
pub use notify::Notify;
pub use payment::Payment;
