//! Writes batches on threads of their own, so that the loop keeps polling Kafka however long the store takes. Each
//! thread writes one batch after the other. A batch is acknowledged when each of its points is written, dropped, or
//! refused on its own.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::mem::take;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::batch::{Origin, PointBatch};
use super::metrics::SinkMetrics;
use super::store::{Store, StoreRefusal, WriteAnswer};
use crate::service::backoff::Backoff;
use crate::service::{LogLimiter, NotReady};

/// How often the same reason is logged while the store is away.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// The loop's handle to the writer threads.
pub struct Writers {
    batches: Vec<Sender<PointBatch>>,
    outcomes: Receiver<Result<Written, StoreRefusal>>,
}

/// A finished batch.
#[derive(Debug)]
pub struct Written {
    /// The thread that wrote it.
    pub lane: usize,
    /// The batch as handed over.
    pub batch: PointBatch,
    /// Number of its points that the store dropped or refused.
    pub refused: usize,
    /// Acknowledged requests.
    pub writes: u64,
    /// Repeated requests.
    pub retries: u64,
}

impl Writers {
    /// Starts `count` threads. The first one checks write access before anything else; the result is an outcome like a
    /// batch's.
    ///
    /// # Errors
    /// When the system can't start a thread.
    pub fn start<S: Store>(
        count: usize,
        store: Arc<S>,
        topics: Vec<String>,
        metrics: SinkMetrics,
        store_away: NotReady,
    ) -> std::io::Result<Writers> {
        let shared = Arc::new(Shared {
            store,
            topics,
            metrics,
            store_away,
            outage: Mutex::default(),
            refusals: Mutex::default(),
        });
        let (outbox, outcomes) = bounded(count);
        let mut batches = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, inbox) = bounded::<PointBatch>(1);
            batches.push(sender);
            let mut writer =
                WriterThread { lane: number, shared: Arc::clone(&shared), writes: 0, retries: 0 };
            let outbox = outbox.clone();
            thread::Builder::new().name(format!("writer-{number}")).spawn(move || {
                let mut outcome = (number == 0).then(|| writer.check_access());
                loop {
                    if let Some(outcome) = outcome {
                        let refused = outcome.is_err();
                        // An error means that the sink has ended.
                        if outbox.send(outcome).is_err() || refused {
                            return;
                        }
                    }
                    let Ok(batch) = inbox.recv() else { return };
                    outcome = Some(writer.write(batch));
                }
            })?;
        }
        Ok(Writers { batches, outcomes })
    }

    /// Hands a batch to one of the threads. Call it only when that thread's last batch is done: then it doesn't block.
    pub fn hand_over(&self, number: usize, batch: PointBatch) {
        // A thread ends only after a refusal, which then waits in `outcomes`.
        let _ = self.batches[number].send(batch);
    }

    /// Returns a batch's outcome, waiting up to `wait`.
    ///
    /// # Errors
    /// When the store refuses us.
    pub fn outcome(&self, wait: Duration) -> Result<Option<Written>, StoreRefusal> {
        self.outcomes.recv_timeout(wait).ok().transpose()
    }
}

/// State that all threads share.
struct Shared<S> {
    store: Arc<S>,
    topics: Vec<String>,
    metrics: SinkMetrics,
    store_away: NotReady,
    outage: Mutex<Outage>,
    refusals: Mutex<LogLimiter<()>>,
}

/// The store as all threads see it.
#[derive(Default)]
struct Outage {
    /// Threads that wait.
    waiting: usize,
    since: Option<Instant>,
    /// The last logged reason, and its time.
    logged: Option<(String, Instant)>,
    /// Whether it has ever answered: we wait for a store that we trusted once.
    has_answered: bool,
}

impl<S: Store> Shared<S> {
    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a thread waits since `begun`, for the `first` time or still.
    fn waits(&self, first: bool, begun: Instant, reason: &str) {
        let mut outage = self.outage();
        outage.waiting += usize::from(first);
        let since = *outage.since.get_or_insert(begun);
        self.store_away.set(true);
        let is_news = |(logged, at): &(String, Instant)| logged != reason || at.elapsed() >= LOG_EVERY;
        if outage.logged.as_ref().is_none_or(is_news) {
            outage.logged = Some((reason.to_owned(), Instant::now()));
            let (address, seconds) = (self.store.address(), since.elapsed().as_secs());
            let name = self.store.name();
            tracing::warn!(address, reason, seconds, "{name} takes no points at the moment: waiting");
        }
    }

    /// Notes that a thread has its answer, and whether it waited for it.
    fn answers(&self, waited: bool) {
        let mut outage = self.outage();
        outage.has_answered = true;
        outage.waiting -= usize::from(waited);
        if outage.waiting > 0 {
            return;
        }
        if let Some(since) = outage.since.take() {
            tracing::info!(seconds = since.elapsed().as_secs_f64(), "{} answers again", self.store.name());
            self.store_away.set(false);
        }
    }

