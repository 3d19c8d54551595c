//! Reports what a worker, bridge or sink does to `<group>_workers`, on a thread of its own: once a second while
//! something changes, else every ten seconds, and a tombstone when it leaves.
//!
//! A service tells what it holds and what it counts, and never waits for Kafka here. If its loop hangs it tells
//! nothing, so nothing is reported either: readers see it as overdue.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use genwatch_core::report::load::Load;
use genwatch_core::report::phases::{Holding, PhaseLog};
use genwatch_core::report::{Kind, Report};
use genwatch_core::types::Millis;
use genwatch_kafka::clock;
use genwatch_kafka::config::{Connection, host_name};
use genwatch_kafka::error::Chain;
use genwatch_kafka::reports::{ReportProducer, ensure_topic};
use rustix::time::{ClockId, clock_gettime};

use super::cores::{self, CpuTimes};

/// The shortest time between two reports.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest time between two reports.
const LONGEST: Duration = Duration::from_secs(10);
/// How long the last report may take to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Delay before the topic is looked for again.
const RETRY_TOPIC: Duration = Duration::from_secs(60);

/// Who reports.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name, unique in the group.
    pub worker: String,
    /// What it is.
    pub kind: Kind,
    /// Its consumer group.
    pub group: Option<String>,
    /// Its topics; the first is the main one.
    pub topics: Vec<String>,
    /// The other end of a bridge, sink or source.
    pub peer: Option<String>,
    /// The topic that it writes, if its kind doesn't say so.
    pub to: Option<String>,
}

/// What a service tells once a second.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Why it isn't ready.
    pub not_ready: Option<String>,
    /// Records since it started.
    pub records: u64,
    /// The share of its capacity that it used since the last call, 0 to 1.
    pub busy: f64,
    /// How loaded it was since the last call, if it measures that; the reporter adds the cores.
    pub load: Option<Load>,
    /// Records that it has taken in and not finished.
    pub in_flight: u64,
    /// Generators that it keeps in memory.
    pub generators: u64,
    /// Changes of its assignment since it started.
    pub rebalances: u64,
}

/// Reports for one service, once started. Dropping it writes the tombstone.
#[derive(Debug, Default)]
pub struct Reporter {
    reporting: Reporting,
    thread: Option<JoinHandle<()>>,
}

/// Where a service tells what it does. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Reporting(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    phases: PhaseLog,
    /// What was told last, and not yet looked at.
    told: Option<Activity>,
    leaving: bool,
    /// The thread has ended.
    left: bool,
}

impl Reporter {
    /// Returns where the service tells what it does.
    #[must_use]
    pub fn reporting(&self) -> Reporting {
        self.reporting.clone()
    }

    /// Starts to report. Creates the topic if it is missing.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn start(&mut self, connection: &Connection, topic: &str, identity: Identity) -> std::io::Result<()> {
        let shared = Arc::clone(&self.reporting.0);
        let (connection, topic) = (connection.clone(), topic.to_owned());
        let thread = std::thread::Builder::new().name("reporter".to_owned()).spawn(move || {
            if let Some(producer) = shared.producer(&connection, &topic) {
                shared.report(&producer, identity);
            }
            shared.lock().left = true;
            shared.wake.notify_all();
        })?;
        self.thread = Some(thread);
        Ok(())
    }
}

impl Reporting {
    /// Follows to the partitions that are held now. Cheap: call it whenever one may have changed.
    pub fn follow(&self, holdings: impl IntoIterator<Item = Holding>) {
        self.0.lock().phases.follow(clock::now(), holdings);
    }

