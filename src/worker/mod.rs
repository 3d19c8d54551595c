//! The worker: connects the pool and Kafka. This file shows the path of a reading, top-down:
//!
//! ```text
//! take_in ─► parse ─► engine (pool: lanes, outbox) ─► begin_commit ─► committer ─► take_outcome
//! ```
//!
//! The engine decides, this folder executes: it passes the answers of librdkafka, the committer and the restorer to
//! the engine, and performs the engine's actions. `group.rs` handles rebalances and partitions that start; `deaf.rs`
//! detects a client that won't rejoin its group, `replace.rs` replaces a client, `topics.rs` handles a deleted topic,
//! `reports.rs` tells others what this worker does, `load.rs` measures how busy it is.
//!
//! One thread runs `Worker::run` and owns everything in `Worker`; librdkafka, the committer and the restorer unpark
//! it when there's something to do. It always polls, also while every partition is paused or draining, because
//! rebalances arrive by polling.

pub mod alarms;
mod config;
mod deaf;
mod group;
mod instruments;
mod intake;
mod load;
pub mod lookup;
mod metrics;
mod replace;
mod reports;
mod topics;
mod watch;
pub mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::restore::Fault;
use genwatch_core::engine::{Action, Engine, Settings};
use genwatch_core::handler::Handler;
use genwatch_core::handler::effect::Effect;
use genwatch_core::pacer::Pacer;
use genwatch_core::plan::top_keys::KeySampler;
use genwatch_core::pool::{CommitPolicy, Committed, Handling, Pool};
use genwatch_core::reading::bad_ratio::BadRatioLimit;
use genwatch_core::report::Kind;
use genwatch_core::types::{GeneratorId, Millis, Offset, PartitionId};
use genwatch_kafka::admin::{Cluster, TopicPlan};
use genwatch_kafka::clock::{self, Standstill};
use genwatch_kafka::commit::{Committer, Outcome};
use genwatch_kafka::consumer::{Consumer, Event, Run};
use genwatch_kafka::error::{Chain, ClientError};
use genwatch_kafka::group::{Group, GroupError};
use genwatch_kafka::restore::Restorer;
use genwatch_kafka::topics::{HandlerTopics, Role};
use genwatch_kafka::watermarks::WatermarkQuery;

use crate::service::reporter::Reporter;
use crate::service::{Context, LogLimiter, MetricsError, MetricsRegistry};

use deaf::Outside;
use instruments::Instruments;
use intake::Taken;
use load::LoadMeter;
use replace::Reason;
use work::Work;

pub use config::{WorkerConfig, WorkerError, WorkerSummary};

/// The longest sleep of the loop: the delay of a stop request or a tick of the watchdogs.
const LOOP_SLEEP_MAX: Duration = Duration::from_millis(100);
/// Effects are committed this long after the last commit, if the interval isn't shorter.
const COMMIT_LINGER: Duration = Duration::from_millis(1);
/// The most bytes of effects in a commit: even at 2 MB/s they take less time than a transaction has.
const COMMIT_BYTES: usize = 16 << 20;
/// How long the coordinator has to finish a transaction before the next begins. If the next begins too early, the
/// coordinator refuses it and librdkafka waits 20 ms (`rd_kafka_txn_handle_AddPartitionsToTxn`, librdkafka 2.12.1).
const TRANSACTION_SETTLES: Duration = Duration::from_millis(2);
/// How many batches are taken in at once where several threads share them. A partition's records come in thousands, so in
/// fewer batches there are too few partitions to share.
const SHARED_BATCHES: usize = 16;
/// How late Linux may wake a thread: timer slack plus scheduling.
const SPIN_BELOW: Duration = Duration::from_micros(120);

