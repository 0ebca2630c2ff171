//! Where time comes from, as a port, and instants for people.
//!
//! Embedded, the database's clock is this machine's. A test gives a clock that follows paused time.

use std::fmt;

use saga_defs::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one home of the wall clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that starts at a given instant and follows tokio's time, paused or not.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    start: Timestamp,
}

impl TokioClock {
    /// Starts at `start`.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { origin: tokio::time::Instant::now(), start }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let micros = i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.start.0.saturating_add(micros))
    }
}

/// The instants that RFC 3339 can write: years 0 to 9999.
const WRITABLE: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_300_799_999_999;

/// An instant for people and for JSON: UTC, with a fraction only if there is one, as in `2026-11-21T09:30:00Z`.
/// Instants before year 0 or after 9999 are written as the nearest that can be.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let micros = at.0.clamp(*WRITABLE.start(), *WRITABLE.end());
    let instant = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    instant.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// Reads an instant in any offset; what is finer than a microsecond is cut off.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let instant = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(Timestamp(instant.timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_with_the_fraction_it_has() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_253_400_000_000, "2026-11-21T09:30:00Z"),
            (1_795_253_400_250_000, "2026-11-21T09:30:00.250Z"),
            (1_795_253_400_000_001, "2026-11-21T09:30:00.000001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ];
        for (micros, text) in cases {
            assert_eq!(rfc3339(Timestamp(micros)), text);
            assert_eq!(parse_rfc3339(text), Some(Timestamp(micros)));
        }
    }

    #[test]
    fn an_instant_that_can_not_be_written_is_the_nearest_that_can() {
        assert_eq!(rfc3339(Timestamp(i64::MAX)), "9999-12-31T23:59:59.999999Z");
        assert_eq!(rfc3339(Timestamp(i64::MIN)), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn offsets_are_understood_and_half_instants_are_not() {
        assert_eq!(parse_rfc3339("2026-11-21T10:30:00+01:00"), parse_rfc3339("2026-11-21T09:30:00Z"));
        for text in ["", "2026-11-21", "2026-11-21T09:30:00", "2026-13-01T00:00:00Z", "tomorrow"] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
