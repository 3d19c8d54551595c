//! What became of new rows, until it is committed: how much of it fits into a transaction, and how it counts.

use super::outgoing::{Outgoing, Target};
use super::seen::Observed;

/// The most rows that a transaction deals with.
const TRANSACTION_ROWS: usize = 50_000;
/// The most bytes of a transaction's records. The digests of rows come to less.
const TRANSACTION_BYTES: usize = 8 << 20;

/// What became of new rows since the last commit.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) records: Vec<Outgoing>,
    bytes: usize,
    pub(super) counts: Counts,
}

/// How many rows became what, besides dead letters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Records of topics.
    pub(super) rows: u64,
    /// Of these, older than the cursor.
    pub(super) late: u64,
    /// Of these, new versions of rows.
    pub(super) corrections: u64,
    /// Filtered out.
    pub(super) filtered: u64,
}

impl Taken {
    pub(super) fn add(&mut self, record: Outgoing, observed: Observed, is_late: bool) {
        if !matches!(record.target, Target::DeadLetters { .. }) {
            let counts = &mut self.counts;
            counts.rows += 1;
            match observed {
                Observed::Correction => counts.corrections += 1,
                Observed::New | Observed::Known => counts.late += u64::from(is_late),
            }
        }
        self.bytes += record.bytes();
        self.records.push(record);
    }

    /// How many rows: also those of which nothing is left but their digests.
    pub(super) fn rows(&self) -> usize {
        self.records.len() + self.counts.filtered as usize
    }

    /// Whether more of them don't fit into a transaction.
    pub(super) fn is_full(&self) -> bool {
        self.rows() >= TRANSACTION_ROWS || self.bytes >= TRANSACTION_BYTES
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        (self.bytes, self.counts) = (0, Counts::default());
    }
}

#[cfg(test)]
mod tests {
    use genwatch_core::types::Millis;

    use super::super::time::Nanos;
    use super::*;

    fn record(target: Target, bytes: usize) -> Outgoing {
        let value = Some(vec![b'x'; bytes]);
        Outgoing { time: Nanos(1), target, key: None, value, at: Millis(0), headers: Vec::new() }
    }

    fn dead_letter() -> Target {
        Target::DeadLetters { step: "1-cast".to_owned() }
    }

    #[test]
    fn a_transaction_is_full_by_the_bytes_that_the_steps_left_or_by_rows_even_if_all_are_filtered() {
        let mut taken = Taken::default();
        taken.add(record(Target::Own, TRANSACTION_BYTES - 1), Observed::New, false);
        assert!(!taken.is_full());
        taken.add(record(dead_letter(), 1), Observed::New, false);
        assert!(taken.is_full());
        taken.clear();
        assert!(!taken.is_full() && taken.rows() == 0);
        taken.counts.filtered = TRANSACTION_ROWS as u64 - 1;
        assert!(!taken.is_full());
        taken.add(record(Target::Own, 0), Observed::New, false);
        assert!(taken.is_full());
    }

    #[test]
    fn a_dead_letter_is_no_row_of_a_topic_whether_late_or_corrected() {
        let mut taken = Taken::default();
        for observed in [Observed::New, Observed::Correction] {
            taken.add(record(dead_letter(), 1), observed, true);
            taken.add(record(Target::Routed("north".to_owned()), 1), observed, true);
        }
        let Counts { rows, late, corrections, filtered } = taken.counts;
        assert_eq!([rows, late, corrections, filtered, taken.rows() as u64], [2, 1, 1, 0, 4]);
    }
}
