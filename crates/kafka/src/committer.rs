//! The committer: makes effects and offsets durable together.
//!
//! It runs on its own thread and handles one [`Commit`] at a time: it makes the calls that an [`Attempt`] asks for,
//! which knows their order and the meaning of each answer.
//!
//! It waits out outages: it repeats a call until the call succeeds, is refused, or the worker gives up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use genwatch_core::engine::commit::{Attempt, Call, CallResult, Delivery, Ended, Next, Portion};
use genwatch_core::engine::encode::{DLQ_OFFSET, DLQ_VALUE_DROPPED, Encoder, OutgoingRecord};
use genwatch_core::engine::membership::{Fence, Refusal};
use genwatch_core::engine::note::Note;
use genwatch_core::pool::{Commit, CommitId, CommitPart};
use genwatch_core::types::{Offset, PartitionId};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::config::{Connection, TRANSACTION_TIMEOUT, replica_name};
use super::consumer::{Handle, NotedOffset, TransactionError};
use super::native;
use super::topics::Topics;
use crate::clock::{self, Standstill};
use crate::log_limit::LogLimiter;

/// How long one step waits before it checks whether to give up.
const STEP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long one request for the group's offsets may take when they decide how a commit in doubt ended.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reachable cluster may take to find a transaction coordinator at startup: a broker may have just died.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the producer may not know a partition that the topic is said to have.
const GROWTH_TIMEOUT: Duration = Duration::from_secs(10);

/// How a commit ended.
#[derive(Debug)]
pub enum Outcome {
    /// It is durable.
    Done(CommitId, Duration),
    /// Nothing of it is visible (exactly-once), or perhaps a part (at-least-once): try again.
    Refused {
        /// Which commit.
        id: CommitId,
        /// What that means for the held partitions.
        refusal: Refusal,
        /// Whether the effects are durable and only the offsets aren't.
        published: bool,
        /// The reason, for people.
        reason: String,
    },
    /// No commit can succeed any more.
    Fatal(CommitError),
}

/// Why the committer can't go on.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The producer was fenced, or is broken beyond repair.
    #[error("the producer cannot go on: {0}")]
    Producer(String),
    /// The worker stopped while its last commit was in doubt.
    #[error(
        "the last commit is in doubt, as the cluster doesn't answer ({0}); nothing is lost: the next owner of the \
         partitions waits for its outcome and continues from there"
    )]
    InDoubt(String),
    /// A topic refuses a record permanently.
    #[error("topic {topic} refuses a record: {reason}; {advice}")]
    Rejected {
        /// The topic.
        topic: String,
        /// What the broker said.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
}

/// The committer's thread and its channels.
#[derive(Debug)]
pub struct Committer {
    commits: Option<Sender<Sealed>>,
    outcomes: Receiver<Outcome>,
    flags: Flags,
    /// The commit under way, kept so that a replacement thread can find out how it ended.
    under_way: Option<Sealed>,
    setup: Setup,
    waker: Thread,
    thread: Option<JoinHandle<()>>,
}

/// A commit and the membership under which it may be sent.
#[derive(Clone, Debug)]
struct Sealed {
    commit: Commit,
    fence: Fence,
}

/// Flags shared by the committer and its thread.
#[derive(Clone, Debug, Default)]
struct Flags {
    give_up: Arc<AtomicBool>,
    abandoned: Arc<AtomicBool>,
    /// Asks the thread to recreate the producer.
    renew: Arc<AtomicBool>,
    /// When the thread entered a librdkafka call that may hang.
    calling_since: Arc<Mutex<Option<Instant>>>,
}

