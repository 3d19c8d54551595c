//! The simulated fleet, which reports on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use genwatch_core::pacer::Pacer;
use genwatch_core::simulator::{Faults, Fleet};
use genwatch_kafka::producer::{Produced, ReadingProducer};

use super::DemoConfig;
use super::broker::EmbeddedBroker;

/// How long the last readings may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// The thread and the number of readings it has sent.
pub struct Producing {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<Produced>>,
}

impl Producing {
    /// Starts sending.
    ///
    /// # Errors
    /// When it can't create the client or the thread.
    pub fn start(broker: &EmbeddedBroker, config: &DemoConfig) -> anyhow::Result<Producing> {
        let producer = ReadingProducer::new(broker.connection(), &broker.topics().readings)?;
        let mut fleet = Fleet::new(config.seed, config.generators, Faults::None);
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let rate = f64::from(config.rate);
        let thread = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            std::thread::Builder::new().name("simulator".to_owned()).spawn(move || {
                let mut pacer = Pacer::new(rate, Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    let due = pacer.due(Instant::now());
                    for _ in 0..due {
                        let record = fleet.next();
                        producer.send(record.key, record.value)?;
                    }
                    pacer.took(due);
                    sent.fetch_add(due as u64, Ordering::Relaxed);
                    std::thread::sleep(pacer.wait(Instant::now()).min(Duration::from_millis(20)));
                }
                Ok(producer.finish(FLUSH_TIMEOUT))
            })
        };
        Ok(Producing { stop, sent, thread: thread.context("cannot start a thread for the simulator")? })
    }

    /// Returns the readings sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops; returns the number of readings that the broker acknowledged.
    ///
    /// # Errors
    /// When some weren't acknowledged.
    pub fn stop(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let produced = self.thread.join().map_err(|_| anyhow!("the simulator panicked"))??;
        match produced.first_error {
            Some(error) => Err(anyhow!("{} readings were not delivered: {error}", produced.failed)),
            None => Ok(produced.delivered),
        }
    }
}
