//! The one binary: composition root and command line. No logic of its own: decisions are made in the libraries.

pub mod settings;

pub mod process;

pub mod databases;

pub mod folder;

pub mod hosted;

pub mod stack;

pub mod audit;

pub mod cli;

pub mod dev;

pub mod demo;

pub mod door;

pub mod serve;

pub mod participant;