impl Flags {
    fn calls_for(&self) -> Duration {
        let since = *self.calling_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn calling(&self, since: Option<Instant>) {
        *self.calling_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// What the first thread and its replacements share.
#[derive(Clone, Debug)]
struct Setup {
    config: ClientConfig,
    transaction_timeout: Duration,
    handle: Arc<Handle>,
    delivery: Delivery,
    encoder: Encoder,
    /// Distinguishes this process's commits from all others.
    instance: uuid::Uuid,
    /// See [`Connection::doubtful_standstill`].
    doubtful_standstill: Duration,
}

impl Committer {
    /// Creates the producer and starts the thread. For exactly-once, registers the transactional id first, which waits
    /// for the cluster.
    ///
    /// # Errors
    /// When the producer can't be created or registered.
    pub fn start(
        connection: &Connection,
        group: &str,
        topics: &Topics,
        delivery: Delivery,
        handle: Arc<Handle>,
        waker: Thread,
    ) -> Result<Committer, CommitError> {
        let mut config = match delivery {
            Delivery::ExactlyOnce => connection.transactional_producer(group),
            Delivery::AtLeastOnce => connection.producer(),
        };
        if connection.property("linger.ms").is_none() {
            // A commit's records arrive together anyway.
            config.set("linger.ms", "0");
        }
        // See `Work::may_have_asked_twice`.
        config.set("log.connection.close", "true");
        let deliveries = Deliveries::default();
        let begun = Instant::now();
        let producer = make_producer(&config, &deliveries, delivery, || begun.elapsed() > START_TIMEOUT)?;
        let setup = Setup {
            config,
            transaction_timeout: connection.time("transaction.timeout.ms", TRANSACTION_TIMEOUT),
            handle,
            delivery,
            encoder: Encoder {
                readings: topics.readings.clone(),
                alerts: topics.alerts.clone(),
                state: topics.state.clone(),
                dead_letters: topics.dead_letters.clone(),
                group: group.to_owned(),
                worker: replica_name(),
            },
            instance: uuid::Uuid::new_v4(),
            doubtful_standstill: connection.doubtful_standstill(),
        };
        let flags = Flags::default();
        let work = Work::new(&setup, &flags, deliveries, Some(producer));
        let (commits, outcomes, thread) = spawn(work, None, waker.clone())?;
        Ok(Committer {
            commits: Some(commits),
            outcomes,
            flags,
            under_way: None,
            setup,
            waker,
            thread: Some(thread),
        })
    }

    /// Replaces a producer whose thread hangs inside librdkafka. Adding offsets to a transaction waits for the group
    /// coordinator that the producer knows, asks for another only when some broker changes state, and ignores its
    /// timeout (librdkafka 2.12.1, rd_kafka_coord_req_fsm), so a lost coordinator can block it forever.
    ///
    /// A new thread creates a producer with the same transactional id, which fences the old one, and then checks how
    /// the commit ended.
    fn replace_stuck_producer(&mut self) {
        let stuck = self.setup.delivery == Delivery::ExactlyOnce
            && self.flags.calls_for() > self.setup.transaction_timeout;
        let Some(sealed) = self.under_way.as_ref().filter(|_| stuck) else { return };
        tracing::warn!("the producer is stuck waiting for a lost coordinator: replacing it");
        let flags = Flags::default();
        flags.abandoned.store(self.flags.abandoned.load(Ordering::Relaxed), Ordering::Relaxed);
        let work = Work::new(&self.setup, &flags, Deliveries::default(), None);
        self.flags.give_up.store(true, Ordering::Relaxed);
        match spawn(work, Some(sealed.clone()), self.waker.clone()) {
            Ok((commits, outcomes, thread)) => {
                self.flags = flags;
                self.commits = Some(commits);
                self.outcomes = outcomes;
                self.thread = Some(thread);
            }
            // Retried on the next turn.
            Err(error) => tracing::error!(%error, "cannot replace the producer"),
        }
    }

    /// Hands over a commit. Call it again only after this one's outcome.
    pub fn begin(&mut self, commit: Commit, fence: Fence) {
        self.flags.abandoned.store(false, Ordering::Relaxed);
        let sealed = Sealed { commit, fence };
        self.under_way = Some(sealed.clone());
        if let Some(commits) = &self.commits {
            // The receiver lives as long as the thread, which ends only after `commits` is dropped.
            let _ = commits.send(sealed);
        }
    }

    /// Returns the outcome of the commit under way, if known.
    #[must_use]
    pub fn outcome(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.try_recv().ok();
        if outcome.is_some() {
            self.under_way = None;
        } else {
            self.replace_stuck_producer();
        }
        outcome
    }

    /// Abandons the commit under way, whose partitions are all lost: nobody waits for its outcome, but rejoining the
    /// group waits for its end. It is refused within a second or two, or has just succeeded.
    pub fn abandon(&self) {
        self.flags.abandoned.store(true, Ordering::Relaxed);
    }

    /// Asks for a new producer because the topics aren't those that the producer knows. It is recreated at the next
    /// turn of a commit under way, or before the next commit.
    pub fn renew(&self) {
        self.flags.renew.store(true, Ordering::Relaxed);
    }

    /// Stops waiting out an outage: the commit under way is refused within a second or so.
    pub fn give_up(&self) {
        self.flags.give_up.store(true, Ordering::Relaxed);
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.give_up();
        self.commits = None;
        let Some(thread) = self.thread.take() else { return };
        // Don't join a thread that is stuck inside librdkafka; process exit ends it.
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < 4 * STEP_TIMEOUT {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // The panic hook has reported any panic.
            let _ = thread.join();
        }
    }
}

/// Creates a producer. For exactly-once, registers its transactional id, which waits for the cluster until `enough`,
/// and until a transaction of the id's previous producer has ended, either way.
fn make_producer(
    config: &ClientConfig,
    deliveries: &Deliveries,
    delivery: Delivery,
    enough: impl Fn() -> bool,
) -> Result<ThreadedProducer<Deliveries>, CommitError> {
    deliveries.reported().disconnected = false;
    let producer: ThreadedProducer<Deliveries> = config
        .create_with_context(deliveries.clone())
        .map_err(|error| CommitError::Producer(error.to_string()))?;
    if delivery == Delivery::AtLeastOnce {
        return Ok(producer);
    }
    let mut told = Instant::now();
    while let Err(error) = producer.init_transactions(STEP_TIMEOUT) {
        let reason = reason(&error);
        if !Retry::of(&error).retriable || enough() {
            return Err(CommitError::Producer(format!("cannot register the transactional id: {reason}")));
        }
        if told.elapsed() > TRANSACTION_TIMEOUT {
            told = Instant::now();
            tracing::warn!(reason, "a commit waits for the cluster; nothing is lost");
        }
    }
    Ok(producer)
}

/// The channels of a committer thread: commits in, outcomes out.
type Channels = (Sender<Sealed>, Receiver<Outcome>, JoinHandle<()>);

/// Starts a thread. `in_doubt` is a commit of an earlier producer with the same id that may have succeeded.
fn spawn(mut work: Work, in_doubt: Option<Sealed>, waker: Thread) -> Result<Channels, CommitError> {
    let (commits, incoming) = crossbeam_channel::unbounded::<Sealed>();
    let (outgoing, outcomes) = crossbeam_channel::unbounded();
    let thread = std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
        let delivery = work.setup.delivery;
        let taken_over = in_doubt.map(|sealed| (Attempt::taken_over(), sealed));
        let begun = incoming.into_iter().map(|sealed| (Attempt::new(delivery), sealed));
        for (attempt, sealed) in taken_over.into_iter().chain(begun) {
            let outcome = work.make(attempt, &sealed);
            // From here on only the engine holds its effects.
            drop(sealed);
            if outgoing.send(outcome).is_err() {
                return;
            }
            waker.unpark();
        }
    });
    let thread = thread.map_err(|error| CommitError::Producer(format!("no thread: {error}")))?;
    Ok((commits, outcomes, thread))
}

struct Work {
    setup: Setup,
    flags: Flags,
    /// `None` if the last one broke; the next commit creates another.
    producer: Option<ThreadedProducer<Deliveries>>,
    deliveries: Deliveries,
    /// When the commit under way began.
    begun: Instant,
    standstill: Standstill,
    /// Whether the process stood still since then.
    stood_still: Cell<bool>,
    /// Limits repeated log lines: an outage must not fill a disk.
    log: RefCell<LogLimiter<&'static str>>,
    /// Why the last call failed.
    reason: String,
    /// The topic that refuses a record permanently.
    rejection: Option<CommitError>,
}

/// Why a call failed: the answer for the attempt, and the reason for people.
struct Failure {
    answer: CallResult,
    reason: String,
    rejection: Option<CommitError>,
}

impl Failure {
    fn new(answer: CallResult, reason: impl ToString) -> Failure {
        Failure { answer, reason: reason.to_string(), rejection: None }
    }