/// A handler as a worker shows it.
pub trait Observed:
    Handler<Task: Send + 'static, Answer: Send + 'static, State: Send + 'static> + Clone + Send + Sync + 'static
{
    /// Its own metrics.
    type Metrics: Clone + std::fmt::Debug + Send + 'static;
    /// What its workers are called in reports.
    const KIND: Kind = Kind::Worker;

    /// The topic of outputs as a report names it: where the kind doesn't say which it is.
    #[must_use]
    fn reported_output(_topics: &HandlerTopics) -> Option<String> {
        None
    }

    /// Registers its metrics.
    ///
    /// # Errors
    /// When a name is taken.
    fn register(&self, registry: &MetricsRegistry) -> Result<Self::Metrics, MetricsError>;

    /// Counts an output that is committed.
    fn committed(_metrics: &Self::Metrics, _output: &Self::Output, _now: Millis) {}

    /// Takes over what [`Handler::handle`] has counted.
    fn counted(&self, _metrics: &Self::Metrics, _counts: &[u64]) {}
}

/// Runs a worker on this thread until a stop request, the end that it was to reach, or a failure.
///
/// # Errors
/// With what a user must fix: the cluster, a topic, the state, the permissions.
pub fn run<H: Observed, W: Work<H>>(
    config: WorkerConfig,
    handler: H,
    work: W,
    context: Context,
) -> Result<WorkerSummary, WorkerError> {
    // Dropped last: a worker's tombstone is its last word.
    let mut reporter = Reporter::default();
    let instruments = Instruments::register(&handler, context, reporter.reporting())?;
    let mut worker = Worker::start(config, handler, work, instruments)?;
    worker.start_reports(&mut reporter)?;
    loop {
        match worker.run()? {
            Ended::Done(summary) => return Ok(summary),
            Ended::Void(former, reason) => match former.replaced(reason)? {
                ControlFlow::Continue(next) => worker = next,
                ControlFlow::Break(summary) => return Ok(summary),
            },
        }
    }
}

/// Why the loop has ended.
enum Ended<H: Observed, W: Work<H>> {
    Done(WorkerSummary),
    /// Its client can't be used any more.
    Void(Box<Worker<H, W>>, Reason),
}

struct Worker<H: Observed, W: Work<H>> {
    config: WorkerConfig,
    handler: H,
    instruments: Instruments<H::Metrics>,
    topics: HandlerTopics,
    consumer: Consumer,
    restorer: Restorer<H::Stored>,
    ends: WatermarkQuery,
    /// Each partition's log end, and when its leader last reported it.
    log_ends: BTreeMap<PartitionId, (Option<Offset>, Instant)>,
    /// Whether it was logged that a leader doesn't answer.
    leader_away: bool,
    missing_topics: BTreeSet<String>,
    committer: Committer<H::Output>,
    engine: Engine<H>,
    work: W,
    timeouts_log: LogLimiter<()>,
    /// Key: whether the effects are durable.
    refusals_log: LogLimiter<bool>,
    /// Key: the number of the error.
    notices_log: LogLimiter<i32>,
    intake: Option<Pacer>,
    bad_ratio: Option<BadRatioLimit>,
    summary: WorkerSummary,
    first_record: Option<Instant>,
    last_commit: Option<Instant>,
    /// When the commit under way began.
    committing: Option<Instant>,
    /// Each partition's committed offset when the watchdog last saw it move, and the time of that.
    progress: BTreeMap<PartitionId, (Offset, Instant)>,
    /// Since when partitions wait for their alarm states.
    restoring: Option<Instant>,
    observed: Instant,
    load: LoadMeter,
    /// Samples which generators have most of the readings.
    keys: KeySampler,
    phases_followed: Instant,
    positions_followed: Instant,
    member_asked: Instant,
    outside: Outside,
    standstill: Standstill,
    /// The first partition that couldn't be processed, and why.
    fault: Option<(PartitionId, Fault)>,
    /// Whether it was logged that the worker drains.
    draining: bool,
    error_logged: Option<Instant>,
}

