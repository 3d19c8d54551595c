//! The work that comes before a record is handled: none, a wait, or a lookup of your own ([`super::lookup`]).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use genwatch_core::handler::Handler;
use genwatch_core::pool::Ticket;
use genwatch_core::types::GeneratorId;

/// The work that comes before a record is handled. Owned by the worker's thread.
pub trait Work<H: Handler>: Send + 'static {
    /// How many generators are processed at once; `None`: there is no work, and records are handled as they arrive.
    fn concurrency(&self) -> Option<usize>;

    /// The same, with nothing under way: for a worker that replaces its client.
    #[must_use]
    fn fresh(&self) -> Self;

    /// Begins the work of a record.
    fn begin(&mut self, ticket: Ticket, generator: &GeneratorId, task: H::Task, now: Instant);

    /// Returns a record whose work is over by `now`.
    fn finished(&mut self, now: Instant) -> Option<Worked<H::Answer>>;

    /// Returns when the next work will be over, if that is known. Work that ends at another time unparks the thread
    /// that began it.
    fn next(&self) -> Option<Instant>;
}

/// A record whose work is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Worked<A> {
    /// The record.
    pub ticket: Ticket,
    /// How long its work took.
    pub took: Duration,
    /// What the work found.
    pub answer: A,
    /// The generator, if its work was given up: it exceeded its time limit, or failed too often.
    pub cut_short: Option<GeneratorId>,
}

/// No work.
#[derive(Clone, Copy, Debug)]
pub struct NoWork;

impl<H: Handler> Work<H> for NoWork {
    fn concurrency(&self) -> Option<usize> {
        None
    }

    fn fresh(&self) -> NoWork {
        NoWork
    }

    fn begin(&mut self, _: Ticket, _: &GeneratorId, _: H::Task, _: Instant) {}

    fn finished(&mut self, _: Instant) -> Option<Worked<H::Answer>> {
        None
    }

    fn next(&self) -> Option<Instant> {
        None
    }
}

/// `--work 2ms` makes each reading cost that much, an asynchronous wait as for a remote lookup.
///
/// A heap of deadlines replaces one timer task per reading: it is as exact as the wake-up of one thread, and a thousand
/// waiting readings cost a thousand entries.
#[derive(Debug)]
pub struct Delays {
    config: DelaysConfig,
    under_way: BinaryHeap<Reverse<UnderWay>>,
}

/// How long readings wait.
#[derive(Clone, Debug)]
pub struct DelaysConfig {
    /// How many generators are processed at once.
    pub concurrency: usize,
    /// The cost of each reading.
    pub work: Duration,
    /// The cost of single generators' readings instead.
    pub work_of: HashMap<String, Duration>,
    /// The time limit of a reading's work; longer work is cut short, and the reading evaluated without it.
    pub work_timeout: Option<Duration>,
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

impl Delays {
    /// Readings wait as configured.
    #[must_use]
    pub fn new(config: DelaysConfig) -> Delays {
        Delays { config, under_way: BinaryHeap::new() }
    }
}

impl<H: Handler> Work<H> for Delays {
    fn concurrency(&self) -> Option<usize> {
        let DelaysConfig { concurrency, work, work_of, .. } = &self.config;
        let is_none = work.is_zero() && work_of.is_empty();
        (!is_none).then_some(*concurrency)
    }

    fn fresh(&self) -> Delays {
        Delays::new(self.config.clone())
    }

    fn begin(&mut self, ticket: Ticket, generator: &GeneratorId, _: H::Task, now: Instant) {
        let DelaysConfig { work, work_of, work_timeout, .. } = &self.config;
        let cost = work_of.get(generator.as_str()).copied().unwrap_or(*work);
        let limit = work_timeout.unwrap_or(Duration::MAX);
        let cut_short = (cost > limit).then(|| generator.clone());
        let deadline = now + cost.min(limit);
        self.under_way.push(Reverse(UnderWay { deadline, ticket, begun: now, cut_short }));
    }

    fn finished(&mut self, now: Instant) -> Option<Worked<H::Answer>> {
        if self.under_way.peek()?.0.deadline > now {
            return None;
        }
        let Reverse(UnderWay { ticket, begun, cut_short, .. }) = self.under_way.pop()?;
        Some(Worked { ticket, took: now.duration_since(begun), answer: H::Answer::default(), cut_short })
    }

    fn next(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(first)| first.deadline)
    }
}