    fn rejected(rejection: CommitError) -> Failure {
        Failure { answer: CallResult::Rejected, reason: rejection.to_string(), rejection: Some(rejection) }
    }
}

impl Work {
    fn new(
        setup: &Setup,
        flags: &Flags,
        deliveries: Deliveries,
        producer: Option<ThreadedProducer<Deliveries>>,
    ) -> Work {
        Work {
            setup: setup.clone(),
            flags: flags.clone(),
            producer,
            deliveries,
            begun: Instant::now(),
            standstill: Standstill::new(setup.doubtful_standstill),
            stood_still: Cell::new(false),
            log: RefCell::default(),
            reason: String::new(),
            rejection: None,
        }
    }

    /// Makes the calls of an attempt until it ends.
    fn make(&mut self, mut attempt: Attempt, sealed: &Sealed) -> Outcome {
        let (id, begun) = (sealed.commit.id, Instant::now());
        self.deliveries.reset();
        if self.flags.renew.swap(false, Ordering::Relaxed) || self.may_have_asked_twice() {
            self.producer = None;
        }
        self.standstill.noticed(clock::both());
        self.stood_still.set(false);
        "its producer hangs".clone_into(&mut self.reason);
        let ended = loop {
            match attempt.next() {
                Next::Ended(ended) => break ended,
                Next::Call(call) => attempt.answered(self.call(call, sealed)),
            }
        };
        let reason = std::mem::take(&mut self.reason);
        if ended == Ended::Done {
            self.deliveries.reported().too_large.clear();
        }
        match ended {
            Ended::Done => Outcome::Done(id, begun.elapsed()),
            Ended::Refused { refusal, published } => Outcome::Refused { id, refusal, published, reason },
            Ended::Rejected => Outcome::Fatal(self.rejection.take().unwrap_or(CommitError::Producer(reason))),
            Ended::InDoubt => Outcome::Fatal(CommitError::InDoubt(reason)),
        }
    }