impl<H: Observed, W: Work<H>> Worker<H, W> {
    fn start(
        config: WorkerConfig,
        handler: H,
        work: W,
        instruments: Instruments<H::Metrics>,
    ) -> Result<Worker<H, W>, WorkerError> {
        let topics = config.topics.clone();
        let partitions = check_topics(&config, &topics)?;

        let me = std::thread::current();
        let WorkerConfig { connection, group, protocol, .. } = &config;
        let mut consumer = Consumer::of_group(connection, group, *protocol, &topics.readings, me.clone())?;
        if config.threads > 1 && work.concurrency().is_none() {
            consumer.widen(SHARED_BATCHES);
        }
        let restorer = Restorer::start(
            &config.connection,
            &config.group,
            &topics,
            partitions,
            consumer.handle(),
            me.clone(),
        )?;
        let ends = WatermarkQuery::start(&config.connection, &config.group, &topics.readings, me.clone())?;
        let committer = Committer::start(
            &config.connection,
            &config.group,
            &topics,
            config.delivery,
            consumer.handle(),
            me,
        )?;

        let handling = match work.concurrency() {
            None => Handling::Inline,
            Some(concurrency) => Handling::Lanes { concurrency },
        };
        let interval = clock::millis(config.commit_interval);
        let linger = clock::millis(COMMIT_LINGER).min(interval);
        let policy = CommitPolicy { interval, linger, bytes: COMMIT_BYTES };
        let pool = Pool::new(handler.clone(), handling, config.bounds, policy);
        let settings = Settings {
            drain: clock::millis(config.drain_timeout),
            policies: config.policies,
            exit_at_end: config.exit_at_end,
        };
        Ok(Worker {
            handler,
            topics,
            consumer,
            restorer,
            ends,
            log_ends: BTreeMap::new(),
            leader_away: false,
            missing_topics: BTreeSet::new(),
            committer,
            engine: Engine::new(pool, settings),
            work,
            timeouts_log: LogLimiter::default(),
            refusals_log: LogLimiter::default(),
            notices_log: LogLimiter::default(),
            bad_ratio: config.max_bad_ratio.map(BadRatioLimit::new),
            intake: config.rate_limit.map(|rate| Pacer::new(f64::from(rate), Instant::now())),
            summary: WorkerSummary::default(),
            first_record: None,
            last_commit: None,
            committing: None,
            progress: BTreeMap::new(),
            restoring: None,
            observed: Instant::now(),
            load: LoadMeter::new(Instant::now()),
            keys: KeySampler::default(),
            phases_followed: Instant::now(),
            positions_followed: Instant::now(),
            member_asked: Instant::now(),
            outside: Outside::new(&config.connection),
            standstill: Standstill::new(config.connection.doubtful_standstill()),
            fault: None,
            draining: false,
            error_logged: None,
            config,
            instruments,
        })
    }

    fn run(mut self) -> Result<Ended<H, W>, WorkerError> {
        match self.work() {
            Ok(None) => {
                self.leave(Consumer::close);
                self.check_faults()?;
                Ok(Ended::Done(self.summarize()))
            }
            Ok(Some(reason)) => Ok(Ended::Void(Box::new(self), reason)),
            Err(error) => {
                // Otherwise the others would wait for the session to end.
                self.leave(Consumer::abandon);
                Err(error)
            }
        }
    }

    /// Runs the loop until the worker is done, or the client can't be used any more.
    fn work(&mut self) -> Result<Option<Reason>, WorkerError> {
        self.consumer
            .subscribe()
            .map_err(|error| WorkerError::Consumer { what: "subscribing failed", error })?;
        tracing::info!(
            worker = self.config.name,
            topic = self.topics.readings,
            group = self.config.group,
            "the worker joins its group"
        );
        while !self.engine.is_done() {
            let now = clock::both();
            self.engine.set_now(now);
            if self.standstill.noticed(now) {
                tracing::warn!(
                    worker = self.config.name,
                    "the process stood still: another worker may hold its partitions by now"
                );
                self.engine.stood_still();
            }
            self.follow_load();
            let taken = self.take_in()?;
            self.follow_group();
            self.take_answers()?;
            self.finish_work();
            self.take_outcome()?;
            self.begin_commit();
            if self.instruments.context.is_stopping() {
                self.engine.stop();
            }
            self.engine.tick();
            self.perform()?;
            self.take_ends();
            self.follow_phases();
            self.observe();
            if self.engine.is_void() {
                return Ok(Some(Reason::OtherTopic));
            }
            if let Some(reason) = self.deafness() {
                return Ok(Some(reason));
            }
            if taken == 0 {
                self.follow_positions();
                self.sleep();
            }
        }
        Ok(None)
    }

