//! The work of a reading: `--work 2ms` makes each cost that much, an asynchronous wait as for a remote lookup.
//!
//! A heap of deadlines instead of a timer task each: it is exact to the wake-up of one thread, and a thousand readings
//! that wait cost a thousand entries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::pool::Ticket;

/// The readings being worked. Owned by the worker's thread.
#[derive(Debug)]
pub struct WorkQueue {
    cost: Duration,
    under_way: BinaryHeap<Reverse<(Instant, Ticket)>>,
}

impl WorkQueue {
    /// Each reading costs `cost`.
    #[must_use]
    pub fn new(cost: Duration) -> WorkQueue {
        WorkQueue { cost, under_way: BinaryHeap::new() }
    }

    /// Begins the work of a reading.
    pub fn begin(&mut self, ticket: Ticket, now: Instant) {
        self.under_way.push(Reverse((now + self.cost, ticket)));
    }

    /// A reading whose work is done by `now`, and how long it took.
    pub fn finished(&mut self, now: Instant) -> Option<(Ticket, Duration)> {
        let Reverse((deadline, _)) = self.under_way.peek()?;
        if *deadline > now {
            return None;
        }
        let Reverse((deadline, ticket)) = self.under_way.pop()?;
        Some((ticket, self.cost + now.duration_since(deadline)))
    }

    /// When the next one will be done.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse((deadline, _))| *deadline)
    }
}