    /// Whether a coordinator request of the producer may still be in flight because its connection broke and the
    /// request was repeated: the stray first one would end, or add to, whatever transaction it meets. The brokers
    /// distinguish the two only by producer epoch, as librdkafka 2.12.1 lacks KIP-890; so a producer with a newer epoch
    /// replaces this one. (`a_late_end...`, tests/kafka/late.rs)
    fn may_have_asked_twice(&self) -> bool {
        self.setup.delivery == Delivery::ExactlyOnce && self.deliveries.reported().disconnected
    }

    fn call(&mut self, call: Call, sealed: &Sealed) -> CallResult {
        let Sealed { commit, fence } = sealed;
        let done = match call {
            Call::Begin => self.begin(),
            Call::Write(portion) => self.write(commit, portion),
            Call::Flush => self.flush(),
            Call::Offsets => self.offsets(commit, fence),
            Call::End => self.end(),
            Call::Confirm => self.confirm(),
            Call::Abort => self.abort(),
            Call::Purge => {
                self.purge();
                Ok(())
            }
            Call::Discard => {
                if let Some(more) = self.may_log("anew") {
                    let reason = &self.reason;
                    tracing::warn!(reason, more_since_the_last_line = more, "recreating the producer");
                }
                self.producer = None;
                Ok(())
            }
            Call::Register => self.have_producer(),
            Call::FindToken => match self.is_token_committed(commit) {
                Ok(marked) => return CallResult::TokenFound(marked),
                Err(failure) => Err(failure),
            },
        };
        done.map_or_else(
            |Failure { answer, reason, rejection }| {
                self.reason = reason;
                self.rejection = self.rejection.take().or(rejection);
                answer
            },
            |()| CallResult::Done,
        )
    }

    fn may_log(&self, about: &'static str) -> Option<Option<u64>> {
        self.log.borrow_mut().allow(about, Instant::now())
    }