    /// Takes a batch from librdkafka and hands each record to the pool.
    fn take_in(&mut self) -> Result<usize, WorkerError> {
        let limit = match &mut self.intake {
            None => usize::MAX,
            Some(pacer) => match pacer.due(Instant::now()) {
                0 => return Ok(0),
                due => due,
            },
        };
        let mut batch = self.consumer.poll(limit);
        let taken = batch.len();
        let mut runs: BTreeMap<PartitionId, Vec<Run<'_>>> = BTreeMap::new();
        let mut records = 0;
        let mut errors = Vec::new();
        for piece in batch.runs() {
            match piece {
                Ok(run) => {
                    records += run.len();
                    self.keys.see_all(run.keys());
                    runs.entry(run.partition).or_default().push(run);
                }
                Err(Event::Error(place, error)) => errors.push((place, error)),
                // Ends aren't asked for here: see `Connection::group_consumer`.
                Err(_) => {}
            }
        }
        let keeps_letters = self.topics.dead_letters.is_some();
        let judged = intake::take_in(&mut self.engine, runs, keeps_letters, self.config.threads);
        drop(batch);
        for part in judged {
            self.count_bad(&part)?;
        }
        if let Some(pacer) = &mut self.intake {
            pacer.took(records);
        }
        if records > 0 {
            self.first_record.get_or_insert_with(Instant::now);
        }
        for (place, error) in errors {
            self.judge(place, error)?;
        }
        self.log_client_errors();
        Ok(taken)
    }

    /// Counts the bad ones among the records of a partition.
    ///
    /// # Errors
    /// When there are too many.
    fn count_bad(&mut self, taken: &Taken) -> Result<(), WorkerError> {
        if self.topics.dead_letters.is_none() {
            self.summary.skipped += taken.bad.len() as u64;
            for (_, code) in &taken.bad {
                self.instruments.metrics.skipped.with_label_values(&[code.as_str()]).inc();
            }
        }
        let Some(limit) = &mut self.bad_ratio else { return Ok(()) };
        let mut bad = taken.bad.iter().map(|(index, _)| *index).peekable();
        let passed = (0..taken.records).find_map(|index| limit.count(bad.next_if_eq(&index).is_some()));
        passed.map_or(Ok(()), |bad| {
            let topic = self.topics.dead_letters.clone().unwrap_or_default();
            Err(WorkerError::BadRatio { bad, topic })
        })
    }

    /// Evaluates the readings whose work is finished.
    fn finish_work(&mut self) {
        let now = Instant::now();
        while let Some(worked) = self.work.finished(now) {
            self.instruments.metrics.handler_seconds.observe(worked.took.as_secs_f64());
            if let Some(generator) = &worked.cut_short {
                self.count_timeout(generator, worked.ticket.partition, now);
            }
            self.engine.finished(worked.ticket, worked.answer);
        }
        self.engine.schedule();
    }

    fn count_timeout(&mut self, generator: &GeneratorId, partition: PartitionId, now: Instant) {
        self.instruments.metrics.work_timeouts.inc();
        if let Some(more) = self.timeouts_log.allow((), now) {
            tracing::warn!(
                worker = self.config.name,
                generator = generator.as_str(),
                partition = partition.0,
                more_since_the_last_line = more,
                "the work of a reading took longer than --work-timeout; the reading is evaluated without it"
            );
        }
    }

