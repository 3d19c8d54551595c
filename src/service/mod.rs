//! The base of every service. A service has one shape:
//!
//! ```text
//! fn run(Config, Context) -> Result<Summary, Error>
//! ```
//!
//! It runs on the calling thread until a stop request ([`Context::is_stopping`]), until it is done, or until it fails
//! with an error that says what to fix. It registers its own conditions for `/readyz` ([`Health::register`]) and its
//! own metrics ([`MetricsRegistry`]), calls [`Health::heartbeat`] in each turn of its loop, and returns a summary,
//! printed at its end.
//!
//! * [`readiness`]: conditions and heartbeat. [`metrics`]: the registry. [`http`]: `/metrics`, `/livez`, `/readyz`.
//! * [`reporter`]: what a service says of itself in `<group>_workers`. `cores`: those that it could have used.
//! * [`stderr`]: log lines that can't be written are dropped. [`mod@panic`]: a panic ends the process.
//! * [`backoff`]: the delay before a request is repeated.
//! * [`targets`]: topics that a route of `--transform` may lead to.
//! * `genwatch_kafka::log_limit`: limits repeated log lines. `genwatch_kafka::clock`: the clocks.

pub mod backoff;
mod cores;
pub mod http;
pub mod metrics;
pub mod panic;
pub mod readiness;
pub mod reporter;
pub mod stderr;
pub mod targets;

pub use genwatch_kafka::log_limit::LogLimiter;
pub use metrics::{MetricsError, MetricsRegistry};
pub use readiness::{Health, NotReady};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The state that a service shares with its process. Clones share all of it.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Stops the service when set: it drains and returns.
    pub stop: Arc<AtomicBool>,
    /// The state that probes ask for.
    pub health: Arc<Health>,
    /// The metrics that Prometheus scrapes.
    pub metrics: MetricsRegistry,
}

impl Context {
    /// Creates a context that this flag stops.
    #[must_use]
    pub fn stopped_by(stop: Arc<AtomicBool>) -> Context {
        Context { stop, ..Context::default() }
    }

    /// Whether the service must drain and return.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
