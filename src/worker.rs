//! The worker: joins the pool and Kafka. This file shows the way of a reading, top-down:
//!
//! ```text
//! take_in ─► parse ─► pool (lanes, reorder buffer) ─► begin_commit ─► committer ─► take_outcome
//! ```
//!
//! One thread runs `Worker::run` and owns everything in `Worker`; librdkafka, the committer and the restorer unpark
//! it when there's something to do. It always polls, also while every partition is paused or being drained, since
//! rebalances come by the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Serialize;

use crate::alarm::detector::Detector;
use crate::alarm::rules::Rules;
use crate::effect::{DeadLetter, Effect};
use crate::fleet::Fleet;
use crate::health::Health;
use crate::kafka::admin::{Cluster, ClusterError, TopicPlan};
use crate::kafka::committer::{CommitError, Committer, Delivery, Outcome};
use crate::kafka::config::{Connection, GroupProtocol, ranges};
use crate::kafka::consumer::{ClientError, Consumer, Event, Rebalance, Record};
use crate::kafka::restore::{OnOutOfRange, RestoreError, Restored, Restorer};
use crate::kafka::topics::{Cleanup, Topics};
use crate::log::{Millis, Offset, PartitionId};
use crate::metrics::Metrics;
use crate::pool::{Action, Bounds, CommitPolicy, Committed, Handling, Pool};
use crate::rate::Pacer;
use crate::reading;
use crate::work::WorkQueue;

/// The longest sleep of the loop: how late a stop request or a tick of the watchdogs may be seen.
const TURN: Duration = Duration::from_millis(100);
/// Effects are committed this long after the last commit, if the interval isn't shorter.
const COMMIT_LINGER: Duration = Duration::from_millis(5);
/// After a refused commit the next one waits this long.
const COMMIT_BACKOFF: Duration = Duration::from_millis(100);
/// How often gauges are written and silence is looked for.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// A commit that takes this long waits for the cluster.
const BLOCKED_AFTER: Duration = Duration::from_secs(2);
/// Lag without progress for this long is a stall.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// With `--exit-at-end`, how long a replica without partitions waits for some.
const EMPTY_HANDED: Duration = Duration::from_secs(10);
/// A client-wide error is logged at most this often.
const ERROR_LOG_EVERY: Duration = Duration::from_secs(10);

/// What a worker is told to do.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The cluster.
    pub connection: Connection,
    /// The readings topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// The rules.
    pub rules: Rules,
    /// How many generators are worked at once.
    pub concurrency: usize,
    /// What each reading costs.
    pub work: Duration,
    /// The promise about effects.
    pub delivery: Delivery,
    /// Between commits while only offsets move.
    pub commit_interval: Duration,
    /// How the group agrees.
    pub protocol: GroupProtocol,
    /// Records a second that this replica takes in at most.
    pub rate_limit: Option<u32>,
    /// End when every assigned partition has reached the end it had at the start.
    pub exit_at_end: bool,
    /// How long a partition that is given up may drain.
    pub drain_timeout: Duration,
    /// What to do when the committed offset isn't in the log.
    pub on_out_of_range: OnOutOfRange,
    /// What the buffers may hold.
    pub bounds: Bounds,
    /// A name for logs and the fleet view.
    pub name: String,
}

/// What observers of a worker share with it.
#[derive(Clone, Debug)]
pub struct Observers {
    /// Stop, drained, as soon as it's set.
    pub stop: Arc<AtomicBool>,
    /// Written each tick.
    pub metrics: Arc<Metrics>,
    /// Written each turn.
    pub health: Arc<Health>,
    /// The live view of all replicas in this process, if somebody watches.
    pub fleet: Option<Arc<Fleet>>,
}

/// What a worker has done, printed at its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Records whose effects and offsets are committed.
    pub records: u64,
    /// Alert events committed.
    pub alerts: u64,
    /// Dead letters committed.
    pub dlq: u64,
    /// From the first record received to the last commit.
    pub seconds: f64,
    /// `records / seconds`.
    pub records_per_second: f64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Changes of the assignment.
    pub rebalances: u64,
}

