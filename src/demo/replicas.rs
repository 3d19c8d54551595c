//! Workers as threads of this process, each a member of the group like any other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use genwatch_core::alarm::detector::Detector;
use genwatch_core::alarm::rules::Rules;

use super::broker::EmbeddedBroker;
use crate::fleet::FleetView;
use crate::service::{Context, Health};
use crate::worker::work::{Delays, DelaysConfig};
use crate::worker::{WorkerConfig, WorkerError, WorkerSummary};

/// The embedded broker waits three seconds for members before its first rebalance.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The running workers, oldest first.
pub struct Replicas<'b> {
    broker: &'b EmbeddedBroker,
    rules: Rules,
    fleet: Arc<FleetView>,
    running: Vec<Replica>,
    leaving: Vec<Replica>,
    named: usize,
}

struct Replica {
    name: String,
    stop: Arc<AtomicBool>,
    health: Arc<Health>,
    thread: JoinHandle<Result<WorkerSummary, WorkerError>>,
}

impl<'b> Replicas<'b> {
    /// Starts with no worker.
    #[must_use]
    pub fn new(broker: &'b EmbeddedBroker, rules: &Rules, fleet: Arc<FleetView>) -> Replicas<'b> {
        Replicas { broker, rules: rules.clone(), fleet, running: Vec::new(), leaving: Vec::new(), named: 0 }
    }

    /// Adds a worker; returns its name.
    ///
    /// # Errors
    /// When it can't start a thread.
    pub fn add(&mut self) -> anyhow::Result<String> {
        self.named += 1;
        let name = format!("replica-{}", self.named);
        let member = self.broker.member(self.broker.topics().of_alarms(), self.broker.group(), &name);
        let config = WorkerConfig { fleet: Some(Arc::clone(&self.fleet)), ..member };
        // So that lanes are in use: readings are processed side by side.
        let work = Delays::new(DelaysConfig {
            concurrency: 64,
            work: Duration::from_millis(2),
            work_of: HashMap::new(),
            work_timeout: None,
        });
        let detector = Detector::new(self.rules.clone());
        let context = Context::default();
        let (stop, health) = (Arc::clone(&context.stop), Arc::clone(&context.health));
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || crate::worker::run(config, detector, work, context))
            .context("cannot start a thread for a worker")?;
        self.running.push(Replica { name: name.clone(), stop, health, thread });
        Ok(name)
    }

    /// Makes the oldest worker drain and leave; returns its name.
    pub fn remove_oldest(&mut self) -> Option<String> {
        if self.running.is_empty() {
            return None;
        }
        let replica = self.running.remove(0);
        replica.stop.store(true, Ordering::Relaxed);
        let name = replica.name.clone();
        self.leaving.push(replica);
        Some(name)
    }

    /// Waits until every worker has joined the group.
    ///
    /// # Errors
    /// When a worker fails, or doesn't join in time.
    pub fn wait_until_assigned(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let deadline = Instant::now() + JOIN_TIMEOUT;
        while !self.running.iter().all(|replica| replica.health.ready().is_ok())
            && !stop.load(Ordering::Relaxed)
        {
            self.check()?;
            if Instant::now() >= deadline {
                bail!("the workers did not join their group within {} s", JOIN_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Checks that no worker has ended by itself.
    ///
    /// # Errors
    /// With the reason of one that has.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(ended) = self.running.iter().position(|replica| replica.thread.is_finished()) else {
            return Ok(());
        };
        let replica = self.running.remove(ended);
        let name = replica.name.clone();
        replica.end().map(|_| ()).with_context(|| format!("{name} ended"))?;
        bail!("{name} ended without a stop request")
    }

    /// Stops all; returns the number of their rebalances.
    ///
    /// # Errors
    /// When a worker failed.
    pub fn stop(mut self) -> anyhow::Result<u64> {
        for replica in &self.running {
            replica.stop.store(true, Ordering::Relaxed);
        }
        let mut rebalances = 0;
        for replica in self.leaving.drain(..).chain(self.running.drain(..)) {
            rebalances += replica.end()?.rebalances;
        }
        Ok(rebalances)
    }
}

impl Replica {
    fn end(self) -> anyhow::Result<WorkerSummary> {
        let result = self.thread.join().map_err(|_| anyhow!("{} panicked", self.name))?;
        Ok(result?)
    }
}
