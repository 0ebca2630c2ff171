//! What exit codes mean. Documented in the README; scripts depend on them.

use std::process::ExitCode;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; for waits: the saga is committed.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage.
    Usage,
    /// There is no such thing.
    NotFound,
    /// The token is missing, wrong, or not allowed to.
    Forbidden,
    /// The state or a stale version forbids it.
    Conflict,
    /// The server can't be reached, or failed.
    Unreachable,
    /// A saga was asked for, not waited for, and is still open.
    Open,
    /// Waited: the saga was refused or undone.
    NotCommitted,
    /// Waited: the saga needs a person.
    Stuck,
    /// Waited: time ran out.
    TimedOut,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Forbidden => 4,
            Self::Conflict => 5,
            Self::Unreachable => 6,
            Self::Open => 8,
            Self::NotCommitted => 10,
            Self::Stuck => 11,
            Self::TimedOut => 124,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
