//! What every service stands on. A service has one shape:
//!
//! ```text
//! fn run(Config, Context) -> Result<Summary, Error>
//! ```
//!
//! It runs on the calling thread until it is told to stop ([`Context::is_stopping`]), is done, or fails with an error that says what to
//! mend. It registers its own conditions for `/readyz` ([`Health::register`]) and its own metrics ([`MetricsRegistry`]), calls
//! [`Health::heartbeat`] in each turn of its loop, and gives a summary that is printed at its end.
//!
//! * [`readiness`]: conditions and heartbeat. [`metrics`]: the registry. [`http`]: `/metrics`, `/livez`, `/readyz`.
//! * [`stderr`]: log lines that can't be written are dropped. [`mod@panic`]: a panic ends the process.
//! * `genwatch_kafka::log_limit`: the same line is logged seldom. `genwatch_kafka::clock`: the clocks.

pub mod http;
pub mod metrics;
pub mod panic;
pub mod readiness;
pub mod stderr;

pub use metrics::{MetricsError, MetricsRegistry};
pub use readiness::{Health, NotReady};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a service shares with its process. Clones share all of it.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Set to stop the service: it drains and returns.
    pub stop: Arc<AtomicBool>,
    /// What probes ask.
    pub health: Arc<Health>,
    /// What Prometheus scrapes.
    pub metrics: MetricsRegistry,
}

impl Context {
    /// A context that is told to stop by this flag.
    #[must_use]
    pub fn stopped_by(stop: Arc<AtomicBool>) -> Context {
        Context { stop, ..Context::default() }
    }

    /// Whether the service is to drain and return.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
