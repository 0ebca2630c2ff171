//! What only SQLite does in its own way.

/// The long text whose place a member of `value` tells; such texts lie in the parameter `$4`.
macro_rules! text {
    ($member:literal) => {
        concat!(
            "cast(substr(cast($4 as blob), (value ->> '",
            $member,
            "') >> 32, (value ->> '",
            $member,
            "') & 0xffffffff) as text)"
        )
    };
}

pub(super) mod commit_sql;

mod smooth_sql;

pub(super) mod met_sql;
