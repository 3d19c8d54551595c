//! A pacer: how many items are due by now at a given rate.

use std::time::{Duration, Instant};

/// The pacer makes up for unused time within this span only: after a pause it doesn't exceed the rate for long.
const BURST: Duration = Duration::from_millis(100);

/// Paces anything to a rate, open-loop: by the clock, not by how long things took.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate: f64,
    begun: Instant,
    /// Items taken since `begun`.
    taken: f64,
}

impl Pacer {
    /// A pacer for `rate` items a second.
    #[must_use]
    pub fn new(rate: f64, now: Instant) -> Pacer {
        Pacer { rate, begun: now, taken: 0.0 }
    }

    /// How many items are due and not taken.
    pub fn due(&mut self, now: Instant) -> usize {
        let burst = self.rate * BURST.as_secs_f64();
        let earned = self.rate * now.saturating_duration_since(self.begun).as_secs_f64();
        self.taken = self.taken.max(earned - burst.max(1.0));
        (earned - self.taken).max(0.0) as usize
    }

    /// Counts `count` items as taken.
    pub fn took(&mut self, count: usize) {
        self.taken += count as f64;
    }

    /// How long until the next item is due.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let at = (self.taken + 1.0) / self.rate;
        let since = now.saturating_duration_since(self.begun).as_secs_f64();
        Duration::try_from_secs_f64((at - since).max(0.0)).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_grows_with_the_clock_and_shrinks_with_what_is_taken() {
        let start = Instant::now();
        let mut pacer = Pacer::new(1000.0, start);
        assert_eq!(pacer.due(start), 0);
        assert_eq!(pacer.due(start + Duration::from_millis(50)), 50);
        pacer.took(50);
        assert_eq!(pacer.due(start + Duration::from_millis(50)), 0);
        assert!(pacer.wait(start + Duration::from_millis(50)) <= Duration::from_millis(1));
    }

    #[test]
    fn a_pause_is_made_up_for_in_part() {
        let start = Instant::now();
        let mut pacer = Pacer::new(1000.0, start);
        assert_eq!(pacer.due(start + Duration::from_secs(60)), 100);
    }
}
