//! The work of a reading: `--work 2ms` makes each cost that much, an asynchronous wait as for a remote lookup.
//!
//! A heap of deadlines instead of a timer task each: it is exact to the wake-up of one thread, and a thousand readings
//! that wait cost a thousand entries.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use crate::log::GeneratorId;
use crate::pool::Ticket;

/// The readings being worked. Owned by the worker's thread.
#[derive(Debug)]
pub struct WorkQueue {
    cost: Duration,
    /// Generators whose readings cost something else.
    of: HashMap<String, Duration>,
    /// Deadline, ticket, beginning.
    under_way: BinaryHeap<Reverse<(Instant, Ticket, Instant)>>,
}

impl WorkQueue {
    /// Each reading costs `cost`; those of the generators in `of` cost what stands there.
    #[must_use]
    pub fn new(cost: Duration, of: HashMap<String, Duration>) -> WorkQueue {
        WorkQueue { cost, of, under_way: BinaryHeap::new() }
    }

    /// Begins the work of a reading.
    pub fn begin(&mut self, ticket: Ticket, generator: &GeneratorId, now: Instant) {
        let cost = self.of.get(generator.as_str()).copied().unwrap_or(self.cost);
        self.under_way.push(Reverse((now + cost, ticket, now)));
    }

    /// A reading whose work is done by `now`, and how long it took.
    pub fn finished(&mut self, now: Instant) -> Option<(Ticket, Duration)> {
        let Reverse((deadline, ..)) = self.under_way.peek()?;
        if *deadline > now {
            return None;
        }
        let Reverse((_, ticket, begun)) = self.under_way.pop()?;
        Some((ticket, now.duration_since(begun)))
    }

    /// When the next one will be done.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse((deadline, ..))| *deadline)
    }
}
