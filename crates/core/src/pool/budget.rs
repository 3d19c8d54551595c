//! How much one commit may hold: what the brokers take within a transaction's time, which only trials show.

/// The broker aborts a transaction that exceeds its timeout, and would abort the same one again: over a slow link a
/// backlog would never leave. So a commit that took too long is halved, and after some that didn't, the next may be
/// twice as large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    most: usize,
    now: usize,
    successes: u32,
}

/// How many commits must succeed before a larger one is tried.
const SUCCESSES: u32 = 3;
/// The smallest budget is this fraction of the largest: an outage must not end in commits of one effect each.
const PARTS: usize = 256;

impl Budget {
    /// A budget of at most `most` bytes of effects.
    pub(super) fn new(most: usize) -> Budget {
        Budget { most, now: most, successes: 0 }
    }

    /// The bytes that the next commit may hold.
    pub(super) fn bytes(self) -> usize {
        self.now
    }

    pub(super) fn succeeded(&mut self) {
        self.successes += 1;
        if self.successes >= SUCCESSES && self.now < self.most {
            (self.now, self.successes) = (self.most.min(self.now.saturating_mul(2)), 0);
        }
    }

    /// A commit of `held` bytes took too long.
    pub(super) fn was_too_long(&mut self, held: usize) {
        self.successes = 0;
        self.now = (self.now.min(held) / 2).clamp(self.most.div_ceil(PARTS).max(1), self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_what_took_too_long_and_grows_again_with_success() {
        let mut budget = Budget::new(16 << 20);
        budget.was_too_long(4 << 20);
        assert_eq!(budget.bytes(), 2 << 20);
        budget.was_too_long(2 << 20);
        assert_eq!(budget.bytes(), 1 << 20);
        for _ in 0..20 {
            budget.was_too_long(600);
        }
        assert_eq!(budget.bytes(), 64 << 10);
        for _ in 0..2 {
            budget.succeeded();
        }
        assert_eq!(budget.bytes(), 64 << 10);
        for _ in 0..100 {
            budget.succeeded();
        }
        assert_eq!(budget.bytes(), 16 << 20);
    }
}
