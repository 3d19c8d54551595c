//! The restorer: answers the engine's questions about partitions to start ([`genwatch_core::engine::restore`] says
//! which, in which order and why).
//!
//! It runs on its own thread, so the worker keeps polling. Each question is about one partition, and stays open until
//! it is answered or forgotten: the restorer waits out an outage, or a transaction that a dead owner left open, however
//! long it takes, which delays only that partition's questions. It batches questions where it can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use genwatch_core::engine::note::Note;
use genwatch_core::engine::restore::{Answer, AskId, Fault, Question, StateFold};
use genwatch_core::engine::start::{self, Log};
use genwatch_core::handler::Stored;
use genwatch_core::types::{Offset, PartitionId, TopicId};
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::{GroupInfo, GroupMemberInfo};
use rdkafka::producer::BaseProducer;

use super::admin::{Cluster, ClusterError};
use super::config::{Connection, Context, Isolation};
use super::consumer::{Consumer, Event, GroupOffset, Handle, Record};
use super::error::ClientError;
use super::native;
use super::topic_watch::{TopicWatch, TopicsFound};
use super::topics::HandlerTopics;

/// A crashed owner's open transaction ends after its timeout (10 s) plus the broker's check (10 s); a longer wait
/// deserves a warning.
const WARN_AFTER: Duration = Duration::from_secs(30);
/// Short, because other questions wait meanwhile.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1000);
/// The coordinator answers at once unless an offset is unstable: then the client keeps asking within this time.
const OFFSETS_TIMEOUT: Duration = Duration::from_millis(300);
/// If offsets can't be fetched together, how many to fetch one by one per turn.
const ONE_BY_ONE: usize = 4;
/// How long to wait before asking an unanswered question again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long a partition waits for a transaction before it's asked whose that is: the coordinator ends those of the living
/// within a few milliseconds.
const SETTLES: Duration = Duration::from_millis(200);
/// How long to wait before asking that again.
const ASK_WHOSE_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait for the end of a dead owner's transaction: other questions wait meanwhile.
const FENCE_TIMEOUT: Duration = Duration::from_millis(250);
/// The longest sleep.
const LOOP_SLEEP_MAX: Duration = Duration::from_millis(100);

/// Why nothing can be restored at all.
#[derive(Debug, thiserror::Error)]
#[error("the state of partitions could not be restored: {what}")]
pub struct RestoreError {
    /// What the broker refuses permanently.
    what: String,
    #[source]
    error: ClientError,
}

impl RestoreError {
    fn new(what: impl Into<String>, error: impl Into<ClientError>) -> RestoreError {
        RestoreError { what: what.into(), error: error.into() }
    }
}

impl From<ClientError> for RestoreError {
    fn from(error: ClientError) -> Self {
        RestoreError::new("reading the state topic failed", error)
    }
}

/// A result of the restorer.
#[derive(Debug)]
pub enum Heard<B> {
    /// The answer to a question.
    Answer(AskId, Answer<B>),
    /// The state of the topics, which nobody asked for.
    Topics(TopicsFound),
}

/// A question on its channel.
type Asked = (AskId, PartitionId, Question);

