//! The whole system in one process: an embedded broker, a simulated fleet, workers in one consumer group, a downsampler,
//! and a verifier.
//!
//! * [`broker`]: the embedded broker and its topics.
//! * [`replicas`]: workers as threads, added and removed.
//! * [`downsampler`]: a downsampler as a thread, with short windows.
//! * [`producing`]: the simulated fleet.
//! * [`verify`]: evaluates the log serially and compares. [`windows`]: the counts of aggregates.
//! * [`page`]: the dashboard, from Kafka alone like everywhere.
//! * [`screen`]: alerts as they happen, and a table that refreshes.
//!
//! The embedded broker accepts transactions but doesn't implement them, so all run at-least-once here.

pub mod broker;
pub mod downsampler;
pub mod page;
pub mod producing;
pub mod replicas;
pub mod screen;
pub mod verify;
pub mod windows;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use broker::EmbeddedBroker;
use downsampler::RunningDownsampler;
use genwatch_core::alarm::rules::Rules;
use producing::Producing;
use replicas::Replicas;
use screen::Screen;
use secrecy::SecretString;
use verify::{Comparison, Verifier};
use windows::WindowComparison;

use crate::fleet::FleetView;
use crate::service::http::HttpAddress;

pub use downsampler::{GRACE, WINDOW};

/// Interval of the table and the plain lines.
const REFRESH: Duration = Duration::from_secs(1);
/// How long the workers may take to process the rest.
const CATCH_UP: Duration = Duration::from_secs(30);

/// The demo's configuration.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// Workers at the start.
    pub replicas: usize,
    /// Generators that report.
    pub generators: u32,
    /// Readings a second.
    pub rate: u32,
    /// How long readings are sent; `None`: until stopped.
    pub duration: Option<Duration>,
    /// Seed of the simulated fleet.
    pub seed: u64,
    /// Partitions of each topic.
    pub partitions: i32,
    /// The dashboard's address.
    pub http: HttpAddress,
    /// Whether somebody chose that address: then no other will do.
    pub http_is_chosen: bool,
    /// What the dashboard's clients must know, if anything.
    pub http_token: Option<SecretString>,
}

/// The demo's results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoReport {
    /// Readings that the broker acknowledged.
    pub sent: u64,
    /// Readings that workers committed.
    pub processed: u64,
    /// Changes of the workers' assignments.
    pub rebalances: u64,
    /// Readings processed after a later one of their generator.
    pub out_of_order: u64,
    /// How the alerts compare with a serial evaluation.
    pub alerts: Comparison,
    /// How the aggregates of closed windows compare with the readings.
    pub windows: WindowComparison,
}

impl DemoReport {
    /// Whether all promises hold.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.sent == self.processed
            && self.out_of_order == 0
            && self.alerts.is_right()
            && self.windows.is_right()
    }
}

/// Runs the demo until its duration is over or `stop` is set.
///
/// # Errors
/// When a part of the system fails.
pub fn run(config: &DemoConfig, stop: &Arc<AtomicBool>) -> anyhow::Result<DemoReport> {
    let broker = EmbeddedBroker::start(config.partitions)?;
    let rules = Rules::default();
    let fleet = Arc::new(FleetView::default());
    let mut screen = Screen::new();
    let page = page::start(&broker, config, &rules, stop)?;
    screen.say(&format!("dashboard: {page}"))?;
    screen.say(&format!(
        "an embedded broker listens at {}; {} generators send {} readings a second into {} partitions",
        broker.address(),
        config.generators,
        config.rate,
        config.partitions
    ))?;

    let mut verifier = Verifier::start(&broker, &rules)?;
    let mut replicas = Replicas::new(&broker, &rules, Arc::clone(&fleet));
    for _ in 0..config.replicas {
        replicas.add()?;
    }
    let downsampler = RunningDownsampler::start(&broker, &rules)?;
    replicas.wait_until_assigned(stop)?;
    let producing = Producing::start(&broker, config)?;

    let begun = Instant::now();
    let mut changes = Changes::new(config);
    let mut refreshed = Instant::now();
    while !(stop.load(Ordering::Relaxed)
        || config.duration.is_some_and(|duration| begun.elapsed() >= duration))
    {
        replicas.check()?;
        downsampler.check()?;
        changes.make(begun.elapsed(), &mut replicas, &mut screen)?;
        for alert in verifier.follow()? {
            screen.say(&alert)?;
        }
        if refreshed.elapsed() >= REFRESH {
            refreshed = Instant::now();
            screen.table(&fleet, producing.sent())?;
        }
    }

    let sent = producing.stop()?;
    let deadline = Instant::now() + CATCH_UP;
    while fleet.records() < sent && Instant::now() < deadline {
        replicas.check()?;
        for alert in verifier.follow()? {
            screen.say(&alert)?;
        }
    }
    screen.table(&fleet, sent)?;
    let rebalances = replicas.stop()?;
    for alert in verifier.follow_to_end(sent, Instant::now() + CATCH_UP)? {
        screen.say(&alert)?;
    }
    let alerts = verifier.verdict();
    let windows = verifier.windows(downsampler.stop()?.late_dropped)?;
    Ok(DemoReport {
        sent,
        processed: fleet.records(),
        rebalances,
        out_of_order: fleet.out_of_order(),
        alerts,
        windows,
    })
}

/// Adds one worker and removes one, so that a newcomer sees the hand-over.
struct Changes {
    add_at: Duration,
    remove_at: Duration,
    added: bool,
    removed: bool,
}

impl Changes {
    fn new(config: &DemoConfig) -> Changes {
        let span = config.duration.unwrap_or(Duration::from_secs(45));
        Changes { add_at: span / 4, remove_at: span * 3 / 5, added: false, removed: false }
    }

    fn make(
        &mut self,
        elapsed: Duration,
        replicas: &mut Replicas<'_>,
        screen: &mut Screen,
    ) -> anyhow::Result<()> {
        if !self.added && elapsed >= self.add_at {
            self.added = true;
            let name = replicas.add()?;
            screen.say(&format!("+++ {name} is added: it takes its share of the partitions"))?;
        }
        if !self.removed && elapsed >= self.remove_at {
            self.removed = true;
            if let Some(name) = replicas.remove_oldest() {
                screen.say(&format!("--- {name} is removed: it drains, and the others take over"))?;
            }
        }
        Ok(())
    }
}
