//! Waiting for conditions.

use std::time::{Duration, Instant};

/// How long a step may take that takes a second on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds; fails the test with `what` when it doesn't in time.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// Waits until there is something.
#[track_caller]
pub fn until_some<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain until {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Watches for as long as ten heartbeats take that `condition` holds all the time: for what must not happen.
#[track_caller]
pub fn all_along(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert!(condition(), "not all along: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
