//! The clocks, in the engine's milliseconds.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use genwatch_core::types::{Millis, Mono, Now};

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns the wall clock.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Returns the monotonic clock, which starts at the first call.
#[must_use]
pub fn mono() -> Mono {
    Mono(millis(ORIGIN.elapsed()))
}

/// Returns both clocks.
#[must_use]
pub fn both() -> Now {
    Now { mono: mono(), wall: now() }
}

/// Detects that the process stood still: stopped (SIGSTOP), starved, or on a suspended machine, where only the wall
/// clock runs. Ask it far more often than every `enough`.
#[derive(Debug)]
pub struct Standstill {
    enough: i64,
    last: Cell<Now>,
}

impl Standstill {
    /// Ignores pauses up to `enough`.
    #[must_use]
    pub fn new(enough: Duration) -> Standstill {
        Standstill { enough: millis(enough), last: Cell::new(both()) }
    }

    /// Whether the process stood still since the last call.
    pub fn noticed(&self, now: Now) -> bool {
        let last = self.last.replace(now);
        now.mono.since(last.mono).max(now.wall.since(last.wall)) > self.enough
    }
}

/// Converts to whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_noticed_once_and_by_either_clock() {
        let standstill = Standstill::new(Duration::from_secs(5));
        let at = |mono, wall| Now { mono: Mono(mono), wall: Millis(wall) };
        standstill.last.set(at(0, 0));
        assert!(!standstill.noticed(at(5000, 5000)));
        assert!(standstill.noticed(at(10_001, 10_001)), "stopped");
        assert!(!standstill.noticed(at(10_100, 10_100)));
        assert!(standstill.noticed(at(10_200, 99_000)), "suspended");
        assert!(!standstill.noticed(at(10_300, 1000)), "a clock that was set back");
    }
}
