//! The delay before a request is repeated.

use std::time::Duration;

/// The delay before each attempt: at most 0.1 s, then twice the previous bound, up to 10 s. At least half of the
/// bound, the rest random, so that clients that failed together don't retry together.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(10);

    /// Returns the delay before the next attempt; the server's own request wins. `chance` is between 0 and 1.
    #[must_use]
    pub fn wait(&mut self, asked_for: Option<Duration>, chance: f64) -> Duration {
        let ours = self.next;
        self.next = (ours * 2).min(Self::LAST);
        match asked_for {
            // Don't hammer the server on `Retry-After: 0`.
            Some(asked_for) => asked_for.max(Self::FIRST).mul_f64(1.0 + chance / 10.0),
            None => ours.mul_f64(0.5 + chance / 2.0),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: Self::FIRST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_grow_to_ten_seconds_and_are_spread() {
        for (chance, expected) in [
            (0.0, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]),
            (1.0, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]),
        ] {
            let mut backoff = Backoff::default();
            assert_eq!(expected.map(|_| backoff.wait(None, chance).as_millis()), expected);
        }
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait(Some(Duration::from_secs(1)), 0.0), Duration::from_secs(1));
        assert_eq!(backoff.wait(Some(Duration::from_secs(1)), 1.0), Duration::from_millis(1100));
        assert_eq!(backoff.wait(Some(Duration::ZERO), 0.0), Backoff::FIRST);
    }
}