    /// Logs dropped or refused points; `origin` is `None` if unknown.
    fn log_refusal(&self, refused: usize, origin: Option<Origin>, reason: &str) {
        let mut log = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(silent) = log.allow((), Instant::now()) else { return };
        let name = self.store.name();
        match origin {
            Some(Origin { place, offset }) => {
                let (topic, partition, offset) = (&self.topics[place.topic], place.partition.0, offset.0);
                tracing::warn!(topic, partition, offset, reason, silent, "{name} refuses a point: skipped");
            }
            None => tracing::warn!(points = refused, reason, silent, "{name} dropped points: skipped"),
        }
    }
}

/// One writer thread.
struct WriterThread<S> {
    lane: usize,
    shared: Arc<Shared<S>>,
    /// Counted since the last finished batch, as `retries`.
    writes: u64,
    retries: u64,
}

impl<S: Store> WriterThread<S> {
    /// Checks write access.
    fn check_access(&mut self) -> Result<Written, StoreRefusal> {
        self.send(Store::check)?;
        self.write(PointBatch::default())
    }

    fn write(&mut self, batch: PointBatch) -> Result<Written, StoreRefusal> {
        let mut refused: BTreeMap<usize, u64> = BTreeMap::new();
        // Halve until the bad points are found; points written twice on the way overwrite themselves.
        let mut open: Vec<Range<usize>> = std::iter::once(0..batch.points()).collect();
        while let Some(range) = open.pop() {
            if range.is_empty() {
                continue;
            }
            match self.send(|store| store.write(batch.lines(range.clone())))? {
                Answer::Written => self.writes += 1,
                Answer::Partly { dropped, reason } => {
                    self.writes += 1;
                    // The store counts lines, of which a point may have two; and it doesn't name them.
                    let dropped = dropped.min(range.len());
                    let topic = batch.origin(range.start).place.topic;
                    *refused.entry(topic).or_default() += dropped as u64;
                    self.shared.log_refusal(dropped, None, &reason);
                }
                Answer::NotAsOne(_) if range.len() > 1 => open.extend(halves(&range)),
                Answer::NotAsOne(reason) => {
                    let origin = batch.origin(range.start);
                    *refused.entry(origin.place.topic).or_default() += 1;
                    self.shared.log_refusal(1, Some(origin), &reason);
                }
            }
        }
        self.count(&batch, &refused);
        let refused = refused.values().sum::<u64>() as usize;
        let (writes, retries) = (take(&mut self.writes), take(&mut self.retries));
        Ok(Written { lane: self.lane, batch, refused, writes, retries })
    }

    /// Sends until the store answers, however long that takes.
    fn send(&mut self, write: impl Fn(&S) -> WriteAnswer) -> Result<Answer, StoreRefusal> {
        let mut backoff = Backoff::default();
        let mut waited = false;
        loop {
            let begun = Instant::now();
            let answer = write(&self.shared.store);
            self.shared.metrics.write_seconds.observe(begun.elapsed().as_secs_f64());
            let (after, reason) = match answer {
                WriteAnswer::Wait { after, reason } => (after, reason),
                WriteAnswer::Doubtful(refusal) if self.shared.outage().has_answered => {
                    (None, refusal.to_string())
                }
                WriteAnswer::Doubtful(refusal) | WriteAnswer::Refused(refusal) => return Err(refusal),
                WriteAnswer::Written => return Ok(self.answered(waited, Answer::Written)),
                WriteAnswer::Partly { dropped, reason } => {
                    return Ok(self.answered(waited, Answer::Partly { dropped, reason }));
                }
                WriteAnswer::NotAsOne(reason) => return Ok(self.answered(waited, Answer::NotAsOne(reason))),
            };
            self.shared.waits(!waited, begun, &reason);
            waited = true;
            self.shared.metrics.retries.inc();
            self.retries += 1;
            thread::sleep(backoff.wait(after, chance()));
        }
    }

    fn answered(&self, waited: bool, answer: Answer) -> Answer {
        self.shared.answers(waited);
        answer
    }

    fn count(&self, batch: &PointBatch, refused: &BTreeMap<usize, u64>) {
        let mut points: BTreeMap<usize, u64> = BTreeMap::new();
        for point in 0..batch.points() {
            *points.entry(batch.origin(point).place.topic).or_default() += 1;
        }
        let metrics = &self.shared.metrics;
        for (topic, all) in points {
            let refused = refused.get(&topic).copied().unwrap_or(0).min(all);
            let topic = &self.shared.topics[topic];
            metrics.points.with_label_values(&[topic]).inc_by(all - refused);
            if refused > 0 {
                metrics.skipped.with_label_values(&[topic, "refused"]).inc_by(refused);
            }
        }
    }
}

/// A store's answer to a write.
enum Answer {
    Written,
    Partly {
        dropped: usize,
        reason: String,
    },
    /// Bad, or too large.
    NotAsOne(String),
}

/// Returns both halves, the first one on top of the stack.
fn halves(range: &Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [middle..range.end, range.start..middle]
}

/// Returns a random number from 0 to 1: each `RandomState` has its own keys.
fn chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}
