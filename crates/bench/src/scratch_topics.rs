//! Topics and groups of one benchmark: created at its start, deleted at its end, however it ends.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use genwatch_core::pacer::Pacer;
use genwatch_core::plan::seen::Seen;
use genwatch_core::simulator::{Faults, Fleet};
use genwatch_kafka::admin::{Cluster, TopicPlan};
use genwatch_kafka::config::Connection;
use genwatch_kafka::measure::{MeasureError, Subject, measure};
use genwatch_kafka::producer::{Produced, ReadingProducer};
use genwatch_kafka::topics::{Role, Topics};

use super::verify::VerifiedTopics;
use super::{BenchError, go_on};

/// How long to wait for undelivered records.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// A killed program, or a peer that doesn't leave its group, stays a member until its session times out (45 s by
/// default).
const DELETE_TIMEOUT: Duration = Duration::from_secs(60);

/// Topics used by one benchmark only. Dropping it deletes them and all groups.
pub struct ScratchTopics {
    /// How the cluster is reached.
    pub connection: Connection,
    /// The cluster.
    pub cluster: Cluster,
    /// The readings topic; all other names begin with it.
    pub topic: String,
    alerts: String,
    /// Number of groups.
    groups: AtomicU32,
}

impl ScratchTopics {
    /// Creates the topics.
    ///
    /// # Errors
    /// When the cluster doesn't answer or refuses.
    pub fn new(connection: &Connection, partitions: i32) -> Result<ScratchTopics, BenchError> {
        let cluster = Cluster::connect(connection)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let topic = format!("genwatch-bench-{}", &id[..8]);
        let topics = Topics::new(&topic, &topic);
        let (connection, alerts) = (connection.clone(), topics.alerts.clone());
        let arena = ScratchTopics { connection, cluster, topic, alerts, groups: AtomicU32::new(0) };
        for role in [Role::Readings, Role::Alerts, Role::DeadLetters, Role::Aggregates] {
            let (name, partitions) = (topics.name(role), usize::try_from(partitions).unwrap_or(1));
            let plan = TopicPlan::like_its_cluster(&arena.cluster, name, partitions, role.config())?;
            arena.cluster.create(&plan)?;
        }
        Ok(arena)
    }

    /// Returns where its readings and alerts are.
    #[must_use]
    pub fn source(&self) -> VerifiedTopics<'_> {
        let ScratchTopics { connection, cluster, topic, alerts, .. } = self;
        VerifiedTopics { connection, cluster, readings: topic, alerts }
    }

    /// Lets the advisor look at a group for `span`, or until `go_on` says no.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn measure(
        &self,
        group: &str,
        span: Duration,
        go_on: impl FnMut(Duration) -> bool,
    ) -> Result<Seen, MeasureError> {
        let ScratchTopics { connection, cluster, topic, .. } = self;
        let workers = &Topics::new(topic, group).workers;
        measure(Subject { connection, cluster, group, topic, workers }, span, go_on)
    }

    /// Returns an unused consumer group.
    #[must_use]
    pub fn new_group(&self) -> String {
        self.group(self.groups.fetch_add(1, Ordering::Relaxed))
    }

    fn group(&self, number: u32) -> String {
        format!("{}-g{number}", self.topic)
    }

    /// Produces `count` readings at full speed; returns their bytes.
    ///
    /// # Errors
    /// When not all of them are delivered, or when stopped.
    pub fn fill(
        &self,
        seed: u64,
        generators: u32,
        count: u64,
        stop: &AtomicBool,
        mut tell: impl FnMut(u64),
    ) -> Result<u64, BenchError> {
        let producer = ReadingProducer::at_full_speed(&self.connection, &self.topic)?;
        let mut fleet = Fleet::new(seed, generators, Faults::None);
        let mut bytes = 0;
        for sent in 0..count {
            if sent % 10_000 == 0 {
                go_on(stop)?;
                tell(sent);
            }
            let record = fleet.next();
            bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
            producer.send(record.key, record.value)?;
        }
        finish(producer, count).map(|()| bytes)
    }

    /// Produces at `rate` a second, open-loop, while `watch` runs; returns its result.
    ///
    /// # Errors
    /// With the error of `watch`, or when not all readings are delivered.
    pub fn while_producing<T>(
        &self,
        fleet: &mut Fleet,
        rate: f64,
        watch: impl FnOnce() -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let producing = scope.spawn(|| self.produce_at(fleet, rate, &over));
            let watched = watch();
            over.store(true, Ordering::Relaxed);
            match producing.join() {
                Ok(produced) => produced.and(watched),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn produce_at(&self, fleet: &mut Fleet, rate: f64, over: &AtomicBool) -> Result<(), BenchError> {
        let producer = ReadingProducer::new(&self.connection, &self.topic)?;
        let mut pacer = Pacer::new(rate, Instant::now());
        let mut sent = 0;
        while !over.load(Ordering::Relaxed) {
            let due = pacer.due(Instant::now());
            for _ in 0..due {
                let record = fleet.next();
                producer.send(record.key, record.value)?;
            }
            sent += due as u64;
            pacer.took(due);
            std::thread::sleep(
                pacer.wait(Instant::now()).clamp(Duration::from_micros(200), Duration::from_millis(20)),
            );
        }
        finish(producer, sent)
    }
}

fn finish(producer: ReadingProducer, sent: u64) -> Result<(), BenchError> {
    let Produced { delivered, first_error, .. } = producer.finish(FLUSH_TIMEOUT);
    if delivered == sent {
        return Ok(());
    }
    let reason = first_error.unwrap_or_else(|| "no answer in time".to_owned());
    Err(BenchError::NotProduced { failed: sent - delivered, reason })
}

impl Drop for ScratchTopics {
    fn drop(&mut self) {
        let deadline = Instant::now() + DELETE_TIMEOUT;
        let groups: Vec<String> =
            (0..self.groups.load(Ordering::Relaxed)).map(|number| self.group(number)).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        while let Err(error) = self.cluster.delete_groups(&groups) {
            if Instant::now() > deadline {
                tracing::warn!(%error, "groups of the benchmark are left behind");
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        if let Err(error) = self.cluster.delete_topics(&self.topic) {
            tracing::warn!(%error, "topics of the benchmark are left behind");
        }
    }
}
