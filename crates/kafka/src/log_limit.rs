//! Logs each thing at once, and then only now and then: a topic full of bad records, or a lookup that always hangs,
//! must not fill a disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Minimum interval between two lines about the same thing.
const EVERY: Duration = Duration::from_secs(30);

/// When each thing was last logged, and how many lines were skipped since.
#[derive(Debug)]
pub struct LogLimiter<K>(BTreeMap<K, (Instant, u64)>);

impl<K> Default for LogLimiter<K> {
    fn default() -> Self {
        LogLimiter(BTreeMap::new())
    }
}

impl<K: Ord> LogLimiter<K> {
    /// Returns `Some` if it may be logged now, with the number of lines skipped since the last one, if any.
    pub fn allow(&mut self, about: K, now: Instant) -> Option<Option<u64>> {
        let Some((logged, silent)) = self.0.get_mut(&about) else {
            self.0.insert(about, (now, 0));
            return Some(None);
        };
        if now.saturating_duration_since(*logged) < EVERY {
            *silent += 1;
            return None;
        }
        *logged = now;
        let passed_over = std::mem::take(silent);
        Some((passed_over > 0).then_some(passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_logged_at_once_and_then_seldom() {
        let mut limiter = LogLimiter::default();
        let begun = Instant::now();
        assert_eq!(limiter.allow("a", begun), Some(None));
        assert_eq!(limiter.allow("a", begun), None);
        assert_eq!(limiter.allow("b", begun), Some(None));
        assert_eq!(limiter.allow("a", begun + EVERY / 2), None);
        assert_eq!(limiter.allow("a", begun + EVERY), Some(Some(2)));
        assert_eq!(limiter.allow("a", begun + EVERY), None);
    }
}