/// The restorer's thread and its channels.
#[derive(Debug)]
pub struct Restorer<B> {
    questions: Option<Sender<Asked>>,
    forgotten: Arc<Mutex<BTreeSet<AskId>>>,
    answers: Receiver<Result<Heard<B>, RestoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl<B: Stored> Restorer<B> {
    /// Starts the thread, which unparks `waker` when an answer is there. The companion topics have at least
    /// `partitions` partitions.
    ///
    /// # Errors
    /// When a client can't be created.
    pub fn start(
        connection: &Connection,
        group: &str,
        topics: &HandlerTopics,
        partitions: usize,
        handle: Arc<Handle>,
        waker: Thread,
    ) -> Result<Restorer<B>, ClientError> {
        let uncommitted =
            connection.reader(group, Isolation::Uncommitted).create_with_context(Context::default())?;
        let mut reader = connection.reader(group, Isolation::Committed);
        if connection.property("fetch.wait.max.ms").is_none() {
            // A broker says that a partition ends after it has waited for more so long.
            reader.set("fetch.wait.max.ms", "5");
        }
        let (questions, incoming) = crossbeam_channel::unbounded::<Asked>();
        let (answers, outcomes) = crossbeam_channel::unbounded();
        let forgotten = Arc::<Mutex<BTreeSet<AskId>>>::default();
        let channels = Channels { incoming, answers, waker, forgotten: Arc::clone(&forgotten) };
        let (topics, connection, group) = (topics.clone(), connection.clone(), group.to_owned());
        let thread = std::thread::Builder::new().name("restorer".to_owned()).spawn(move || {
            // Created here, as it wakes the thread that polls it.
            match Consumer::new(&reader, &topics.state, std::thread::current()) {
                Ok(mut client) => {
                    client.know_topic(REQUEST_TIMEOUT);
                    let clients = Clients { reader: client, uncommitted, handle, topics, connection, group };
                    let companions = clients.topics.companions().into_iter().map(|topic| (topic, partitions));
                    let companions = companions.collect();
                    let watch = TopicWatch::new(&clients.topics);
                    clients.connect(partitions);
                    let (open, dead) = (BTreeMap::new(), BTreeMap::new());
                    Work { channels, clients, reader, companions, watch, open, dead }.run();
                }
                Err(error) => channels.send(Err(error.into())),
            }
        });
        let thread = thread.map_err(|error| ClientError::of_ours(format!("no thread: {error}")))?;
        Ok(Restorer { questions: Some(questions), forgotten, answers: outcomes, thread: Some(thread) })
    }

    /// Asks a question.
    pub fn ask(&self, ask: AskId, partition: PartitionId, question: Question) {
        if let Some(questions) = &self.questions {
            // The receiver lives as long as the thread, which ends only after `questions` is dropped.
            let _ = questions.send((ask, partition, question));
        }
        self.wake();
    }

    /// Withdraws a question.
    pub fn forget(&self, ask: AskId) {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).insert(ask);
        self.wake();
    }

    /// Returns the next result, or why there can be no more.
    #[must_use]
    pub fn heard(&self) -> Option<Result<Heard<B>, RestoreError>> {
        self.answers.try_recv().ok()
    }
}

impl<B> Restorer<B> {
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<B> Drop for Restorer<B> {
    fn drop(&mut self) {
        self.questions = None;
        self.wake();
        // Detached: an open request may wait for a broker, and its answer no longer matters.
        drop(self.thread.take());
    }
}

/// The thread's end of the channels.
struct Channels<B> {
    incoming: Receiver<Asked>,
    answers: Sender<Result<Heard<B>, RestoreError>>,
    waker: Thread,
    forgotten: Arc<Mutex<BTreeSet<AskId>>>,
}

impl<B> Channels<B> {
    fn send(&self, heard: Result<Heard<B>, RestoreError>) {
        // A receiver that is gone needs no answer.
        if self.answers.send(heard).is_ok() {
            self.waker.unpark();
        }
    }
}

struct Clients {
    /// Reads the state topic.
    reader: Consumer,
    uncommitted: BaseConsumer<Context>,
    handle: Arc<Handle>,
    topics: HandlerTopics,
    connection: Connection,
    group: String,
}

struct Work<B> {
    channels: Channels<B>,
    clients: Clients,
    /// Known partition count of each companion topic.
    companions: BTreeMap<String, usize>,
    watch: TopicWatch,
    /// Configuration of the reader.
    reader: ClientConfig,
    open: BTreeMap<AskId, Open<B>>,
    /// Instances that have died, and how far the end of what they left open is.
    dead: BTreeMap<String, Ending>,
}

/// An unanswered question.
struct Open<B> {
    partition: PartitionId,
    question: Question,
    asked: Instant,
    told: Instant,
    due: Instant,
    /// For [`Question::States`], once it's known how far to read.
    reading: Option<Reading<B>>,
    /// A transaction may hold it up: when to ask whose that is.
    held_up: Option<Instant>,
}

/// The states of one partition that were read so far.
struct Reading<B> {
    high: Offset,
    states: StateFold<B>,
}

impl<B> Open<B> {
    fn new(partition: PartitionId, question: Question, now: Instant) -> Open<B> {
        Open { partition, question, asked: now, told: now, due: now, reading: None, held_up: None }
    }

