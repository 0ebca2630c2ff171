//! The `bookend` program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    bookend::cli::run(bookend::cli::Cli::parse())
}
