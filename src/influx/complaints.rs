//! Says a thing once, and then not more often than is of use: a topic full of bad records must not fill a disk of logs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// At least this long between two lines about the same.
const EVERY: Duration = Duration::from_secs(30);

/// When each thing was last said, and how often it was passed over since.
#[derive(Debug)]
pub struct Complaints<K>(BTreeMap<K, (Instant, u64)>);

impl<K> Default for Complaints<K> {
    fn default() -> Self {
        Complaints(BTreeMap::new())
    }
}

impl<K: Ord> Complaints<K> {
    /// Whether it may be said now; with how many were passed over since it was last said.
    pub fn may_speak(&mut self, about: K, now: Instant) -> Option<u64> {
        let Some((said, silent)) = self.0.get_mut(&about) else {
            self.0.insert(about, (now, 0));
            return Some(0);
        };
        if now.saturating_duration_since(*said) < EVERY {
            *silent += 1;
            return None;
        }
        *said = now;
        Some(std::mem::take(silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_said_at_once_and_then_seldom() {
        let mut complaints = Complaints::default();
        let begun = Instant::now();
        assert_eq!(complaints.may_speak("a", begun), Some(0));
        assert_eq!(complaints.may_speak("a", begun), None);
        assert_eq!(complaints.may_speak("b", begun), Some(0));
        assert_eq!(complaints.may_speak("a", begun + EVERY / 2), None);
        assert_eq!(complaints.may_speak("a", begun + EVERY), Some(2));
        assert_eq!(complaints.may_speak("a", begun + EVERY), None);
    }
}
