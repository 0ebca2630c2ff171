//! Why the database did not do what was asked, in three families: transient, bug, unknown.
//!
//! Must hold: what is called transient has changed nothing; what may have happened all the same is called unknown.

use sea_orm::sqlx::Error as Driver;
use sea_orm::{DbErr, RuntimeErr};

use crate::of_driver;

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Busy, unreachable or out of connections, or it lets nobody in until a person mends it: the same call may work
    /// later.
    #[error("{}", waits_for(.0))]
    Transient(#[source] DbErr),
    /// The statement or the data is wrong: the same call will fail again.
    #[error("the database refused a statement")]
    Bug(#[source] DbErr),
    /// The change was sent and no answer came: it may have happened all the same.
    #[error("a commit failed, and its fate is unknown")]
    UnknownCommit(#[source] DbErr),
    /// The task of a transaction ended without an answer: its fate is unknown.
    #[error("a transaction ended without an answer")]
    Unknown,
    /// The name can't be a schema's.
    #[error("{0:?} can't be a schema's name: 1 to 48 lower-case letters, digits and underscores, a letter first")]
    SchemaName(String),
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if is_transient(&error) { Self::Transient(error) } else { Self::Bug(error) }
    }
}

impl Error {
    /// Whether the same call may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transient(_) | Self::UnknownCommit(_) | Self::Unknown => true,
            Self::Bug(_) | Self::SchemaName(_) => false,
        }
    }

    /// Whether what was asked waited too long for others' locks, or took too long by itself. Asking for less at a time holds up
    /// less; asking again at once only waits again.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        match self {
            Self::Transient(error) => match driver(error) {
                Some(Driver::Database(said)) => said.code().is_some_and(|code| is_blocked_code(&code)),
                _ => false,
            },
            Self::Bug(_) | Self::UnknownCommit(_) | Self::Unknown | Self::SchemaName(_) => false,
        }
    }

    /// The error of reading what came back.
    #[must_use]
    pub fn from_driver(error: Driver) -> Self {
        DbErr::Query(of_driver(error)).into()
    }

    /// The name of the unique constraint or index that a statement ran into.
    #[must_use]
    pub fn unique_violation(&self) -> Option<&str> {
        match self {
            Self::Bug(error) => match driver(error)? {
                Driver::Database(said) if said.is_unique_violation() => said.constraint(),
                _ => None,
            },
            Self::Transient(_) | Self::UnknownCommit(_) | Self::Unknown | Self::SchemaName(_) => None,
        }
    }

    /// What came of the driver, or of the wait for it.
    pub(crate) fn cause(&self) -> Option<&DbErr> {
        match self {
            Self::Transient(error) | Self::Bug(error) | Self::UnknownCommit(error) => Some(error),
            Self::Unknown | Self::SchemaName(_) => None,
        }
    }

    /// What the database calls its refusal: an SQLSTATE of PostgreSQL, or a result code of SQLite.
    #[must_use]
    pub fn refusal_code(&self) -> Option<String> {
        match self {
            Self::Bug(error) => match driver(error)? {
                Driver::Database(said) => said.code().map(|code| code.into_owned()),
                _ => None,
            },
            Self::Transient(_) | Self::UnknownCommit(_) | Self::Unknown | Self::SchemaName(_) => None,
        }
    }

    /// The error of a change whose commit was under way.
    pub(crate) fn of_commit(error: DbErr) -> Self {
        if is_definite(&error) { error.into() } else { Self::UnknownCommit(error) }
    }
}

fn driver(error: &DbErr) -> Option<&Driver> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner))
        | DbErr::Conn(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

fn is_transient(error: &DbErr) -> bool {
    match (error, driver(error)) {
        (DbErr::ConnectionAcquire(_) | DbErr::Conn(_), _) => true,
        (_, Some(Driver::Database(said))) => said.code().is_some_and(|code| is_transient_code(&code)),
        (
            _,
            Some(Driver::Io(_) | Driver::Tls(_) | Driver::PoolTimedOut | Driver::PoolClosed | Driver::WorkerCrashed),
        ) => true,
        // What a broken connection leaves half-read.
        (_, Some(Driver::Protocol(_))) => true,
        (_, _) => false,
    }
}

/// What keeps the same call from working. A session that was refused for good waits for a person: still nothing was
/// done, and what is under way must not be given up for it.
fn waits_for(error: &DbErr) -> &'static str {
    match (error, driver(error)) {
        (DbErr::Conn(_), Some(Driver::Database(said))) if said.code().is_some_and(|code| is_lasting_code(&code)) => {
            "the database can't be used as it is set up"
        }
        (_, _) => "the database is busy or out of reach",
    }
}

