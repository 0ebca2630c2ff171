//! What only PostgreSQL does in its own way: the commit in one statement, and the word on a commit whose answer was lost.

mod arguments;

mod one_sql;

mod smooth_sql;

pub(super) mod commit_sql;

pub(super) mod fates_sql;

pub(super) mod met_sql;
