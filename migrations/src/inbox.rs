//! The inbox table: one row per effect, primary key = the key alone.
