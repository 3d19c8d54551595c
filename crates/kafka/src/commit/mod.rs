//! The committer: makes effects and offsets durable together.
//!
//! It runs on its own thread and handles one [`Commit`] at a time: it makes the calls that an [`Attempt`] asks for,
//! which knows their order and the meaning of each answer.
//!
//! It waits out outages: it repeats a call until the call succeeds, is refused, or the worker gives up.
//!
//! * `calls`: the calls, each waited for. * `instances`: who commits. * `retry`: what librdkafka's codes mean for them. * `deliveries`: what
//!   became of records.

mod calls;
pub(crate) mod deliveries;
mod instances;
pub(crate) mod retry;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use genwatch_core::engine::commit::{Attempt, Delivery};
use genwatch_core::engine::encode::Encoder;
use genwatch_core::engine::membership::{Fence, Refusal};
use genwatch_core::handler::effect::Output;
use genwatch_core::pool::{Commit, CommitId};
use rdkafka::config::ClientConfig;
use rdkafka::producer::ThreadedProducer;

use crate::config::{Connection, TRANSACTION_TIMEOUT, worker_name};
use crate::consumer::Handle;
use crate::native;
use crate::throttle::Throttle;
use crate::topics::HandlerTopics;
use calls::Work;
use deliveries::Deliveries;
use instances::Instances;
use retry::{Retry, reason};

/// How long one step waits before it checks whether to give up.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a reachable cluster may take to find a transaction coordinator at startup: a broker may have just died.
const START_TIMEOUT: Duration = Duration::from_secs(60);

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
pub struct Committer<O> {
    commits: Option<Sender<Sealed<O>>>,
    outcomes: Receiver<Outcome>,
    flags: Flags,
    /// The commit under way, kept so that a replacement thread can find out how it ended.
    under_way: Option<Sealed<O>>,
    setup: Setup,
    waker: Thread,
    thread: Option<JoinHandle<()>>,
}

/// A commit and the membership under which it may be sent.
#[derive(Clone, Debug)]
struct Sealed<O> {
    commit: Commit<O>,
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
    instances: Instances,
    /// See [`Connection::doubtful_standstill`].
    doubtful_standstill: Duration,
    throttle: Throttle,
}

impl<O: Output> Committer<O> {
    /// Creates the producer and starts the thread. For exactly-once, registers the transactional id first, which waits
    /// for the cluster.
    ///
    /// # Errors
    /// When the producer can't be created or registered.
    pub fn start(
        connection: &Connection,
        group: &str,
        topics: &HandlerTopics,
        delivery: Delivery,
        handle: Arc<Handle>,
        waker: Thread,
    ) -> Result<Committer<O>, CommitError> {
        let instances = Instances::new();
        let mut config = match delivery {
            Delivery::ExactlyOnce => connection.transactional_producer(group, &instances.first().to_string()),
            Delivery::AtLeastOnce => connection.producer(),
        };
        if connection.property("linger.ms").is_none() {
            // A commit's records arrive together anyway.
            config.set("linger.ms", "0");
        }
        // See `Work::may_have_asked_twice`.
        config.set("log.connection.close", "true");
        Throttle::ask(connection, &mut config);
        let throttle = Throttle::default();
        let deliveries = Deliveries::throttled_by(throttle.clone());
        let begun = Instant::now();
        let producer = make_producer(&config, &deliveries, delivery, || begun.elapsed() > START_TIMEOUT)?;
        let setup = Setup {
            config,
            transaction_timeout: connection.time("transaction.timeout.ms", TRANSACTION_TIMEOUT),
            handle,
            delivery,
            encoder: Encoder {
                readings: topics.readings.clone(),
                output: topics.output.clone(),
                state: topics.state.clone(),
                dead_letters: topics.dead_letters.clone().unwrap_or_default(),
                group: group.to_owned(),
                worker: worker_name(),
            },
            instances,
            doubtful_standstill: connection.doubtful_standstill(),
            throttle,
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
        let deliveries = Deliveries::throttled_by(self.setup.throttle.clone());
        let work = Work::new(&self.setup, &flags, deliveries, None);
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
    pub fn begin(&mut self, commit: Commit<O>, fence: Fence) {
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

    /// Returns the share of time for which a broker's quota has delayed the producer, 0 to 1.
    #[must_use]
    pub fn throttled(&self) -> f64 {
        self.setup.throttle.share()
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

impl<O> Drop for Committer<O> {
    fn drop(&mut self) {
        self.flags.give_up.store(true, Ordering::Relaxed);
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
pub(crate) fn make_producer(
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
    while let Err(error) = native::producer::register(&producer, STEP_TIMEOUT) {
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
type Channels<O> = (Sender<Sealed<O>>, Receiver<Outcome>, JoinHandle<()>);

/// Starts a thread. `in_doubt` is a commit of an earlier producer with the same id that may have succeeded.
fn spawn<O: Output>(
    mut work: Work,
    in_doubt: Option<Sealed<O>>,
    waker: Thread,
) -> Result<Channels<O>, CommitError> {
    let (commits, incoming) = crossbeam_channel::unbounded::<Sealed<O>>();
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