    /// Returns the answer to give if the worker has stopped waiting.
    fn interruption(&self) -> Option<CallResult> {
        if self.flags.abandoned.load(Ordering::Relaxed) {
            Some(CallResult::Abandoned)
        } else {
            self.flags.give_up.load(Ordering::Relaxed).then_some(CallResult::GivenUp)
        }
    }

    /// Creates a producer if there is none: registers the same transactional id again, which ends what the previous one
    /// left open. Waits out outages.
    fn have_producer(&mut self) -> Result<(), Failure> {
        while self.producer.is_none() {
            if let Some(answer) = self.interruption() {
                return Err(Failure::new(answer, "the commit is given up"));
            }
            match make_producer(&self.setup.config, &self.deliveries, self.setup.delivery, || {
                self.interruption().is_some()
            }) {
                Ok(producer) => self.producer = Some(producer),
                Err(error) => {
                    if let Some(answer) = self.interruption() {
                        return Err(Failure::new(answer, error));
                    }
                    tracing::warn!(%error, "a commit waits for the cluster; nothing is lost");
                    std::thread::sleep(STEP_TIMEOUT);
                }
            }
        }
        Ok(())
    }

    /// Whether any committed offset carries the commit's token. (Comparing offsets isn't enough: an alarm raised by
    /// silence moves none.)
    fn is_token_committed(&self, commit: &Commit) -> Result<bool, Failure> {
        let partitions: Vec<_> = commit.parts.iter().map(|part| part.partition).collect();
        let token = self.token(commit);
        loop {
            match self.setup.handle.committed(&partitions, OFFSETS_TIMEOUT) {
                Ok(committed) => {
                    return Ok(committed.iter().any(|of| of.note().is_some_and(|note| note.token == token)));
                }
                Err(error) => match self.interruption() {
                    Some(answer) => return Err(Failure::new(answer, error)),
                    None => tracing::warn!(%error, "a commit is in doubt: asking again whether it succeeded"),
                },
            }
        }
    }

    /// Returns the commit token, which the commit's offsets carry so that its outcome can be found out later.
    fn token(&self, commit: &Commit) -> String {
        format!("{}/{}", self.setup.instance, commit.id.0)
    }

    fn noted(&self, commit: &Commit) -> Vec<NotedOffset> {
        let token = self.token(commit);
        let noted = |part: &CommitPart| NotedOffset {
            partition: part.partition,
            offset: part.offset,
            note: Note { token: token.clone(), topic: part.topic.clone() },
        };
        commit.parts.iter().map(noted).collect()
    }

    /// The producer of the commit under way.
    fn producer(&self) -> Result<&ThreadedProducer<Deliveries>, Failure> {
        let none = || Failure::new(CallResult::Refused(Refusal::Other), "there is no producer");
        self.producer.as_ref().ok_or_else(none)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.have_producer()?;
        self.begun = Instant::now();
        self.producer()?.begin_transaction().map_err(|error| transaction_failure(&error))
    }

    fn write(&mut self, commit: &Commit, portion: Portion) -> Result<(), Failure> {
        self.have_producer()?;
        if portion == Portion::States {
            self.refuse_after_standstill()?;
        }
        let effects = commit.parts.iter().flat_map(|part| part.effects.iter());
        let mut records =
            effects.filter(|effect| portion.holds(effect)).map(|effect| self.setup.encoder.record(effect));
        records.try_for_each(|record| self.send(record))
    }

    /// Waits until everything sent is durable.
    fn flush(&self) -> Result<(), Failure> {
        let producer = self.producer()?;
        self.retry_until(
            "delivery",
            || self.rejected(),
            || native::producer::flush(producer, STEP_TIMEOUT).then_some(()).ok_or_else(Retry::of_delivery),
        )?;
        self.rejected().map_or(Ok(()), Err)?;
        self.refuse_after_standstill()
    }

    fn refuse_after_standstill(&self) -> Result<(), Failure> {
        self.watch_standstill();
        if self.stood_still.get() {
            let reason = "the process stood still, and the group may have moved on without it";
            return Err(Failure::new(CallResult::StoodStill, reason));
        }
        Ok(())
    }

    fn watch_standstill(&self) {
        self.stood_still.set(self.standstill.noticed(clock::both()) || self.stood_still.get());
    }

