//! The HTTP edge that every process shares: problems, tokens, bodies, queries, pages, health, metrics, serving.
//!
//! Not for routes of the business. Must hold: whatever goes wrong leaves as problem+json; every answer carries
//! `x-request-id`; nothing limits how long a handler may wait, because waiting for a saga is a handler's work.

pub mod problem;

pub mod auth;

pub mod json;

mod shape;

pub mod query;

pub mod page;

pub mod edge;

pub mod operations;

pub mod serve;

pub use auth::{Principal, Role, Token, Tokens, identify};
pub use edge::{RequestId, edge};
pub use json::Json;
pub use operations::operations;
pub use page::{Cursor, Page, limit};
pub use problem::Problem;
pub use query::{NoQuery, Query};
pub use serve::{serve, serve_here};
