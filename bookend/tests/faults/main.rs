//! What must survive faults that take long, on services that are disturbed: orchestrators, participants, the broker and
//! the database are killed, frozen, stopped and cut off while sagas are under way.
//!
//! Must hold: each story says how often its fault bit, and zero fails it as proving nothing; each looks at what the
//! owners and the providers hold, not at what the engine believes.
#![allow(clippy::print_stdout, reason = "the stories print what they proved")]

#[path = "../common/mod.rs"]
mod common;

mod load;

mod disturbed;

mod kill_serve;

mod kill_participant;

mod zombie;

mod two_formats;

mod frozen_participant;

mod broker;

mod database;
