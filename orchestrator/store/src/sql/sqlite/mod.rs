//! What only SQLite does in its own way.

#[macro_use]
mod sets_sql;

pub(super) mod commit_sql;

mod smooth_sql;

pub(super) mod met_sql;
