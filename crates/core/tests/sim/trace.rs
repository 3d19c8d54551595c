//! The events of a run, told as they happen when one seed is replayed.

/// Tells or is silent.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    told: bool,
    step: u64,
    now: i64,
}

impl Trace {
    /// A trace that is told on stderr, or not at all.
    pub fn new(told: bool) -> Trace {
        Trace { told, step: 0, now: 0 }
    }

    /// Where the run stands.
    pub fn at(&mut self, step: u64, now: i64) {
        (self.step, self.now) = (step, now);
    }

    /// Whether events are told.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Tells an event.
    pub fn report(&self, event: &str) {
        eprintln!("{:>6} {:>7} ms  {event}", self.step, self.now);
    }
}

/// Tells an event; its text is made only if somebody listens.
macro_rules! say {
    ($trace:expr, $($event:tt)+) => {
        if $trace.is_told() {
            $trace.report(&format!($($event)+));
        }
    };
}
pub(crate) use say;
