//! What only SQLite does in its own way.

pub(super) mod commit_sql;
