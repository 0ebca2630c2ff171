//! The owner of the clinic's data: slots and appointments. A library without a queue; the participants `booking` and
//! `confirmation` work on it.
//!
//! Must hold: at most one active appointment per slot; a patient's contact data is gone once the appointment is
//! released; no personal data leaves through the read models.

pub mod slots;

pub mod appointments;

mod set_sql;

mod locks;

pub mod seed;

pub mod query;

pub mod audit;

pub mod http;

pub use appointments::{Asked, Held, Hold, confirm, release, reserve};
pub use http::router;
pub use locks::lock;
pub use seed::seed;

/// Why the clinic's data could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The clinic's database failed.
    #[error("the clinic's database failed")]
    Db(#[from] db::Error),
}

impl From<sea_orm::DbErr> for Error {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Db(error.into())
    }
}
