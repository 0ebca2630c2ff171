//! What only SQLite does in its own way.

pub(super) mod commit_sql;

pub(super) mod met_sql;
