//! Times of rows: nanoseconds since the Unix epoch, as InfluxDB keeps them.

use std::fmt;
use std::time::Duration;

use genwatch_core::types::Millis;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub i64);

impl Nanos {
    /// Parses a time in RFC 3339; one without a zone is UTC, as in InfluxDB 3's answers.
    #[must_use]
    pub fn parse(text: &str) -> Option<Nanos> {
        let with_zone = text.parse::<Timestamp>();
        let at = with_zone.or_else(|_| {
            text.parse::<DateTime>().and_then(|at| at.to_zoned(TimeZone::UTC)).map(|at| at.timestamp())
        });
        i64::try_from(at.ok()?.as_nanosecond()).ok().map(Nanos)
    }

    /// Returns the time in milliseconds, as Kafka keeps it. Kafka has no times before 1970.
    #[must_use]
    pub fn millis(self) -> Millis {
        Millis(self.0.div_euclid(1_000_000).max(0))
    }

    /// Returns the time so much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Nanos {
        Nanos(self.0.saturating_sub(nanos(duration)))
    }

    /// Returns the last multiple of `unit` that isn't later.
    #[must_use]
    pub fn floor(self, unit: i64) -> Nanos {
        Nanos(self.0 - self.0.rem_euclid(unit.max(1)))
    }
}

impl From<Millis> for Nanos {
    fn from(at: Millis) -> Nanos {
        Nanos(at.0.saturating_mul(1_000_000))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every i64 of nanoseconds is a timestamp.
        Timestamp::from_nanosecond(self.0.into()).unwrap_or_default().fmt(f)
    }
}

impl Serialize for Nanos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Nanos, D::Error> {
        let text = String::deserialize(deserializer)?;
        Nanos::parse(&text).ok_or_else(|| D::Error::custom("not a time"))
    }
}

/// Returns a duration in nanoseconds.
#[must_use]
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_parsed() {
        for nanos in [0, 1, -1, 1_766_400_000_123_456_789, i64::MAX, i64::MIN] {
            let shown = Nanos(nanos).to_string();
            assert_eq!(Nanos::parse(&shown), Some(Nanos(nanos)), "{shown}");
        }
        assert_eq!(Nanos::parse("2025-12-22T10:40:00"), Nanos::parse("2025-12-22T10:40:00Z"));
        assert_eq!(Nanos::parse("2025-12-22T10:40:00+02:00"), Nanos::parse("2025-12-22T08:40:00Z"));
        for text in ["", "now", "1766400000", "2025-13-01T00:00:00Z", "9999-01-01T00:00:00Z"] {
            assert_eq!(Nanos::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_before_1970_is_rounded_down_and_is_none_of_kafka_s() {
        assert_eq!(Nanos(-1).floor(60), Nanos(-60));
        assert_eq!(Nanos(119).floor(60), Nanos(60));
        assert_eq!((Nanos(-1).millis(), Nanos(1_999_999).millis()), (Millis(0), Millis(1)));
    }
}
