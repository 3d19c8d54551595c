//! A downsampler as a thread of this process, in its own consumer group like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use genwatch_core::aggregate::downsampler::{Downsampler, Input};
use genwatch_core::aggregate::{Aggregator, Late};
use genwatch_core::alarm::rules::Rules;
use genwatch_kafka::clock::millis;

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
        let group = downsample::group_name(broker.group(), NAMED_WINDOW);
        let member = broker.member(broker.of_aggregates(), &group, NAME);
        let config = WorkerConfig { commit_interval: COMMIT_INTERVAL, ..member };
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
