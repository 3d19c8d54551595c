//! The clocks, in the milliseconds that the engine counts in.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::log::{Millis, Mono, Now};

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The wall clock.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The clock that never goes back, from the first call on.
#[must_use]
pub fn mono() -> Mono {
    Mono(millis(ORIGIN.elapsed()))
}

/// Both clocks.
#[must_use]
pub fn both() -> Now {
    Now { mono: mono(), wall: now() }
}

/// Whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