    fn offsets(&self, commit: &Commit, fence: &Fence) -> Result<(), Failure> {
        let offsets = self.noted(commit);
        if self.setup.delivery == Delivery::AtLeastOnce {
            let committed = self.setup.handle.commit(&offsets, fence);
            return committed
                .map_err(|error| Failure::new(CallResult::Refused(refusal_of(error.code)), error));
        }
        let producer = self.producer()?;
        self.retry_until(
            "offsets",
            || self.rejected(),
            || {
                self.flags.calling(Some(Instant::now()));
                let sent = self.setup.handle.send_offsets(producer, &offsets, fence, STEP_TIMEOUT);
                self.flags.calling(None);
                sent.map_err(Retry::from)
            },
        )
    }

    fn end(&self) -> Result<(), Failure> {
        let producer = self.producer()?;
        self.retry_until(
            "transaction",
            || self.rejected(),
            || native::producer::commit_transaction(producer, STEP_TIMEOUT).map_err(Retry::from),
        )
    }

    /// Checks that everything sent is in the log. A record that the client gave up is missing or in doubt.
    fn confirm(&self) -> Result<(), Failure> {
        let all_are_reported = native::producer::flush(self.producer()?, STEP_TIMEOUT);
        if all_are_reported && !self.deliveries.reported().any_failed {
            return Ok(());
        }
        Err(Failure::new(CallResult::Broken, format!("a record was given up: {}", self.reason)))
    }

    /// Aborts the transaction. If that fails permanently, the transaction timeout does it.
    fn abort(&self) -> Result<(), Failure> {
        let producer = self.producer()?;
        // Whatever the cluster says: an interrupted abort would block every later transaction.
        self.retry_until(
            "abort",
            || None,
            || producer.abort_transaction(STEP_TIMEOUT).map_err(|error| Retry::of(&error)),
        )
    }

    fn purge(&self) {
        if let Some(producer) = &self.producer {
            producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
        }
    }

    /// Whether the broker has aborted the open transaction, or is about to.
    fn is_overdue(&self) -> bool {
        self.setup.delivery == Delivery::ExactlyOnce && self.begun.elapsed() > self.setup.transaction_timeout
    }

    /// Repeats a retriable step until it succeeds, is refused, or the worker gives up. Logs the wait once.
    fn retry_until(
        &self,
        what: &str,
        refusal: impl Fn() -> Option<Failure>,
        mut step: impl FnMut() -> Result<(), Retry>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            self.watch_standstill();
            let Err(retry) = step() else {
                if told {
                    tracing::info!(waited = ?begun.elapsed(), "commits continue");
                }
                return Ok(());
            };
            if let Some(refused) = refusal() {
                return Err(refused);
            }
            if retry.fatal {
                return Err(Failure::new(CallResult::Broken, retry.reason));
            }
            if !retry.retriable {
                return Err(Failure::new(CallResult::Refused(retry.refusal), retry.reason));
            }
            if self.flags.renew.swap(false, Ordering::Relaxed) {
                return Err(Failure::new(CallResult::Broken, "a topic was deleted and recreated"));
            }
            if let Some(answer) = self.interruption() {
                return Err(Failure::new(answer, retry.reason));
            }
            if self.is_overdue() {
                return Err(overdue(&retry.reason));
            }
            if !told && begun.elapsed() > Duration::from_secs(2) {
                told = true;
                if let Some(more) = self.may_log("waits") {
                    tracing::warn!(
                        step = what,
                        reason = retry.reason,
                        more_since_the_last_line = more,
                        "a commit waits for the cluster; nothing is lost"
                    );
                }
            }
        }
    }

    fn send(&self, record: OutgoingRecord<'_>) -> Result<(), Failure> {
        match record.dead_letter() {
            None => self.produce(&record),
            Some(letter) => self.send_dead_letter(record, letter),
        }
    }

