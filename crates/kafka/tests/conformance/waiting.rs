//! Waiting for conditions.

use std::time::{Duration, Instant};

pub use crate::patience::{PATIENCE, until, until_some};

/// Asserts that `condition` holds for the time of ten heartbeats: for what must not happen.
#[track_caller]
pub fn all_along(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert!(condition(), "not all along: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
