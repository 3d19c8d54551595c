//! Names: a window's suffix, and the topics and group of its workers.

use std::fmt;
use std::time::Duration;

use genwatch_kafka::topics::HandlerTopics;

/// The units of a window's name, and their milliseconds.
const UNITS: [(&str, u128); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A window's length as part of a name: `1m`, `90s`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowName(pub Duration);

impl fmt::Display for WindowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let unit = UNITS.iter().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
        let (name, unit) = unit.copied().unwrap_or(("ms", 1));
        write!(f, "{}{name}", millis / unit)
    }
}

/// The consumer group that makes windows of this length: a group has one position a partition, and the workers' is
/// taken.
#[must_use]
pub fn group_name(group: &str, window: Duration) -> String {
    format!("{group}_{}", WindowName(window))
}

/// The topics of the workers that make windows of this length: from readings, or `from` smaller windows; to
/// `<topic>_<window>`, or another topic.
#[must_use]
pub fn topics(
    topic: &str,
    group: &str,
    from: Option<Duration>,
    window: Duration,
    to_topic: Option<&str>,
) -> HandlerTopics {
    let of_window = |window: Duration| format!("{topic}_{}", WindowName(window));
    HandlerTopics {
        readings: from.map_or_else(|| topic.to_owned(), of_window),
        output: to_topic.map_or_else(|| of_window(window), str::to_owned),
        state: format!("{}_state", group_name(group, window)),
        // The workers that evaluate alarms keep them.
        dead_letters: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_one_name() {
        let name = |millis: u64| WindowName(Duration::from_millis(millis)).to_string();
        let names = [60_000, 3_600_000, 86_400_000, 90_000, 10_000, 1_500, 7_200_000].map(name);
        assert_eq!(names, ["1m", "1h", "1d", "90s", "10s", "1500ms", "2h"]);
    }

    #[test]
    fn a_cascade_reads_what_another_wrote() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let first = topics("t", "g", None, minute, None);
        let second = topics("t", "g", Some(minute), hour, None);
        assert_eq!((first.readings.as_str(), first.output.as_str()), ("t", "t_1m"));
        assert_eq!((second.readings.as_str(), second.output.as_str()), ("t_1m", "t_1h"));
        assert_eq!((first.state.as_str(), second.state.as_str()), ("g_1m_state", "g_1h_state"));
    }
}