    /// Sends a dead letter. It has more headers than its record, so it may exceed the limit that the record kept: then
    /// it is sent without its value, and says so.
    fn send_dead_letter(&self, record: OutgoingRecord<'_>, letter: Letter) -> Result<(), Failure> {
        if !self.deliveries.reported().too_large.contains(&letter) {
            match self.produce(&record) {
                Err(Failure { rejection: Some(_), .. }) if record.value.is_some() => {}
                sent => return sent,
            }
        }
        tracing::warn!(
            partition = letter.0.0,
            offset = letter.1.0,
            bytes = record.value.as_ref().map_or(0, |value| value.len()),
            topic = record.topic,
            "a dead letter is too large for its topic and goes without its value: raise its max.message.bytes above that of \
             the readings topic"
        );
        self.produce(&record.without_value())
    }

    fn produce(&self, record: &OutgoingRecord<'_>) -> Result<(), Failure> {
        let mut record = base_record(record);
        let producer = self.producer()?;
        let begun = Instant::now();
        loop {
            let Err((error, unsent)) = producer.send(record) else {
                return Ok(());
            };
            let interruption = || self.interruption().map(|answer| Failure::new(answer, &error));
            match error.rdkafka_error_code() {
                // A topic that has just grown: the client refreshes metadata only every few minutes.
                Some(RDKafkaErrorCode::UnknownPartition) if begun.elapsed() < GROWTH_TIMEOUT => {
                    if let Some(failure) = interruption() {
                        return Err(failure);
                    }
                    let asked = producer.client().fetch_metadata(Some(unsent.topic), STEP_TIMEOUT);
                    if let Err(error) = asked {
                        tracing::debug!(%error, topic = unsent.topic, "no metadata");
                    }
                    record = unsent;
                }
                Some(RDKafkaErrorCode::QueueFull) => {
                    if let Some(failure) = interruption().or_else(|| self.rejected()) {
                        return Err(failure);
                    }
                    if self.is_overdue() {
                        return Err(overdue(&error));
                    }
                    record = unsent;
                    self.watch_standstill();
                    std::thread::sleep(Duration::from_millis(2));
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    return Err(Failure::rejected(rejection(
                        unsent.topic,
                        RDKafkaErrorCode::MessageSizeTooLarge,
                    )));
                }
                _ => return Err(transaction_failure(&error)),
            }
        }
    }

    /// Returns a delivery that the broker refused permanently, if any.
    fn rejected(&self) -> Option<Failure> {
        let (topic, code) = self.deliveries.failure()?;
        let is_letter = topic == self.setup.encoder.dead_letters;
        if code == RDKafkaErrorCode::MessageSizeTooLarge
            && is_letter
            && !self.deliveries.reported().bare_too_large
        {
            let reason = "a dead letter is too large for its topic: it is sent again without its value";
            return Some(Failure::new(CallResult::Refused(Refusal::Other), reason));
        }
        Some(match code {
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::InvalidTimestamp => Failure::rejected(rejection(&topic, code)),
            _ => Failure::new(
                CallResult::Refused(Refusal::Other),
                format!("a record for {topic} was not delivered: {code}"),
            ),
        })
    }
}

fn base_record<'a>(record: &'a OutgoingRecord<'_>) -> BaseRecord<'a, [u8], [u8]> {
    let mut base = BaseRecord::to(record.topic);
    base.partition = record.partition.map(|partition| partition.0);
    base.key = record.key;
    base.payload = record.value.as_deref();
    base.timestamp = record.timestamp.map(|at| at.0);
    if !record.headers.is_empty() {
        base.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header { key, value: value.as_deref() })
        }));
    }
    base
}

fn transaction_failure(error: &KafkaError) -> Failure {
    let retry = Retry::of(error);
    Failure::new(
        if retry.fatal { CallResult::Broken } else { CallResult::Refused(Refusal::Other) },
        retry.reason,
    )
}

fn overdue(reason: impl std::fmt::Display) -> Failure {
    Failure::new(CallResult::Overdue, format!("the transaction has timed out: {reason}"))
}

/// What the group coordinator's answer means for the held partitions.
fn refusal_of(code: RDKafkaErrorCode) -> Refusal {
    match code {
        RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::FencedInstanceId => Refusal::NotAMember,
        RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::StaleMemberEpoch => Refusal::StaleGeneration,
        _ => Refusal::Other,
    }
}

