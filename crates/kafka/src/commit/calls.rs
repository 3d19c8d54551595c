//! The calls of a commit. An outage is waited out: a call is made again until it succeeds, is refused, or the
//! worker gives up.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use genwatch_core::engine::commit::{Attempt, Call, CallResult, Delivery, Ended, Next, Portion};
use genwatch_core::engine::encode::OutgoingRecord;
use genwatch_core::engine::membership::{Fence, Refusal};
use genwatch_core::engine::note::Note;
use genwatch_core::handler::effect::Output;
use genwatch_core::pool::{Commit, CommitPart};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use uuid::Uuid;

use super::deliveries::{Deliveries, Letter};
use super::retry::{Failure, Retry, overdue, refusal_of, rejection, transaction_failure};
use super::{CommitError, Flags, Outcome, STEP_TIMEOUT, Sealed, Setup, make_producer};
use crate::clock::{self, Standstill};
use crate::config::transactional_id;
use crate::consumer::NotedOffset;
use crate::log_limit::LogLimiter;
use crate::native;

/// How long one request for the group's offsets may take when they decide how a commit in doubt ended.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a group's rebalance usually takes at most, until it has a generation.
const JOINS_WITHIN: Duration = Duration::from_millis(500);
/// How long the producer may not know a partition that the topic is said to have.
const GROWTH_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Work {
    pub(super) setup: Setup,
    flags: Flags,
    /// Distinguishes the commits of this membership from all others; the producer's transactional id ends with it.
    instance: Uuid,
    /// `None` if the last one broke; the next commit creates another.
    producer: Option<ThreadedProducer<Deliveries>>,
    deliveries: Deliveries,
    /// Ends the producer before.
    ending: Option<JoinHandle<()>>,
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

impl Drop for Work {
    fn drop(&mut self) {
        self.wait_for_the_last();
    }
}

impl Work {
    pub(super) fn new(
        setup: &Setup,
        flags: &Flags,
        deliveries: Deliveries,
        producer: Option<ThreadedProducer<Deliveries>>,
    ) -> Work {
        Work {
            setup: setup.clone(),
            flags: flags.clone(),
            instance: setup.instances.first(),
            producer,
            deliveries,
            ending: None,
            begun: Instant::now(),
            standstill: Standstill::new(setup.doubtful_standstill),
            stood_still: Cell::new(false),
            log: RefCell::default(),
            reason: String::new(),
            rejection: None,
        }
    }

    /// Makes the calls of an attempt until it ends.
    pub(super) fn make<O: Output>(&mut self, mut attempt: Attempt, sealed: &Sealed<O>) -> Outcome {
        let (id, begun) = (sealed.commit.id, Instant::now());
        self.deliveries.reset();
        self.commit_as(self.setup.instances.of(&sealed.fence.member));
        if self.flags.renew.swap(false, Ordering::Relaxed) || self.may_have_asked_twice() {
            self.discard();
        }
        self.standstill.noticed(clock::both());
        self.stood_still.set(false);
        "its producer hangs".clone_into(&mut self.reason);
        let ended = loop {
            match attempt.next() {
                Next::Ended(ended) => break ended,
                Next::Call(call) => {
                    let answer = self.call(call, sealed);
                    tracing::trace!(commit = id.0, ?call, ?answer, since = ?begun.elapsed(), "committing");
                    attempt.answered(answer);
                }
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

    fn commit_as(&mut self, instance: Uuid) {
        if instance != self.instance && self.setup.delivery == Delivery::ExactlyOnce {
            self.discard();
        }
        self.instance = instance;
    }

    /// Whether a coordinator request of the producer may still be in flight because its connection broke and the
    /// request was repeated: the stray first one would end, or add to, whatever transaction it meets. The brokers
    /// distinguish the two only by producer epoch, as librdkafka 2.12.1 lacks KIP-890; so a producer with a newer epoch
    /// replaces this one. (`a_late_end...`, tests/kafka/late.rs)
    fn may_have_asked_twice(&self) -> bool {
        self.setup.delivery == Delivery::ExactlyOnce && self.deliveries.reported().disconnected
    }

    fn call<O: Output>(&mut self, call: Call, sealed: &Sealed<O>) -> CallResult {
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
                self.discard();
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
        if self.producer.is_some() {
            return Ok(());
        }
        let mut config = self.setup.config.clone();
        if self.setup.delivery == Delivery::ExactlyOnce {
            let id = transactional_id(&self.setup.encoder.group, &self.instance.to_string());
            config.set("transactional.id", id);
        }
        while self.producer.is_none() {
            if let Some(answer) = self.interruption() {
                return Err(Failure::new(answer, "the commit is given up"));
            }
            match make_producer(&config, &self.deliveries, self.setup.delivery, || {
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
    fn is_token_committed<O>(&self, commit: &Commit<O>) -> Result<bool, Failure> {
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
    fn token<O>(&self, commit: &Commit<O>) -> String {
        format!("{}/{}", self.instance, commit.id.0)
    }

    fn noted<O>(&self, commit: &Commit<O>, fence: &Fence) -> Vec<NotedOffset> {
        let token = self.token(commit);
        let noted = |part: &CommitPart<O>| NotedOffset {
            partition: part.partition,
            offset: part.offset,
            note: Note {
                token: token.clone(),
                topic: part.topic.clone(),
                event_time: part.event_time,
                member: Some(Arc::clone(&fence.member)),
            },
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

    fn write<O: Output>(&mut self, commit: &Commit<O>, portion: Portion) -> Result<(), Failure> {
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

    /// Lets a rebalance give out its generation: offsets under the one before would be refused, and with them the effects.
    fn wait_while_joining(&self) {
        let begun = Instant::now();
        while self.setup.handle.is_joining()
            && begun.elapsed() < JOINS_WITHIN
            && self.interruption().is_none()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn offsets<O>(&self, commit: &Commit<O>, fence: &Fence) -> Result<(), Failure> {
        self.wait_while_joining();
        let offsets = self.noted(commit, fence);
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
    fn abort(&mut self) -> Result<(), Failure> {
        let producer = self.producer()?;
        // Whatever the cluster says: an interrupted abort would block every later transaction.
        self.retry_until(
            "abort",
            || None,
            || producer.abort_transaction(STEP_TIMEOUT).map_err(|error| Retry::of(&error)),
        )
    }

    /// Has another thread end the producer: that takes up to 100 ms (the polls of [`ThreadedProducer`], rust-rdkafka 0.39), or
    /// half a second in an outage.
    fn discard(&mut self) {
        self.purge();
        let Some(producer) = self.producer.take() else { return };
        // It will still report what became of its records.
        self.deliveries = self.deliveries.of_another_producer();
        self.wait_for_the_last();
        let end = std::thread::Builder::new().name("discarded".to_owned()).spawn(|| drop(producer));
        // Without a thread it has just ended here.
        self.ending = end.ok();
    }

    /// At most one ends at a time.
    fn wait_for_the_last(&mut self) {
        if let Some(ending) = self.ending.take() {
            // The panic hook has reported any panic.
            let _ = ending.join();
        }
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