    /// As [`Open::wait`], where a transaction may be the reason.
    fn wait_for_a_transaction(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.wait(what, why);
        self.held_up.get_or_insert(self.asked + SETTLES);
    }

    /// Schedules a retry; logs a long wait now and then.
    fn wait(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.due = Instant::now() + RETRY_AFTER;
        tracing::debug!(partition = %self.partition, %why, "no {what} yet");
        if self.told.elapsed() > WARN_AFTER {
            self.told = Instant::now();
            let seconds = self.asked.elapsed().as_secs();
            tracing::warn!(partition = %self.partition, %why, seconds, "cannot start a partition yet: waiting for {what}");
        }
    }
}

impl<B: Stored> Work<B> {
    fn run(mut self) {
        while self.take_questions() {
            if let Err(error) = self.turn() {
                self.channels.send(Err(error));
                return;
            }
            self.sleep();
        }
    }

    /// Returns false when no more questions can come.
    fn take_questions(&mut self) -> bool {
        loop {
            match self.channels.incoming.try_recv() {
                Ok((ask, partition, question)) => {
                    self.open.insert(ask, Open::new(partition, question, Instant::now()));
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn turn(&mut self) -> Result<(), RestoreError> {
        self.drop_forgotten()?;
        self.companions();
        self.committed()?;
        self.begin_reading()?;
        self.read()?;
        self.end_what_the_dead_left_open();
        self.log()?;
        self.owners();
        if let Some(found) = self.watch.look(&self.clients.uncommitted) {
            for topic in &found.anew {
                self.companions.remove(topic);
            }
            if found.anew.contains(&self.clients.topics.state) {
                self.renew_reader()?;
            }
            self.channels.send(Ok(Heard::Topics(found)));
        }
        Ok(())
    }

    /// Replaces the reader after the state topic was recreated. A client rejects a leader epoch below the one it knows,
    /// and a recreated topic starts at zero: if another broker leads it now, the client keeps asking the old one
    /// forever (`rd_kafka_toppar_leader_update`, librdkafka 2.12.1). The new reader starts open reads over.
    fn renew_reader(&mut self) -> Result<(), RestoreError> {
        let reader = Consumer::new(&self.reader, &self.clients.topics.state, std::thread::current());
        self.clients.reader = reader?;
        self.clients.reader.know_topic(REQUEST_TIMEOUT);
        for open in self.open.values_mut() {
            open.reading = None;
        }
        Ok(())
    }

    fn sleep(&self) {
        let due = self.open.values().filter(|open| open.reading.is_none()).map(|open| open.due).min();
        let wait = due
            .map_or(LOOP_SLEEP_MAX, |due| due.saturating_duration_since(Instant::now()).min(LOOP_SLEEP_MAX));
        if !wait.is_zero() {
            std::thread::park_timeout(wait);
        }
    }

    fn drop_forgotten(&mut self) -> Result<(), RestoreError> {
        let forgotten =
            std::mem::take(&mut *self.channels.forgotten.lock().unwrap_or_else(PoisonError::into_inner));
        for ask in forgotten {
            if let Some(Open { partition, reading: Some(_), .. }) = self.open.remove(&ask) {
                self.clients.reader.remove(&[partition])?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, ask: AskId, answer: Answer<B>) {
        self.open.remove(&ask);
        self.channels.send(Ok(Heard::Answer(ask, answer)));
    }

    /// Returns the due questions of one kind.
    fn due(&self, question: &Question) -> Vec<(AskId, PartitionId)> {
        let now = Instant::now();
        let is_due = |open: &Open<B>| open.question == *question && open.reading.is_none() && open.due <= now;
        self.open.iter().filter(|(_, open)| is_due(open)).map(|(ask, open)| (*ask, open.partition)).collect()
    }

    fn wait(&mut self, ask: AskId, what: &str, why: &dyn std::fmt::Display) {
        if let Some(open) = self.open.get_mut(&ask) {
            open.wait(what, why);
        }
    }

    // ----------------------------------------------------------------------------------------------------------------

    fn companions(&mut self) {
        for (ask, partition) in self.due(&Question::Companions) {
            let lacks =
                |topic: &String| self.companions.get(topic).is_none_or(|n| *n <= partition.0 as usize);
            let lacking: Vec<String> = self.clients.topics.companions().into_iter().filter(lacks).collect();
            match self.clients.grow(&lacking, partition) {
                Ok(counts) => {
                    self.companions.extend(counts);
                    self.answer(ask, Answer::Companions);
                }
                Err(NotGrown::Yet(why)) => self.wait(ask, "the companion topics' partition", &why),
                Err(NotGrown::Ever(reason)) => {
                    self.answer(ask, Answer::Never(Fault::Companion { reason }));
                }
            }
        }
    }

    fn committed(&mut self) -> Result<(), RestoreError> {
        let due = self.due(&Question::Committed);
        if due.is_empty() {
            return Ok(());
        }
        let partitions: Vec<PartitionId> = due.iter().map(|(_, partition)| *partition).collect();
        let asks: BTreeMap<PartitionId, AskId> =
            due.iter().map(|(ask, partition)| (*partition, *ask)).collect();
        match self.clients.committed(&partitions)? {
            Ok(offsets) => {
                for committed in offsets {
                    if let Some(ask) = asks.get(&committed.partition) {
                        self.answer(*ask, Answer::Committed(noted(&committed)));
                    }
                }
            }
            Err(why) => {
                for (ask, _) in &due {
                    if let Some(open) = self.open.get_mut(ask) {
                        open.wait_for_a_transaction("its committed offset", &why);
                    }
                }
                // Before anything waits for it once more.
                self.end_what_the_dead_left_open();
                // One unstable offset blocks the answer for all.
                for (ask, partition) in due.iter().take(if due.len() > 1 { ONE_BY_ONE } else { 0 }) {
                    if let Ok(offsets) = self.clients.committed(&[*partition])? {
                        self.answer(*ask, Answer::Committed(offsets.first().and_then(noted)));
                    } else if let Some(open) = self.open.get_mut(ask) {
                        // Next time others go first.
                        open.due += RETRY_AFTER;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_reading(&mut self) -> Result<(), RestoreError> {
        let mut starts = Vec::new();
        for (ask, partition) in self.due(&Question::States) {
            match self.clients.watermarks(&self.clients.topics.state, partition)? {
                Ok((low, high)) if low >= high => self.answer(ask, Answer::States(Vec::new())),
                Ok((low, high)) => {
                    starts.push((partition, low));
                    if let Some(open) = self.open.get_mut(&ask) {
                        open.reading = Some(Reading { high, states: StateFold::default() });
                    }
                }
                Err(why) => self.wait(ask, "the state topic", &why),
            }
        }
        if !starts.is_empty() {
            self.clients.reader.add(&starts, &starts)?;
        }
        Ok(())
    }

    /// Reads the state topic up to the high watermarks.
    fn read(&mut self) -> Result<(), RestoreError> {
        let Work { open, clients, .. } = self;
        let mut reading: BTreeMap<PartitionId, (AskId, &mut Open<B>)> = open
            .iter_mut()
            .filter(|(_, open)| open.reading.is_some())
            .map(|(ask, open)| (open.partition, (*ask, open)))
            .collect();
        let mut done: Vec<(AskId, PartitionId, Option<Fault>)> = Vec::new();
        while !reading.is_empty() {
            let batch = clients.reader.poll(usize::MAX);
            if batch.is_empty() {
                break;
            }
            for event in batch.events() {
                let (partition, reached) = match event {
                    Event::Record(record) => {
                        let Some((ask, open)) = reading.get_mut(&record.partition) else { continue };
                        let Some(states) = open.reading.as_mut().map(|reading| &mut reading.states) else {
                            continue;
                        };
                        let Record { partition, offset, key, value, .. } = record;
                        let applied = states.apply(&clients.topics.state, partition, offset, key, value);
                        if let Err(fault) = applied {
                            done.push((*ask, record.partition, Some(fault)));
                            reading.remove(&record.partition);
                            continue;
                        }
                        (record.partition, record.offset.next())
                    }
                    // The end for a `read_committed` reader: an open transaction keeps it below the high watermark;
                    // another notice follows when the transaction has ended.
                    Event::End(partition, end) => (partition, end),
                    Event::Error(_, error) if is_for_good(error.code) => return Err(error.into()),
                    Event::Error(_, error) => {
                        tracing::debug!(%error, "reading the state topic is interrupted");
                        continue;
                    }
                };
                let is_done =
                    |open: &Open<B>| open.reading.as_ref().is_some_and(|reading| reached >= reading.high);
                if reading.get(&partition).is_some_and(|(_, open)| is_done(open)) {
                    done.extend(reading.remove(&partition).map(|(ask, _)| (ask, partition, None)));
                }
            }
        }
        for (_, open) in reading.values_mut() {
            open.wait_for_a_transaction("the end of a transaction in the state topic", &"nothing arrives");
        }
        for (ask, partition, fault) in done {
            self.clients.reader.remove(&[partition])?;
            let read = self.open.get_mut(&ask).and_then(|open| open.reading.take());
            let states = read.map(|reading| reading.states.into_states()).unwrap_or_default();
            self.answer(ask, fault.map_or(Answer::States(states), Answer::Never));
        }
        Ok(())
    }

    /// A dead owner's open transaction would hold its partitions up until it times out. Registering the transactional id
    /// again ends it at once (KIP-98). Whose id that is, the last committed offset says; and of who is still a member of the
    /// group, nothing is ended ([`Note::departed`]).
    fn end_what_the_dead_left_open(&mut self) {
        let now = Instant::now();
        let is_due = |open: &&mut Open<B>| open.held_up.is_some_and(|due| due <= now);
        let mut partitions = Vec::new();
        for open in self.open.values_mut().filter(is_due) {
            open.held_up = Some(now + ASK_WHOSE_AGAIN);
            partitions.push(open.partition);
        }
        if partitions.is_empty() {
            return;
        }
        let departed = match self.clients.departed(&partitions) {
            Ok(departed) => departed,
            Err(error) => {
                tracing::debug!(%error, "it isn't known whose transaction holds partitions up");
                return;
            }
        };
        let is_open = |instance: &String| self.dead.get(instance) != Some(&Ending::Ended);
        for instance in departed.into_iter().filter(is_open).collect::<Vec<_>>() {
            match self.clients.end_transaction(&instance) {
                Ok(ending) => {
                    if self.dead.insert(instance.clone(), ending).is_none() {
                        tracing::info!(
                            instance,
                            "a worker that is gone had left a transaction open: ending it"
                        );
                    }
                }
                Err(error) => tracing::debug!(%error, instance, "its transaction isn't ended yet"),
            }
        }
    }

    fn log(&mut self) -> Result<(), RestoreError> {
        let due = self.due(&Question::Log);
        if due.is_empty() {
            return Ok(());
        }
        // The id first: if the topic is recreated in between, the bounds go with the old id, and the next id check
        // corrects that.
        let topic = match self.watch.ask(&self.clients.uncommitted) {
            Ok(topic) => topic,
            Err(why) => {
                due.iter().for_each(|(ask, _)| self.wait(*ask, "the topic's id", &why));
                return Ok(());
            }
        };
        for (ask, partition) in due {
            match self.clients.watermarks(&self.clients.topics.readings, partition)? {
                Ok((low, high)) => self.answer(ask, Answer::Log(Log { topic: topic.clone(), low, high })),
                Err(why) => self.wait(ask, "the bounds of its log", &why),
            }
        }
        Ok(())
    }

    fn owners(&mut self) {
        let now = Instant::now();
        let ids = |(ask, open): (&AskId, &Open<B>)| match &open.question {
            Question::Owner(ids) if open.due <= now => Some((*ask, ids.clone())),
            _ => None,
        };
        let due: Vec<(AskId, Vec<TopicId>)> = self.open.iter().filter_map(ids).collect();
        for (ask, ids) in due {
            match self.watch.owner(&ids, &self.clients.uncommitted) {
                Ok(name) => self.answer(ask, Answer::Owner(name)),
                Err(why) => self.wait(ask, "the topics of the cluster", &why),
            }
        }
    }
}

/// Converts a committed offset for the engine.
fn noted(committed: &GroupOffset) -> Option<start::CommittedOffset> {
    committed.offset.map(|offset| start::CommittedOffset { offset, note: committed.note() })
}

/// How far the end of a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It's on its way, or has to be asked for again.
    Asked,
    Ended,
}

/// Why a companion topic lacks a partition.
enum NotGrown {
    Yet(String),
    Ever(String),
}

/// Connections to the leaders of so many partitions are opened at start: as a rule, these are all brokers.
const CONNECTED: usize = 12;

impl Clients {
    /// Opens the connections by which a partition's start is asked for, so that the first one doesn't wait for them.
    fn connect(&self, partitions: usize) {
        for topic in [&self.topics.state, &self.topics.readings] {
            for partition in (0..partitions.min(CONNECTED)).filter_map(|id| i32::try_from(id).ok()) {
                if let Err(error) = self.uncommitted.fetch_watermarks(topic, partition, REQUEST_TIMEOUT) {
                    tracing::debug!(%error, topic, "not connected yet");
                    return;
                }
            }
        }
    }

    /// The instances that committed these partitions' offsets last and whose members are gone.
    fn departed(&self, partitions: &[PartitionId]) -> Result<BTreeSet<String>, ClientError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topics.readings, partition.0);
        }
        // As a reader of uncommitted records it gets the last committed offset, whatever is pending.
        let committed = self.uncommitted.committed_offsets(list, REQUEST_TIMEOUT)?;
        // Not `native::members`: asked while coordinators fail, that request ends the process
        // (`rd_kafka_enq_once_del_source_return`, librdkafka 2.12.1). This one knows the classic protocol only.
        let groups = self.uncommitted.fetch_group_list(Some(&self.group), REQUEST_TIMEOUT)?;
        let ids = || groups.groups().iter().flat_map(GroupInfo::members).map(GroupMemberInfo::id);
        // A list without ourselves isn't one of this group as we know it.
        let is_ours = self.handle.member().is_some_and(|me| ids().any(|id| *id == *me.id));
        let notes =
            committed.elements().iter().filter_map(|of| Note::parse(of.metadata())).collect::<Vec<_>>();
        let departed = notes.iter().filter(|_| is_ours).filter_map(|note| note.departed(ids()));
        Ok(departed.map(str::to_owned).collect())
    }

    /// Ends the transaction that an instance has left open, if any. Waits for its end a little, as the coordinator usually
    /// takes some ten milliseconds for it.
    fn end_transaction(&self, instance: &str) -> Result<Ending, KafkaError> {
        let config = self.connection.transactional_producer(&self.group, instance);
        let producer: BaseProducer<Context> = config.create_with_context(Context::default())?;
        match native::producer::register(&producer, FENCE_TIMEOUT) {
            Ok(()) => Ok(Ending::Ended),
            Err(KafkaError::Transaction(error)) if error.is_retriable() => Ok(Ending::Asked),
            Err(error) => Err(error),
        }
    }

    /// Asks whether these topics have the partition, which they are not known to have, and grows those that don't.
    /// Returns each topic's partition count.
    fn grow(&self, lacking: &[String], partition: PartitionId) -> Result<Vec<(String, usize)>, NotGrown> {
        if lacking.is_empty() {
            return Ok(Vec::new());
        }
        let yet = |error: ClusterError| NotGrown::Yet(error.to_string());
        let cluster = Cluster::connect(&self.connection).map_err(yet)?;
        let wanted = cluster.require(&self.topics.readings).map_err(yet)?.max(partition.0 as usize + 1);
        let mut counts = Vec::new();
        for topic in lacking {
            let mut found = cluster.require(topic).map_err(yet)?;
            if found <= partition.0 as usize {
                cluster.grow(topic, found, wanted).map_err(|error| match error {
                    ClusterError::NotGrown { .. } => NotGrown::Ever(error.to_string()),
                    error => NotGrown::Yet(error.to_string()),
                })?;
                found = cluster.require(topic).map_err(yet)?;
                if found <= partition.0 as usize {
                    return Err(NotGrown::Yet(format!("{topic} has {found} partitions")));
                }
            }
            counts.push((topic.clone(), found));
        }
        Ok(counts)
    }

    /// The outer error is permanent.
    fn committed(
        &self,
        partitions: &[PartitionId],
    ) -> Result<Result<Vec<GroupOffset>, ClientError>, RestoreError> {
        match self.handle.committed(partitions, OFFSETS_TIMEOUT) {
            Err(error) if is_for_good(error.code) => {
                Err(RestoreError::new("cannot fetch committed offsets", error))
            }
            result => Ok(result),
        }
    }

    /// Returns the first offset and the high watermark, regardless of open transactions. The outer error is permanent.
    fn watermarks(
        &self,
        topic: &str,
        partition: PartitionId,
    ) -> Result<Result<(Offset, Offset), KafkaError>, RestoreError> {
        match self.uncommitted.fetch_watermarks(topic, partition.0, REQUEST_TIMEOUT) {
            Ok((low, high)) => Ok(Ok((Offset(low), Offset(high)))),
            Err(error) if error.rdkafka_error_code().is_some_and(is_for_good) => {
                Err(RestoreError::new(format!("cannot fetch watermarks of {topic}"), error))
            }
            Err(error) => {
                // librdkafka 2.12.1 treats a cached "no leader" as final, and reports "unknown partition" until
                // something requests metadata (rd_kafka_topic_partition_list_get_leaders): nothing else in this client
                // does.
                if let Err(error) = self.uncommitted.fetch_metadata(Some(topic), REQUEST_TIMEOUT) {
                    tracing::debug!(%error, topic, "no metadata");
                }
                Ok(Err(error))
            }
        }
    }
}

/// Errors that waiting doesn't fix.
fn is_for_good(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::Fatal
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends_the_restore_and_an_outage_is_waited_out() {
        use RDKafkaErrorCode as Code;
        for code in [
            Code::GroupAuthorizationFailed,
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::Fatal,
        ] {
            assert!(is_for_good(code), "{code}");
        }
        for code in [
            Code::OperationTimedOut,
            Code::AllBrokersDown,
            Code::UnknownPartition,
            Code::UnknownTopicOrPartition,
            Code::NotCoordinator,
            Code::UnstableOffsetCommit,
        ] {
            assert!(!is_for_good(code), "{code}");
        }
    }

    #[test]
    fn each_topic_that_follows_the_readings_topic_is_a_companion() {
        let topics = crate::topics::Topics::new("t", "g").of_alarms();
        assert_eq!(topics.companions(), ["g_state", "t_dlq", "t_alerts"]);
    }

    #[test]
    fn a_question_without_an_answer_is_asked_again_a_little_later() {
        let now = Instant::now();
        let (partition, question) = (PartitionId(0), Question::Committed);
        let mut open: Open<()> = Open::new(partition, question, now);
        open.wait("its committed offset", &"the coordinator is away");
        assert!(open.due > now && open.due <= Instant::now() + RETRY_AFTER);
    }
}
