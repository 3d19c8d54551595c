//! The events of a run, logged as they happen when one seed is replayed.

/// Logs events, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    told: bool,
    step: u64,
    now: i64,
}

impl Trace {
    /// A trace that is logged on stderr, or not at all.
    pub fn new(told: bool) -> Trace {
        Trace { told, step: 0, now: 0 }
    }

    /// Sets the run's step and time.
    pub fn at(&mut self, step: u64, now: i64) {
        (self.step, self.now) = (step, now);
    }

    /// Whether events are logged.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Logs an event.
    pub fn report(&self, event: &str) {
        eprintln!("{:>6} {:>7} ms  {event}", self.step, self.now);
    }
}

/// Logs an event; formats its text only if the trace is logged.
macro_rules! say {
    ($trace:expr, $($event:tt)+) => {
        if $trace.is_told() {
            $trace.report(&format!($($event)+));
        }
    };
}
pub(crate) use say;