    /// Takes the outcome of the commit under way.
    fn take_outcome(&mut self) -> Result<(), WorkerError> {
        let Some(outcome) = self.committer.outcome() else {
            return Ok(());
        };
        self.committing = None;
        match outcome {
            Outcome::Done(id, took) => {
                let settles = match self.config.delivery {
                    Delivery::ExactlyOnce => clock::millis(TRANSACTION_SETTLES),
                    Delivery::AtLeastOnce => 0,
                };
                let committed = self.engine.committed(id, settles);
                self.instruments.not_ready.commits_wait.set(false);
                self.count(&committed, took);
                Ok(())
            }
            Outcome::Refused { id, refusal, published, reason } => {
                if let Some(more) = self.refusals_log.allow(published, Instant::now()) {
                    let what = if published { "the offsets of a commit were" } else { "a commit was" };
                    tracing::warn!(
                        worker = self.config.name,
                        reason,
                        more_since_the_last_line = more,
                        "{what} refused; the next commit includes them again"
                    );
                }
                self.instruments.not_ready.commits_wait.set(true);
                self.engine.refused(id, refusal, published);
                self.ask_for_member();
                Ok(())
            }
            Outcome::Fatal(error) => Err(error.into()),
        }
    }

    fn count(&mut self, committed: &Committed<H::Output>, took: Duration) {
        let now = clock::now();
        self.instruments.metrics.committed(committed, took, now);
        self.last_commit = Some(Instant::now());
        self.summary.commits += 1;
        for part in &committed.parts {
            self.summary.records += part.records;
            for effect in part.effects.iter().flat_map(|chunk| chunk.iter()) {
                match effect {
                    Effect::Output(output) => {
                        self.summary.outputs += 1;
                        H::committed(&self.instruments.own, output, now);
                    }
                    Effect::DeadLetter(_) => self.summary.dlq += 1,
                    Effect::State(_) => {}
                }
            }
            if let Some(fleet) = &self.config.fleet {
                fleet.committed(&self.config.name, part.partition, part.offset, part.records);
            }
        }
    }

    /// Hands finished records to the committer, when it's time.
    fn begin_commit(&mut self) {
        if let Some((commit, fence)) = self.engine.take_commit() {
            self.committing = Some(Instant::now());
            self.committer.begin(commit, fence);
        }
    }

    /// Performs the engine's actions.
    fn perform(&mut self) -> Result<(), WorkerError> {
        let now = Instant::now();
        let (mut starts, mut dropped) = (Vec::new(), Vec::new());
        for action in self.engine.actions() {
            let done = match action {
                Action::Run { ticket, generator, offset, task } => {
                    if let Some(fleet) = &self.config.fleet {
                        fleet.worked(generator.as_str(), ticket.partition, offset);
                    }
                    self.work.begin(ticket, &generator, task, now);
                    Ok(())
                }
                Action::Pause(partition) => self.consumer.pause(&[partition]),
                Action::Resume(partition) => self.consumer.resume(&[partition]),
                Action::Acknowledge => {
                    let held: Vec<_> = self.engine.added().collect();
                    self.consumer.acknowledge_assigned(&held)
                }
                Action::Add(partition, offset) => {
                    starts.push((partition, offset));
                    Ok(())
                }
                Action::Seek(partition, offset) => {
                    self.seek(partition, offset);
                    Ok(())
                }
                Action::Unassign(partitions) => self.consumer.remove(&partitions),
                Action::Ask(ask, partition, question) => {
                    self.restorer.ask(ask, partition, question);
                    Ok(())
                }
                Action::Forget(ask) => {
                    self.restorer.forget(ask);
                    Ok(())
                }
                Action::Abandon => {
                    self.committer.abandon();
                    Ok(())
                }
                Action::GiveUp => {
                    self.committer.give_up();
                    Ok(())
                }
                Action::Gone(partition) => {
                    self.gone(partition);
                    Ok(())
                }
                Action::Reassign(partition, offset) => {
                    self.reassign(partition, offset);
                    Ok(())
                }
                Action::Report(partition, told) => {
                    self.report(partition, told, &mut dropped)?;
                    Ok(())
                }
            };
            done.map_err(|error| WorkerError::Consumer { what: "the assignment was not taken", error })?;
        }
        self.tell_dropped(&dropped);
        self.start_fetching(&starts)?;
        self.show_status();
        Ok(())
    }

