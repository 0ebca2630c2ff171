//! The core's own limits, each with its reason. What a definition may ask for is limited in `saga_defs::check`.

/// Operations remembered on a saga for repeating their answer. An admin's retry loop comes back within minutes, and
/// every remembered operation lengthens the hot row.
pub const OPERATIONS_REMEMBERED: usize = 16;

/// Longest wait that a participant's `retry(after)` can ask for: an hour, so that a wrong value can't park a saga
/// out of sight.
pub const RETRY_AFTER_MS_MAX: u64 = 3_600_000;
