//! Logs a thing once, and then not more often than is of use: a topic full of bad records, or a lookup that always
//! hangs, must not fill a disk of logs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// At least this long between two lines about the same.
const EVERY: Duration = Duration::from_secs(30);

/// When each thing was last logged, and how often it was passed over since.
#[derive(Debug)]
pub struct LogLimiter<K>(BTreeMap<K, (Instant, u64)>);

impl<K> Default for LogLimiter<K> {
    fn default() -> Self {
        LogLimiter(BTreeMap::new())
    }
}

impl<K: Ord> LogLimiter<K> {
    /// Whether it may be logged now; with how many were passed over since it last was.
    pub fn allow(&mut self, about: K, now: Instant) -> Option<u64> {
        let Some((logged, silent)) = self.0.get_mut(&about) else {
            self.0.insert(about, (now, 0));
            return Some(0);
        };
        if now.saturating_duration_since(*logged) < EVERY {
            *silent += 1;
            return None;
        }
        *logged = now;
        Some(std::mem::take(silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_logged_at_once_and_then_seldom() {
        let mut limiter = LogLimiter::default();
        let begun = Instant::now();
        assert_eq!(limiter.allow("a", begun), Some(0));
        assert_eq!(limiter.allow("a", begun), None);
        assert_eq!(limiter.allow("b", begun), Some(0));
        assert_eq!(limiter.allow("a", begun + EVERY / 2), None);
        assert_eq!(limiter.allow("a", begun + EVERY), Some(2));
        assert_eq!(limiter.allow("a", begun + EVERY), None);
    }
}