    /// Sleeps until there is something to do; librdkafka, committer and restorer wake us.
    fn sleep(&mut self) {
        let began = Instant::now();
        let mut wait = LOOP_SLEEP_MAX;
        if let Some(due) = self.engine.next_commit() {
            wait = wait.min(Duration::from_millis(u64::try_from(due.since(clock::mono())).unwrap_or(0)));
        }
        // If some are due already, there was none to take: librdkafka wakes us when one comes.
        let due = self.intake.as_ref().map(|pacer| pacer.wait(Instant::now()));
        if let Some(due) = due.filter(|due| !due.is_zero()) {
            wait = wait.min(due);
        }
        match self.work.next() {
            // A sleeping thread wakes late: spin for the last stretch, so that `--work 2ms` is 2 ms.
            Some(deadline) if deadline.saturating_duration_since(Instant::now()) <= SPIN_BELOW => {
                while Instant::now() < deadline {
                    std::hint::spin_loop();
                }
            }
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                std::thread::park_timeout(wait.min(left.saturating_sub(SPIN_BELOW)));
            }
            None if wait.is_zero() => {}
            None => std::thread::park_timeout(wait),
        }
        self.load.slept += began.elapsed();
    }

    fn leave(&mut self, by: impl Fn(&Consumer) -> Result<(), ClientError>) {
        if let Err(error) = by(&self.consumer) {
            tracing::warn!(%error, "leaving the group failed; the session timeout ends the membership");
        }
        for slot in self.engine.slots() {
            self.instruments.metrics.forget(slot.partition);
        }
        self.instruments.reporting.follow([]);
        if let Some(fleet) = &self.config.fleet {
            fleet.left(&self.config.name);
        }
        tracing::info!(
            worker = self.config.name,
            records = self.summary.records,
            "the worker has left its group"
        );
    }

    fn summarize(mut self) -> WorkerSummary {
        self.take_counts();
        if let (Some(first), Some(last)) = (self.first_record, self.last_commit) {
            self.summary.seconds = last.saturating_duration_since(first).as_secs_f64();
            if self.summary.seconds > 0.0 {
                self.summary.records_per_second = self.summary.records as f64 / self.summary.seconds;
            }
        }
        self.summary
    }
}

/// Checks the topics before the worker joins; creates a missing state topic. Returns the number of partitions.
fn check_topics(config: &WorkerConfig, topics: &HandlerTopics) -> Result<usize, WorkerError> {
    let cluster = Cluster::connect(&config.connection)?;
    let partitions = cluster.require(&topics.readings)?;
    for topic in topics.dead_letters.iter().chain([&topics.output]) {
        cluster.match_partitions(topic, &topics.readings, partitions)?;
    }
    if cluster.topic(&topics.state)?.is_none() {
        let plan = TopicPlan::like_its_cluster(&cluster, &topics.state, partitions, Role::State.config())?;
        if cluster.create(&plan)? {
            tracing::info!(topic = topics.state, partitions, "created the state topic");
            warn_of_lost_states(config, topics, &cluster);
        }
    }
    cluster.match_partitions(&topics.state, &topics.readings, partitions)?;
    let consequence = "states would be deleted after its retention time";
    cluster.require_compacted(&topics.state, consequence)?;
    Ok(partitions)
}

/// Warns if the group has committed before: it then had states.
fn warn_of_lost_states(config: &WorkerConfig, topics: &HandlerTopics, cluster: &Cluster) {
    let group = Group::new(&config.connection, cluster, &config.group, &topics.readings);
    let has_worked = group.map_err(GroupError::from).and_then(|group| group.has_committed());
    match has_worked {
        Ok(false) => {}
        Ok(true) => tracing::warn!(
            topic = topics.state,
            group = config.group,
            "the group has committed before, but its state topic was gone: nothing of any generator is known any more; \
             conditions that still hold are raised again, and alarms that have ended meanwhile are not cleared"
        ),
        Err(error) => {
            tracing::debug!(error = %Chain(&error), "cannot find out whether the group has committed before")
        }
    }
}