fn rejection(topic: &str, code: RDKafkaErrorCode) -> CommitError {
    let advice = match code {
        RDKafkaErrorCode::MessageSizeTooLarge => {
            "raise its max.message.bytes above that of the readings topic"
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => "grant this principal WRITE on it",
        RDKafkaErrorCode::InvalidTimestamp => {
            "set its message.timestamp.before/after.max.ms as wide as the readings topic's"
        }
        _ => "see the brokers' logs",
    };
    CommitError::Rejected { topic: topic.to_owned(), reason: code.to_string(), advice }
}

/// A failed step, and whether to retry it.
struct Retry {
    retriable: bool,
    fatal: bool,
    refusal: Refusal,
    reason: String,
}

impl Retry {
    fn of(error: &KafkaError) -> Retry {
        match error {
            KafkaError::Transaction(inner) => Retry {
                retriable: inner.is_retriable() && !inner.txn_requires_abort(),
                fatal: inner.is_fatal(),
                refusal: refusal_of(inner.code()),
                reason: inner.string(),
            },
            other => Retry {
                retriable: false,
                fatal: other.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal),
                refusal: Refusal::Other,
                reason: reason(other),
            },
        }
    }

    /// Not everything was delivered within one step.
    fn of_delivery() -> Retry {
        let reason = "the brokers do not acknowledge the records".to_owned();
        Retry { retriable: true, fatal: false, refusal: Refusal::Other, reason }
    }
}

impl From<TransactionError> for Retry {
    fn from(failed: TransactionError) -> Retry {
        Retry {
            retriable: failed.retriable,
            fatal: failed.fatal,
            refusal: refusal_of(failed.error.code),
            reason: failed.error.to_string(),
        }
    }
}

fn reason(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(inner) => inner.string(),
        other => other.to_string(),
    }
}

/// Partition and offset of a dead letter's record.
type Letter = (PartitionId, Offset);

/// Delivery reports.
#[derive(Clone, Debug, Default)]
struct Deliveries(Arc<Mutex<Reported>>);

#[derive(Debug, Default)]
struct Reported {
    /// The first failure.
    failure: Option<(String, RDKafkaErrorCode)>,
    /// Whether any record was given up.
    any_failed: bool,
    /// Dead letters of the current commit that the broker refused with their values.
    too_large: BTreeSet<Letter>,
    /// Whether the broker refused one without its value.
    bare_too_large: bool,
    /// Whether a connection broke since the producer was created.
    disconnected: bool,
}

impl Deliveries {
    fn reported(&self) -> MutexGuard<'_, Reported> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the reports for the next attempt.
    fn reset(&self) {
        let mut reported = self.reported();
        (reported.failure, reported.any_failed) = (None, false);
    }

    fn failure(&self) -> Option<(String, RDKafkaErrorCode)> {
        self.reported().failure.clone()
    }
}

impl Reported {
    /// Notes a dead letter that the broker refused as too large.
    fn is_too_large(&mut self, message: &BorrowedMessage<'_>) {
        // The last header of a name counts: a dead letter that was replayed has an earlier one.
        let header = |name| {
            let all = message.headers()?;
            let found = all.iter().filter(|header| header.key == name).last()?;
            std::str::from_utf8(found.value?).ok()?.parse().ok()
        };
        let Some(offset) = header(DLQ_OFFSET) else { return };
        self.bare_too_large |= header(DLQ_VALUE_DROPPED).is_some() || message.payload().is_none();
        self.too_large.insert((PartitionId(message.partition()), Offset(offset)));
    }
}

impl ClientContext for Deliveries {
    /// Called when a connection breaks, by the thread that owns it, before any request is repeated. librdkafka logs a
    /// repeated reason only once in a while (`rd_kafka_broker_set_error`, librdkafka 2.12.1), but always the first one.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" && message.contains("in state UP") {
            self.reported().disconnected = true;
        }
        super::config::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let mut reported = self.reported();
            reported.any_failed = true;
            // A purged record was not refused.
            if matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) {
                return;
            }
            if code == RDKafkaErrorCode::MessageSizeTooLarge {
                reported.is_too_large(message);
            }
            reported.failure.get_or_insert_with(|| (message.topic().to_owned(), code));
        }
    }
}