/// Role or password is wrong, or there is no such database; of SQLite, the file is read-only or no database.
fn is_lasting_code(code: &str) -> bool {
    if code.len() == 5 {
        return code.starts_with("28") || code == "3D000";
    }
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 8 | 26))
}

/// SQLSTATE classes of PostgreSQL (documentation, appendix A), and result codes of SQLite.
fn is_transient_code(code: &str) -> bool {
    // A connection was lost; a transaction must be repeated; resources are short; an operator or a limit stepped in;
    // the system failed.
    let classes = ["08", "40", "53", "57", "58"];
    // A lock was not to be had; the server became a standby; it ended a transaction that was idle, or took too long.
    let codes = ["55P03", "25006", "25P03", "25P04"];
    // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_PROTOCOL, plain and extended: the low byte is the primary
    // code. A read that fails may be about one row for ever.
    let sqlite = code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 13 | 14 | 15));
    let postgres = code.len() == 5 && (classes.iter().any(|class| code.starts_with(class)) || codes.contains(&code));
    if code.len() == 5 { postgres } else { sqlite }
}

/// A lock was not to be had in time; a statement was cancelled, be it by its limit.
fn is_blocked_code(code: &str) -> bool {
    matches!(code, "55P03" | "57014")
}

/// Whether the server itself said that it did not commit, or was never asked to.
fn is_definite(error: &DbErr) -> bool {
    match (error, driver(error)) {
        // There was no session to send anything on.
        (DbErr::ConnectionAcquire(_) | DbErr::Conn(_), _) => true,
        (_, Some(Driver::Database(said))) => said.code().is_some_and(|code| is_definite_code(&code)),
        (_, Some(Driver::PoolTimedOut | Driver::PoolClosed)) => true,
        (_, _) => false,
    }
}

/// Whether a code says that nothing was committed.
fn is_definite_code(code: &str) -> bool {
    if code.len() == 5 {
        // A server that is going down (class 57, but for a cancelled statement) may have committed before.
        return code == "57014" || !["08", "57", "58", "XX"].iter().any(|class| code.starts_with(class));
    }
    // SQLite was busy, locked or full, or met a constraint; of a failed read or write it can't say as much.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 13 | 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_fall_into_families() {
        let sqlite = ["5", "6", "13", "517", "262", "14", "15"];
        let postgres = ["40001", "40P01", "57P01", "57014", "53300", "08006", "55P03", "25P03", "25P04"];
        for transient in sqlite.into_iter().chain(postgres) {
            assert!(is_transient_code(transient), "{transient}");
        }
        for bug in ["1", "10", "266", "19", "2067", "1555", "23505", "42P01", "22P02", "21000"] {
            assert!(!is_transient_code(bug), "{bug}");
        }
    }

    #[test]
    fn what_a_person_must_mend_is_told_from_what_passes() {
        for lasting in ["28000", "28P01", "3D000", "26", "8", "1032"] {
            assert!(is_lasting_code(lasting), "{lasting}");
        }
        for passing in ["57P03", "53300", "08006", "5", "14", "13"] {
            assert!(!is_lasting_code(passing), "{passing}");
        }
    }

    #[test]
    fn a_code_tells_a_refused_commit_from_an_unknown_one() {
        for definite in ["40001", "40P01", "55P03", "57014", "23505", "25006", "53100", "5", "517", "787", "13"] {
            assert!(is_definite_code(definite), "{definite}");
        }
        for unknown in ["57P01", "57P02", "08006", "58030", "XX000", "10", "778"] {
            assert!(!is_definite_code(unknown), "{unknown}");
        }
    }
}
