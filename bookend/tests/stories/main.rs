//! What the product promises, each story a test of its name: real processes, real databases, real HTTP.
//!
//! Where a fault is the point, the test prints how often it bit, and zero fails it as proving nothing.
#![allow(clippy::print_stdout, reason = "the stories print what they proved")]

#[path = "../common/mod.rs"]
mod common;

mod audit;

mod command_line;

mod demo;

mod data_folder;

mod starting;

mod burst;

mod kill_engine;

mod late_charge;

mod participants;

mod fence;

mod repair;

mod slow_client;

mod replay;

mod retention;

mod dead_letters;

mod simulation;

mod wait_across_instances;

mod readme;