    /// Tells what the service does.
    pub fn tell(&self, activity: Activity) {
        self.0.lock().told = Some(activity);
        self.0.wake.notify_all();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let shared = &self.reporting.0;
        let mut state = shared.lock();
        state.leaving = true;
        shared.wake.notify_all();
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        while !state.left {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Kafka doesn't answer. The process ends all the same; readers see the service as overdue.
                return;
            }
            state = shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        // It has nothing left to do; a panic has been reported.
        let _ = thread.join();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the producer once the topic exists; `None` if the service leaves before.
    fn producer(&self, connection: &Connection, topic: &str) -> Option<ReportProducer> {
        let mut logged = false;
        loop {
            let made = ensure_topic(connection, topic).map_err(|error| Chain(&error).to_string());
            let made = made.and_then(|()| {
                ReportProducer::new(connection, topic).map_err(|error| Chain(&error).to_string())
            });
            match made {
                Ok(producer) => return Some(producer),
                Err(reason) if !logged => {
                    logged = true;
                    tracing::warn!(
                        topic,
                        reason,
                        "reports can't be written yet, so dashboard and status don't show this process; \
                         `genwatch topics create` creates the topic"
                    );
                }
                Err(reason) => tracing::debug!(topic, reason, "reports can't be written yet"),
            }
            let deadline = Instant::now() + RETRY_TOPIC;
            let mut state = self.lock();
            while !state.leaving {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.leaving {
                return None;
            }
        }
    }

    fn report(&self, producer: &ReportProducer, identity: Identity) {
        let mut draft = Draft::new(identity, clock::now());
        loop {
            let (leaving, report) = self.next(&mut draft);
            if let Some(report) = report {
                producer.send(&draft.identity.worker, Some(&report.to_json()));
            }
            if leaving {
                producer.send(&draft.identity.worker, None);
                producer.flush(FLUSH_TIMEOUT);
                return;
            }
        }
    }

    /// Waits for the next report that is due; also returns whether the service leaves.
    fn next(&self, draft: &mut Draft) -> (bool, Option<Report>) {
        let mut state = self.lock();
        loop {
            if state.leaving {
                let last = state.told.take().unwrap_or_else(|| draft.activity.clone());
                return (true, draft.due(&state.phases, last, true));
            }
            let wait = draft.wait();
            state = match wait {
                Some(wait) if state.told.is_some() => {
                    self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                _ => match state.told.take().and_then(|told| draft.due(&state.phases, told, false)) {
                    Some(report) => return (false, Some(report)),
                    None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                },
            };
        }
    }
}

/// Makes reports of what is told, and decides when one is due.
struct Draft {
    identity: Identity,
    host: String,
    since: Millis,
    activity: Activity,
    last: Option<Last>,
}

/// The last report.
struct Last {
    report: Report,
    /// When it was made.
    at: Instant,
    /// The CPU seconds that the process had used.
    cpu: f64,
    cpus: CpuTimes,
}

impl Draft {
    fn new(identity: Identity, since: Millis) -> Draft {
        Draft { identity, host: host_name(), since, activity: Activity::default(), last: None }
    }

    /// How long the next report has to wait at least.
    fn wait(&self) -> Option<Duration> {
        let last = self.last.as_ref()?;
        SHORTEST.checked_sub(last.at.elapsed()).filter(|wait| !wait.is_zero())
    }

    /// Returns a report if one is due: something has changed, or the last one said that one would come.
    fn due(&mut self, phases: &PhaseLog, activity: Activity, is_last: bool) -> Option<Report> {
        let (now, cpu) = (Instant::now(), cpu_seconds());
        let mut report = self.report(phases, &activity);
        if let Some(last) = &self.last {
            let seconds = now.duration_since(last.at).as_secs_f64().max(1e-3);
            report.rate = round(activity.records.saturating_sub(last.report.records) as f64 / seconds);
            report.cpu = round((cpu - last.cpu) / seconds);
            let has_changed = differs(&last.report, &report);
            report.every = clock::millis(if has_changed { SHORTEST } else { LONGEST });
            // Half a second early, so that it comes in time.
            let promised =
                Duration::from_millis(last.report.every.unsigned_abs()).saturating_sub(SHORTEST / 2);
            if !has_changed && !is_last && now.duration_since(last.at) < promised {
                return None;
            }
        }
        let mut cpus = CpuTimes::default();
        if let Some(load) = report.load.take() {
            cpus = CpuTimes::read();
            let before = self.last.as_ref().map(|last| last.cpus.clone()).unwrap_or_default();
            let cores = cores::usable(report.cpu, &before, &cpus);
            report.load = Some(Load { cores, machine: cores::machine().to_owned(), ..load }.rounded());
        }
        self.last = Some(Last { report: report.clone(), at: now, cpu, cpus });
        self.activity = activity;
        Some(report)
    }

    fn report(&self, phases: &PhaseLog, activity: &Activity) -> Report {
        let Identity { worker, kind, group, topics, peer, to } = self.identity.clone();
        Report {
            worker,
            kind,
            at: clock::now(),
            since: self.since,
            every: clock::millis(SHORTEST),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.host.clone(),
            group,
            not_ready: activity.not_ready.clone(),
            rate: 0.0,
            busy: round(activity.busy.clamp(0.0, 1.0)),
            cpu: 0.0,
            load: activity.load.clone(),
            records: activity.records,
            in_flight: activity.in_flight,
            generators: activity.generators,
            rebalances: activity.rebalances,
            peer,
            from: topics.first().filter(|_| to.is_some()).cloned(),
            to,
            held: phases.ranges(),
            partitions: phases.held(&topics),
            released: phases.released(&topics),
        }
    }
}

/// Whether something has changed; times and loads always do.
fn differs(last: &Report, next: &Report) -> bool {
    last.records != next.records
        || last.partitions != next.partitions
        || last.held != next.held
        || last.not_ready != next.not_ready
        || last.in_flight != next.in_flight
        || last.rebalances != next.rebalances
}

/// Three digits behind the point are enough for people, and short.
fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// CPU time of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use genwatch_core::report::HeldPhase;
    use genwatch_core::types::{PartitionId, TopicPartition};

    fn draft() -> Draft {
        let identity = Identity {
            worker: "w".to_owned(),
            kind: Kind::Worker,
            group: None,
            topics: vec!["t".to_owned()],
            peer: None,
            to: None,
        };
        Draft::new(identity, Millis(0))
    }

    fn working(records: u64) -> Activity {
        Activity { records, ..Activity::default() }
    }

    /// Makes the last report this much older.
    fn age(draft: &mut Draft, by: Duration) {
        if let Some(last) = &mut draft.last {
            last.at = last.at.checked_sub(by).expect("the machine runs for longer");
        }
    }

    #[test]
    fn what_is_idle_reports_every_ten_seconds_and_keeps_its_promise() {
        let (mut draft, phases) = (draft(), PhaseLog::default());
        assert_eq!(draft.due(&phases, working(0), false).map(|report| report.every), Some(1000), "the first");
        age(&mut draft, Duration::from_secs(1));
        let second = draft.due(&phases, working(0), false).expect("it was promised within a second");
        assert_eq!(second.every, 10_000);
        age(&mut draft, Duration::from_secs(2));
        assert!(draft.due(&phases, working(0), false).is_none());
        assert_eq!(draft.due(&phases, working(1), false).map(|report| report.every), Some(1000), "a change");
        age(&mut draft, Duration::from_secs(1));
        assert_eq!(draft.due(&phases, working(1), false).map(|report| report.every), Some(10_000));
        age(&mut draft, Duration::from_millis(9600));
        assert!(draft.due(&phases, working(1), false).is_some());
    }

    #[test]
    fn the_last_report_is_due_at_once() {
        let (mut draft, mut phases) = (draft(), PhaseLog::default());
        let place = TopicPartition { topic: 0, partition: PartitionId(3) };
        phases.follow(Millis(1), [Holding { place, phase: HeldPhase::Active, position: None }]);
        assert_eq!(draft.due(&phases, working(5), false).map(|report| report.held), Some("3".to_owned()));
        phases.follow(Millis(2), []);
        let last = draft.due(&phases, working(5), true).expect("due");
        assert_eq!((last.held.as_str(), last.released[0].at), ("", Millis(2)));
    }

    #[test]
    fn rates_are_measured_between_reports() {
        let (mut draft, phases) = (draft(), PhaseLog::default());
        draft.due(&phases, working(100), false);
        age(&mut draft, Duration::from_secs(10));
        let rate = draft.due(&phases, working(1100), false).map(|report| report.rate).unwrap_or_default();
        assert!((90.0..=100.0).contains(&rate), "{rate}");
    }

    #[test]
    fn the_cores_are_added_to_a_load_and_everything_is_rounded() {
        let (mut draft, phases) = (draft(), PhaseLog::default());
        let loaded = |records| {
            let load = Load { loop_busy: 0.123_456, ..Load::default() };
            Activity { records, load: Some(load), ..Activity::default() }
        };
        let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let first = draft.due(&phases, loaded(1), false).and_then(|report| report.load).expect("a load");
        assert_eq!((first.loop_busy, first.cores), (0.123, most));
        std::thread::sleep(Duration::from_millis(50));
        let second = draft.due(&phases, loaded(2), false).and_then(|report| report.load).expect("a load");
        assert!((0.0..=most).contains(&second.cores), "{second:?}");
        assert_eq!(draft.due(&phases, working(3), false).and_then(|report| report.load), None);
    }
}