/// Why a worker ended that should have gone on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The cluster or a topic isn't as it must be.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A client couldn't be made.
    #[error("the Kafka client could not be made: {0}")]
    Client(#[from] KafkaError),
    /// librdkafka refused a call.
    #[error("{what}: {error}")]
    Consumer {
        /// What was tried.
        what: &'static str,
        /// What was said.
        error: ClientError,
    },
    /// The group refuses us.
    #[error("not authorized for group {group}: ask for its ACL (read)")]
    GroupUnauthorized {
        /// The group.
        group: String,
    },
    /// State couldn't be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Effects can't be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Runs a worker on this thread until it's told to stop, or reaches the end it was to reach, or fails.
///
/// # Errors
/// With what a user must mend: the cluster, a topic, the state, the permissions.
pub fn run(config: WorkerConfig, observers: Observers) -> Result<Summary, WorkerError> {
    Worker::start(config, observers)?.run()
}

struct Worker {
    config: WorkerConfig,
    observers: Observers,
    topics: Topics,
    consumer: Consumer,
    restorer: Restorer,
    committer: Committer,
    pool: Pool,
    work: WorkQueue,
    intake: Option<Pacer>,
    /// The partitions that the group says are ours.
    held: BTreeMap<PartitionId, Held>,
    /// The revocations that librdkafka waits for, oldest first.
    revocations: Vec<Revocation>,
    requests: u64,
    draining: Option<Instant>,
    commit_not_before: Option<Instant>,
    ending: Ending,
    summary: Summary,
    first_record: Option<Instant>,
    last_commit: Option<Instant>,
    /// When the commit under way began.
    committing: Option<Instant>,
    observed: Instant,
    positions_followed: Instant,
    error_logged: Option<Instant>,
}

/// A partition that is ours.
#[derive(Debug)]
enum Held {
    /// Its state is on its way, by this request.
    Restoring(u64),
    /// It's being worked.
    Working {
        /// The end it had when it was assigned.
        end: Offset,
        /// The committed offset when the watchdog last saw it move, and when.
        progress: (Offset, Instant),
    },
}

/// A revocation under way.
#[derive(Debug)]
struct Revocation {
    /// Partitions that have not drained yet.
    waiting: BTreeSet<PartitionId>,
    /// The partitions to remove when all have.
    added: Vec<PartitionId>,
    /// When the rest is abandoned.
    deadline: Instant,
}

/// For `--exit-at-end`.
#[derive(Debug, Default)]
struct Ending {
    /// When the group last said what is ours, after the first time.
    assigned: Option<Instant>,
}

impl Worker {
    fn start(config: WorkerConfig, observers: Observers) -> Result<Worker, WorkerError> {
        let topics = Topics::new(&config.topic, &config.group);
        check_topics(&config, &topics)?;

        let me = std::thread::current();
        let consumer_config = config.connection.group_consumer(&config.group, config.protocol);
        let consumer = Consumer::new(&consumer_config, &topics.readings, me.clone())?;
        let restorer = Restorer::start(
            &config.connection,
            &config.group,
            &topics,
            consumer.handle(),
            config.on_out_of_range,
            me.clone(),
        )?;
        let committer = Committer::start(
            &config.connection,
            &config.group,
            &topics,
            config.delivery,
            consumer.handle(),
            me,
        )?;

        let handling = if config.work.is_zero() {
            Handling::Inline
        } else {
            Handling::Lanes {
                concurrency: config.concurrency,
            }
        };
        let interval = i64::try_from(config.commit_interval.as_millis()).unwrap_or(i64::MAX);
        let linger = i64::try_from(COMMIT_LINGER.as_millis())
            .unwrap_or(0)
            .min(interval);
        let pool = Pool::new(
            Detector::new(config.rules.clone()),
            handling,
            config.bounds,
            CommitPolicy { interval, linger },
        );
        Ok(Worker {
            topics,
            consumer,
            restorer,
            committer,
            pool,
            work: WorkQueue::new(config.work),
            intake: config
                .rate_limit
                .map(|rate| Pacer::new(f64::from(rate), Instant::now())),
            held: BTreeMap::new(),
            revocations: Vec::new(),
            requests: 0,
            draining: None,
            commit_not_before: None,
            ending: Ending::default(),
            summary: Summary::default(),
            first_record: None,
            last_commit: None,
            committing: None,
            observed: Instant::now(),
            positions_followed: Instant::now(),
            error_logged: None,
            config,
            observers,
        })
    }

    fn run(mut self) -> Result<Summary, WorkerError> {
        self.consumer.subscribe().map_err(|error| WorkerError::Consumer {
            what: "subscribing failed",
            error,
        })?;
        tracing::info!(
            worker = self.config.name,
            topic = self.topics.readings,
            group = self.config.group,
            "the worker joins its group"
        );
        while !self.is_done() {
            self.pool.set_time(now());
            let taken = self.take_in()?;
            self.serve_rebalances()?;
            self.start_restored()?;
            self.finish_work();
            self.take_outcome()?;
            self.begin_commit();
            self.perform()?;
            self.begin_drain_if_told();
            self.give_up_overdue();
            self.observe();
            if taken == 0 {
                self.follow_positions();
                self.sleep();
            }
        }
        self.leave();
        Ok(self.summarize())
    }

    /// Takes a batch off librdkafka and hands each record to the pool.
    fn take_in(&mut self) -> Result<usize, WorkerError> {
        let limit = match &mut self.intake {
            None => usize::MAX,
            Some(pacer) => match pacer.due(Instant::now()) {
                0 => return Ok(0),
                due => due,
            },
        };
        let batch = self.consumer.poll(limit);
        let mut records = 0;
        let mut errors = Vec::new();
        for event in batch.events() {
            match event {
                Event::Record(record) => {
                    records += 1;
                    take_in_record(&mut self.pool, &record);
                }
                // Not asked for here: see `Connection::group_consumer`.
                Event::End(..) => {}
                Event::Error(partition, error) => errors.push((partition, error)),
            }
        }
        let taken = batch.len();
        drop(batch);
        if let Some(pacer) = &mut self.intake {
            pacer.took(records);
        }
        if records > 0 {
            self.first_record.get_or_insert_with(Instant::now);
        }
        for (partition, error) in errors {
            self.judge(partition, error)?;
        }
        self.log_client_errors();
        Ok(taken)
    }

    /// Decides about an error of the consumer: most mend themselves.
    fn judge(&mut self, partition: Option<PartitionId>, error: ClientError) -> Result<(), WorkerError> {
        match error.code {
            RDKafkaErrorCode::GroupAuthorizationFailed => Err(WorkerError::GroupUnauthorized {
                group: self.config.group.clone(),
            }),
            RDKafkaErrorCode::TopicAuthorizationFailed => Err(ClusterError::Unauthorized {
                topic: self.topics.readings.clone(),
            }
            .into()),
            RDKafkaErrorCode::Fatal => {
                let error = self.consumer.fatal_error().unwrap_or(error);
                Err(WorkerError::Consumer {
                    what: "the consumer cannot go on",
                    error,
                })
            }
            RDKafkaErrorCode::AutoOffsetReset => Err(WorkerError::Consumer {
                what: "the log was truncated below our position: restart with --on-out-of-range to choose where to go on",
                error,
            }),
            _ => {
                tracing::warn!(partition = partition.map(|p| p.0), %error, "the consumer reports");
                Ok(())
            }
        }
    }

    fn log_client_errors(&mut self) {
        for error in self.consumer.take_errors() {
            if error.code == RDKafkaErrorCode::Fatal
                || self.error_logged.is_none_or(|at| at.elapsed() > ERROR_LOG_EVERY)
            {
                self.error_logged = Some(Instant::now());
                tracing::warn!(%error, "the connection to the cluster is disturbed; the client goes on trying");
            }
        }
    }

    /// Answers what librdkafka wants about the assignment.
    fn serve_rebalances(&mut self) -> Result<(), WorkerError> {
        for rebalance in self.consumer.take_rebalances() {
            let (Rebalance::Assigned(partitions)
            | Rebalance::Revoked(partitions)
            | Rebalance::Lost(partitions)) = &rebalance;
            if !partitions.is_empty() {
                self.summary.rebalances += 1;
                self.observers.metrics.rebalances.inc();
            }
            match rebalance {
                Rebalance::Assigned(partitions) => self.assigned(partitions)?,
                Rebalance::Revoked(partitions) => {
                    let deadline = Instant::now() + self.config.drain_timeout;
                    self.give_back(&partitions, deadline, Pool::revoke);
                    tracing::info!(
                        worker = self.config.name,
                        revoked = ranges(&partitions),
                        "rebalance"
                    );
                }
                Rebalance::Lost(partitions) => {
                    self.observers.health.set_joined(false);
                    self.give_back(&partitions, Instant::now(), Pool::lose);
                    tracing::warn!(
                        worker = self.config.name,
                        lost = ranges(&partitions),
                        "rebalance: the group went on without us; what was not committed is dropped"
                    );
                }
            }
        }
        Ok(())
    }

    fn assigned(&mut self, partitions: Vec<PartitionId>) -> Result<(), WorkerError> {
        self.ending.assigned = Some(Instant::now());
        self.observers.health.set_joined(true);
        let answer = if partitions.is_empty() {
            self.consumer.add(&[])
        } else {
            self.consumer.acknowledge_assigned()
        };
        answer.map_err(|error| WorkerError::Consumer {
            what: "the assignment was not taken",
            error,
        })?;
        // An answer to a revocation, or nothing for us yet: not worth a line.
        if partitions.is_empty() || self.draining.is_some() {
            return Ok(());
        }
        tracing::info!(
            worker = self.config.name,
            assigned = ranges(&partitions),
            "rebalance"
        );
        self.requests += 1;
        for partition in &partitions {
            self.held.insert(*partition, Held::Restoring(self.requests));
        }
        self.observers.health.set_restoring(true);
        self.restorer.request(self.requests, partitions);
        Ok(())
    }

    /// Starts to give partitions back; they are removed from the assignment when the pool has released them.
    fn give_back(
        &mut self,
        partitions: &[PartitionId],
        deadline: Instant,
        how: impl Fn(&mut Pool, PartitionId),
    ) {
        let mut waiting = BTreeSet::new();
        for partition in partitions {
            match self.held.get(partition) {
                Some(Held::Working { .. }) => {
                    waiting.insert(*partition);
                }
                Some(Held::Restoring(_)) => {
                    self.held.remove(partition);
                }
                None => {}
            }
        }
        let added: Vec<PartitionId> = waiting.iter().copied().collect();
        self.revocations.push(Revocation {
            waiting,
            added: added.clone(),
            deadline,
        });
        for partition in added {
            how(&mut self.pool, partition);
        }
    }

    /// Starts the partitions whose state has arrived.
    fn start_restored(&mut self) -> Result<(), WorkerError> {
        while let Some(Restored {
            request,
            outcome,
            took,
        }) = self.restorer.answer()
        {
            let wanted =
                |held: Option<&Held>| matches!(held, Some(Held::Restoring(number)) if *number == request);
            if !self.held.values().any(|held| wanted(Some(held))) {
                continue;
            }
            let mut starts = Vec::new();
            let mut generators = 0;
            for restored in outcome? {
                let id = restored.partition;
                if !wanted(self.held.get(&id)) {
                    continue;
                }
                starts.push((id, restored.start));
                generators += restored.states.len();
                let working = Held::Working {
                    end: restored.end,
                    progress: (restored.start, Instant::now()),
                };
                self.held.insert(id, working);
                self.pool.assign(id, restored.start, restored.states);
            }
            self.observers.metrics.restore_seconds.set(took.as_secs_f64());
            tracing::debug!(worker = self.config.name, ?starts, generators, ?took, "restored");
            if self.consumer.assignment_lost() {
                // The revocation is on its way to us; adding would hide that it's a loss.
                continue;
            }
            self.consumer
                .add(&starts)
                .map_err(|error| WorkerError::Consumer {
                    what: "partitions could not be started",
                    error,
                })?;
        }
        let restoring = self.held.values().any(|held| matches!(held, Held::Restoring(_)));
        self.observers.health.set_restoring(restoring);
        Ok(())
    }

    /// Evaluates the readings whose work is done.
    fn finish_work(&mut self) {
        let now = Instant::now();
        while let Some((ticket, took)) = self.work.finished(now) {
            self.observers.metrics.handler_seconds.observe(took.as_secs_f64());
            self.pool.finished(ticket);
        }
        self.pool.schedule();
    }

    /// Learns how the commit under way ended.
    fn take_outcome(&mut self) -> Result<(), WorkerError> {
        let Some(outcome) = self.committer.outcome() else {
            return Ok(());
        };
        self.committing = None;
        match outcome {
            Outcome::Done(id, took) => {
                let committed = self.pool.committed(id);
                self.observers.health.set_blocked(false);
                self.observers.metrics.committed(&committed, took, now());
                self.count(&committed);
                Ok(())
            }
            Outcome::Refused(id, reason) => {
                tracing::warn!(
                    worker = self.config.name,
                    reason,
                    "a commit was refused; its effects go into the next one"
                );
                self.observers.health.set_blocked(true);
                self.commit_not_before = Some(Instant::now() + COMMIT_BACKOFF);
                self.pool.commit_failed(id);
                Ok(())
            }
            Outcome::Fatal(error) => Err(error.into()),
        }
    }

    fn count(&mut self, committed: &Committed) {
        self.last_commit = Some(Instant::now());
        self.summary.commits += 1;
        for part in &committed.parts {
            self.summary.records += part.records;
            for effect in part.effects.iter().flat_map(|chunk| chunk.iter()) {
                match effect {
                    Effect::Alert(_) => self.summary.alerts += 1,
                    Effect::DeadLetter(_) => self.summary.dlq += 1,
                    Effect::State(_) => {}
                }
            }
            if let Some(fleet) = &self.observers.fleet {
                fleet.committed(&self.config.name, part.partition, part.offset, part.records);
            }
        }
    }

    /// Hands what has retired to the committer, when it's time.
    fn begin_commit(&mut self) {
        if self.commit_not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.commit_not_before = None;
        if let Some(commit) = self.pool.take_commit() {
            self.committing = Some(Instant::now());
            self.committer.begin(commit);
        }
    }

    /// Does what the pool asks for.
    fn perform(&mut self) -> Result<(), WorkerError> {
        let now = Instant::now();
        let mut released = Vec::new();
        for action in self.pool.actions() {
            let done = match action {
                Action::Run {
                    ticket,
                    generator,
                    offset,
                } => {
                    if let Some(fleet) = &self.observers.fleet {
                        fleet.worked(generator.as_str(), ticket.partition, offset);
                    }
                    self.work.begin(ticket, now);
                    Ok(())
                }
                Action::Pause(partition) => self.consumer.pause(&[partition]),
                Action::Resume(partition) => self.consumer.resume(&[partition]),
                Action::Release(partition) => {
                    released.push(partition);
                    Ok(())
                }
            };
            done.map_err(|error| WorkerError::Consumer {
                what: "pausing or resuming failed",
                error,
            })?;
        }
        for partition in released {
            self.held.remove(&partition);
            self.observers.metrics.forget(partition);
            if let Some(fleet) = &self.observers.fleet {
                fleet.released(&self.config.name, partition);
            }
            for revocation in &mut self.revocations {
                revocation.waiting.remove(&partition);
            }
        }
        self.remove_drained()
    }

    /// Gives back the partitions of the oldest revocation, once all of them have drained.
    fn remove_drained(&mut self) -> Result<(), WorkerError> {
        while self
            .revocations
            .first()
            .is_some_and(|revocation| revocation.waiting.is_empty())
        {
            let revocation = self.revocations.remove(0);
            self.consumer
                .remove(&revocation.added)
                .map_err(|error| WorkerError::Consumer {
                    what: "partitions could not be given back",
                    error,
                })?;
        }
        Ok(())
    }

    /// Starts the drain of everything when told to stop, or when the end has been reached.
    fn begin_drain_if_told(&mut self) {
        let told = self.observers.stop.load(Ordering::Relaxed);
        if self.draining.is_some() || !(told || self.has_reached_end()) {
            return;
        }
        tracing::info!(
            worker = self.config.name,
            in_flight = self.pool.in_flight(),
            "draining"
        );
        self.observers.health.set_draining();
        self.draining = Some(Instant::now() + self.config.drain_timeout);
        for partition in self.pool.partitions().collect::<Vec<_>>() {
            self.pool.revoke(partition);
        }
    }

    fn has_reached_end(&self) -> bool {
        let Some(assigned) = self.ending.assigned.filter(|_| self.config.exit_at_end) else {
            return false;
        };
        let reached = |(partition, held): (&PartitionId, &Held)| match held {
            Held::Restoring(_) => false,
            Held::Working { end, .. } => self.pool.committed_offset(*partition) >= Some(*end),
        };
        if self.held.is_empty() {
            assigned.elapsed() > EMPTY_HANDED
        } else {
            self.held.iter().all(reached)
        }
    }

    /// Abandons what hasn't drained in time: it will be worked again by the next owner.
    fn give_up_overdue(&mut self) {
        let now = Instant::now();
        let stopping = self.draining.is_some_and(|deadline| now >= deadline);
        let mut overdue: Vec<PartitionId> = Vec::new();
        for revocation in self
            .revocations
            .iter_mut()
            .filter(|revocation| now >= revocation.deadline)
        {
            overdue.extend(&revocation.waiting);
            revocation.deadline = now + self.config.drain_timeout;
        }
        if stopping {
            overdue.extend(self.pool.partitions());
            self.committer.give_up();
        }
        for partition in overdue {
            self.pool.abandon(partition);
        }
    }

    fn is_done(&self) -> bool {
        let Some(deadline) = self.draining else {
            return false;
        };
        let drained = self.pool.partitions().next().is_none();
        // A commit that the cluster doesn't take can't hold us for ever.
        drained || Instant::now() > deadline + 3 * Duration::from_secs(1)
    }

    /// Moves on over what is no record, now that none waits; a partition's end can be behind such a marker.
    fn follow_positions(&mut self) {
        if self.positions_followed.elapsed() < TURN {
            return;
        }
        self.positions_followed = Instant::now();
        let working = |(id, held): (&PartitionId, &Held)| matches!(held, Held::Working { .. }).then_some(*id);
        let ids: Vec<PartitionId> = self.held.iter().filter_map(working).collect();
        let handle = self.consumer.handle();
        for (id, position) in self.consumer.positions(&ids) {
            let at_end = handle.cached_end(id).is_some_and(|end| position >= end);
            self.pool.reached(id, position, at_end);
        }
    }

    /// Writes gauges and runs the watchdogs, once a second.
    fn observe(&mut self) {
        self.observers.health.turned();
        if self.observed.elapsed() < OBSERVE_EVERY {
            return;
        }
        self.observed = Instant::now();
        if self
            .committing
            .is_some_and(|begun| begun.elapsed() > BLOCKED_AFTER)
        {
            self.observers.health.set_blocked(true);
        }
        self.pool.watch_silence();
        let metrics = &self.observers.metrics;
        metrics
            .in_flight
            .set(i64::try_from(self.pool.in_flight()).unwrap_or(i64::MAX));
        for (partition, records) in self.pool.take_record_counts() {
            metrics
                .records
                .with_label_values(&[&partition.to_string()])
                .inc_by(records);
        }
        let late = self.pool.take_late();
        for (rule, late) in self.pool.rules().as_slice().iter().zip(late) {
            metrics.late.with_label_values(&[&rule.name]).inc_by(late);
        }
        let handle = self.consumer.handle();
        for (partition, held) in &mut self.held {
            let Held::Working { progress, end } = held else {
                continue;
            };
            let committed = self.pool.committed_offset(*partition).unwrap_or(progress.0);
            if committed > progress.0 {
                *progress = (committed, Instant::now());
            }
            let log_end = handle.cached_end(*partition).unwrap_or(*end).max(*end);
            let lag = (log_end.0 - committed.0).max(0);
            let stalled = lag > 0 && progress.1.elapsed() >= STALLED_AFTER;
            if lag == 0 {
                progress.1 = Instant::now();
            }
            let label = partition.to_string();
            metrics.lag.with_label_values(&[&label]).set(lag);
            metrics
                .stalled
                .with_label_values(&[&label])
                .set(if stalled { 1.0 } else { 0.0 });
            if let Some(fleet) = &self.observers.fleet {
                fleet.holds(&self.config.name, *partition, committed, log_end);
            }
        }
    }

    /// Sleeps until something is to be done; librdkafka, committer and restorer wake us.
    fn sleep(&self) {
        let mut wait = TURN;
        if let Some(next) = self.work.next() {
            wait = wait.min(next.saturating_duration_since(Instant::now()));
        }
        if let Some(due) = self.pool.next_commit() {
            wait = wait.min(Duration::from_millis(
                u64::try_from(due.since(now())).unwrap_or(0),
            ));
            if let Some(at) = self.commit_not_before {
                wait = wait.max(at.saturating_duration_since(Instant::now())).min(TURN);
            }
        }
        if let Some(pacer) = &self.intake {
            wait = wait.min(pacer.wait(Instant::now()));
        }
        if !wait.is_zero() {
            std::thread::park_timeout(wait);
        }
    }

    fn leave(&mut self) {
        if let Err(error) = self.consumer.close() {
            tracing::warn!(%error, "leaving the group failed; its session timeout will tell it");
        }
        for partition in self.held.keys() {
            self.observers.metrics.forget(*partition);
        }
        if let Some(fleet) = &self.observers.fleet {
            fleet.left(&self.config.name);
        }
        tracing::info!(
            worker = self.config.name,
            records = self.summary.records,
            "the worker has left its group"
        );
    }

    fn summarize(mut self) -> Summary {
        if let (Some(first), Some(last)) = (self.first_record, self.last_commit) {
            self.summary.seconds = last.saturating_duration_since(first).as_secs_f64();
            if self.summary.seconds > 0.0 {
                self.summary.records_per_second = self.summary.records as f64 / self.summary.seconds;
            }
        }
        self.summary
    }
}

/// Parses a record and gives it to the pool: to its generator's lane, or, if it's bad, as a dead letter.
fn take_in_record(pool: &mut Pool, record: &Record<'_>) {
    match reading::parse(record.key, record.value) {
        Ok(parsed) => pool.take_in(
            record.partition,
            record.offset,
            record.timestamp,
            &parsed,
            record.bytes(),
        ),
        Err(error) => pool.take_in_bad(DeadLetter {
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers(),
            error,
        }),
    }
}

/// Checks the topics before anything is joined; makes the state topic where it's missing.
fn check_topics(config: &WorkerConfig, topics: &Topics) -> Result<(), WorkerError> {
    let cluster = Cluster::connect(&config.connection)?;
    let partitions = cluster.require(&topics.readings)?;
    cluster.require_copartitioned(&topics.dead_letters, &topics.readings, partitions)?;
    cluster.require_copartitioned(&topics.alerts, &topics.readings, partitions)?;
    if cluster.topic(&topics.state)?.is_none() {
        let plan = TopicPlan::like_its_cluster(&cluster, &topics.state, partitions, Cleanup::Compact)?;
        if cluster.create(&plan)? {
            tracing::info!(topic = topics.state, partitions, "made the state topic");
        }
    }
    cluster.require_copartitioned(&topics.state, &topics.readings, partitions)?;
    let consequence = "alarm states would be deleted after its retention time";
    cluster.require_compacted(&topics.state, consequence)?;
    Ok(())
}

/// The wall clock.
fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
