//! A downsampler as a thread of this process, in its own consumer group like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use genwatch_core::aggregate::downsampler::{Downsampler, Input};
use genwatch_core::aggregate::{Aggregator, Late};
use genwatch_core::alarm::rules::Rules;
use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::start::{OnNewTopic, OnOutOfRange, Policies};
use genwatch_core::pool::Bounds;
use genwatch_kafka::clock::millis;
use genwatch_kafka::config::GroupProtocol;

use super::broker::{EmbeddedBroker, NAMED_WINDOW};
use crate::downsample::{self, DownsampleSummary};
use crate::service::Context;
use crate::worker::{WorkerConfig, WorkerError};

/// The demo's windows: short, so that something is seen.
pub const WINDOW: Duration = Duration::from_secs(5);
/// How long a window waits for readings that are late.
pub const GRACE: Duration = Duration::from_secs(2);
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const NAME: &str = "downsampler-1";

/// The running downsampler.
pub struct RunningDownsampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<DownsampleSummary, WorkerError>>,
}

impl RunningDownsampler {
    /// Starts it; nobody waits for it to join its group, as it reads from the beginning.
    ///
    /// # Errors
    /// When it can't start a thread.
    pub fn start(broker: &EmbeddedBroker, rules: &Rules) -> anyhow::Result<RunningDownsampler> {
        let config = WorkerConfig {
            connection: broker.connection().clone(),
            topics: broker.of_aggregates(),
            group: downsample::group_name(broker.group(), NAMED_WINDOW),
            reports: broker.topics().workers.clone(),
            delivery: Delivery::AtLeastOnce,
            commit_interval: COMMIT_INTERVAL,
            protocol: GroupProtocol::Consumer,
            rate_limit: None,
            exit_at_end: false,
            drain_timeout: Duration::from_secs(10),
            policies: Policies { on_out_of_range: OnOutOfRange::Earliest, on_new_topic: OnNewTopic::Fail },
            max_bad_ratio: None,
            bounds: Bounds { records: 10_000, bytes: 64 << 20 },
            name: NAME.to_owned(),
            fleet: None,
        };
        let aggregator = Aggregator::new(millis(WINDOW), millis(GRACE), Late::Drop, rules)?;
        let handler = Downsampler::new(aggregator, Input::Readings);
        let context = Context::default();
        let stop = Arc::clone(&context.stop);
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || downsample::run(config, handler, context))
            .context("cannot start a thread for the downsampler")?;
        Ok(RunningDownsampler { stop, thread })
    }

    /// Checks that it hasn't ended by itself.
    ///
    /// # Errors
    /// When it has.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.thread.is_finished() {
            bail!("{NAME} ended without a stop request");
        }
        Ok(())
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it failed.
    pub fn stop(self) -> anyhow::Result<DownsampleSummary> {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.join().map_err(|_| anyhow!("{NAME} panicked"))?;
        result.with_context(|| format!("{NAME} ended"))
    }
}
