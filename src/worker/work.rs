//! The work of a reading: `--work 2ms` makes each cost that much, an asynchronous wait as for a remote lookup.
//!
//! A heap of deadlines replaces one timer task per reading: it is as exact as the wake-up of one thread, and a thousand
//! waiting readings cost a thousand entries.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use genwatch_core::pool::Ticket;
use genwatch_core::types::GeneratorId;

/// The readings being processed. Owned by the worker's thread.
#[derive(Debug)]
pub(super) struct WorkQueue {
    cost: Duration,
    /// Generators whose readings have another cost.
    of: HashMap<String, Duration>,
    timeout: Duration,
    under_way: BinaryHeap<Reverse<UnderWay>>,
}

/// Ordered by its deadline.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    deadline: Instant,
    ticket: Ticket,
    begun: Instant,
    /// The generator, if its work won't be finished by then.
    cut_short: Option<GeneratorId>,
}

/// A reading whose work is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Worked {
    /// The reading.
    pub(super) ticket: Ticket,
    /// How long its work took.
    pub(super) took: Duration,
    /// The generator, if its work exceeded the time limit.
    pub(super) cut_short: Option<GeneratorId>,
}

impl WorkQueue {
    /// Creates a queue. Each reading costs `cost`, or what `of` has for its generator. Work longer than `timeout`, if
    /// there is one, is cut short.
    #[must_use]
    pub(super) fn new(cost: Duration, of: HashMap<String, Duration>, timeout: Option<Duration>) -> WorkQueue {
        WorkQueue { cost, of, timeout: timeout.unwrap_or(Duration::MAX), under_way: BinaryHeap::new() }
    }

    /// Begins the work of a reading.
    pub(super) fn begin(&mut self, ticket: Ticket, generator: &GeneratorId, now: Instant) {
        let cost = self.of.get(generator.as_str()).copied().unwrap_or(self.cost);
        let cut_short = (cost > self.timeout).then(|| generator.clone());
        let deadline = now + cost.min(self.timeout);
        self.under_way.push(Reverse(UnderWay { deadline, ticket, begun: now, cut_short }));
    }

    /// Returns a reading whose work is over by `now`.
    pub(super) fn finished(&mut self, now: Instant) -> Option<Worked> {
        if self.next()? > now {
            return None;
        }
        let Reverse(UnderWay { ticket, begun, cut_short, .. }) = self.under_way.pop()?;
        Some(Worked { ticket, took: now.duration_since(begun), cut_short })
    }

    /// Returns when the next work will be over.
    #[must_use]
    pub(super) fn next(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(first)| first.deadline)
    }
}
