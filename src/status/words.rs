//! Numbers and times as people read them. What is unknown is a dash.

use genwatch_core::lag::{Eta, Trend};
use genwatch_core::types::Millis;

use super::document::Gone;

/// What is unknown.
pub const UNKNOWN: &str = "-";

/// Formats what may be unknown.
pub fn known<T>(value: Option<T>, format: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), format)
}

/// Formats a span of time in at most six characters: `0.4s`, `42s`, `3m10s`, `2h05m`, `3d04h`, `900d`.
#[must_use]
pub fn span(seconds: f64) -> String {
    // A float becomes the nearest integer, and none beyond the bounds.
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..10 => format!("{:.1}s", seconds.max(0.0)),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        86_400..8_640_000 => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3600),
        _ => format!("{}d", whole / 86_400),
    }
}

/// Formats when a lag will be gone.
#[must_use]
pub fn gone(gone: Gone) -> String {
    known(gone.0, |eta| match eta {
        Eta::Now => "now".to_owned(),
        Eta::Seconds(seconds) => span(seconds),
        Eta::Never => "never".to_owned(),
    })
}

/// Formats a rate a second.
#[must_use]
pub fn rate(rate: f64) -> String {
    if rate == 0.0 || rate >= 10.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

/// Formats a share of 1 as a percentage.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// The word for a trend.
#[must_use]
pub fn trend(trend: Trend) -> &'static str {
    match trend {
        Trend::Falling => "falling",
        Trend::Steady => "steady",
        Trend::Growing => "growing",
    }
}

/// Formats a time of day in UTC.
#[must_use]
pub fn clock(at: Millis) -> String {
    let time = jiff::Timestamp::from_millisecond(at.0).ok();
    known(time, |time| time.strftime("%H:%M:%SZ").to_string())
}

/// Formats a time in UTC.
#[must_use]
pub fn time(at: Millis) -> String {
    let time = jiff::Timestamp::from_millisecond(at.0).ok();
    known(time, |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (-1.0, "0.0s"),
            (0.44, "0.4s"),
            (9.7, "10s"),
            (59.9, "1m00s"),
            (190.0, "3m10s"),
            (7500.0, "2h05m"),
            (273_600.0, "3d04h"),
            (77_760_000.0, "900d"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert!(span(f64::INFINITY).ends_with('d') && span(f64::NAN) == "0.0s");
    }

    #[test]
    fn what_is_unknown_is_a_dash() {
        assert_eq!(gone(Gone(None)), "-");
        assert_eq!(gone(Gone(Some(Eta::Never))), "never");
        assert_eq!(gone(Gone(Some(Eta::Seconds(190.0)))), "3m10s");
        assert_eq!((rate(0.0), rate(0.25), rate(1234.6)), ("0".into(), "0.2".into(), "1235".into()));
        assert_eq!(clock(Millis(1_766_400_000_000)), "10:40:00Z");
    }
}
