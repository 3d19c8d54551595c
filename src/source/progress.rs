//! The side of Kafka: rows and what a source remembers, in one transaction, written by one owner.
//!
//! **One owner.** The transactional id derives from the source's name. Registering it fences whoever had it before,
//! and ends its open transaction. Then the cursor is read as committed, and written again with this process's instance
//! in it. A process that finds itself fenced, or whose transaction failed, looks there first: with another instance in
//! the cursor it has been replaced and ends; with its own it registers again.
//!
//! **No doubt.** After any failure all that is in memory is dropped, and read again from Kafka. So a transaction whose
//! end is unknown has either happened or not, and the scan begins again at the floor.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genwatch_core::types::TopicId;
use genwatch_kafka::admin::{Cluster, ClusterError, TopicPlan};
use genwatch_kafka::clock;
use genwatch_kafka::config::Connection;
use genwatch_kafka::forward::ProducerLimits;
use genwatch_kafka::topic_reader::{StartAt, TopicReader};
use genwatch_kafka::topics::TopicConfig;
use genwatch_kafka::transactions::{TransactionFailure, TransactionRecord, TransactionalWriter};
use uuid::Uuid;

use super::config::SourceError;
use super::cursor::{Cursor, StateFold, StateKey, chunk_value};
use super::outgoing::{Outgoing, Target};
use super::seen::Seen;
use super::time::Nanos;
use crate::service::{Context, LogLimiter, NotReady};

/// How long a stopping source waits for its last transaction: `docker stop` kills after ten seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay before Kafka is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a newer process may take to claim the cursor after it has fenced this one.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a fenced process looks for a claim; its own open transaction may hide the end of the topic.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the cluster may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one turn of reading waits.
const READ_STEP: Duration = Duration::from_millis(50);

/// Who is a source, and where it writes.
pub(super) struct Names {
    pub(super) name: String,
    pub(super) to_topic: String,
    pub(super) cursors: String,
    /// A digest of the query.
    pub(super) query: String,
    /// More topics that must stay: those that steps name, and the dead letters.
    pub(super) targets: BTreeSet<String>,
    /// Where rows go that a step fails on; empty without steps.
    pub(super) dead_letters: String,
}

/// What it takes to write.
pub(super) struct Writing<'a> {
    pub(super) group: &'a str,
    pub(super) connection: Connection,
    pub(super) limits: ProducerLimits,
    pub(super) cluster: Arc<Cluster>,
    pub(super) kafka_away: NotReady,
}

/// How far the source is, and the only way to get further.
pub(super) struct Progress {
    pub(super) cursor: Cursor,
    pub(super) seen: Seen,
    pub(super) names: Names,
    connection: Connection,
    cluster: Arc<Cluster>,
    writer: TransactionalWriter,
    context: Context,
    kafka_away: NotReady,
    /// The id of the topic of cursors, if the brokers know ids.
    topic_id: Option<TopicId>,
    stopping: Cell<Option<Instant>>,
    /// Where steps sent rows of a transaction that has not succeeded.
    routed: BTreeSet<String>,
    log: LogLimiter<()>,
}

/// How an attempt to commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Committed {
    /// It is durable.
    Done,
    /// It failed, and what is committed has been read again: read the slice again.
    Again,
    /// The source stops.
    Stopped,
}

impl Progress {
    /// Becomes the owner: creates the topic of cursors if it is missing, fences others, reads the cursor and claims it.
    /// `None` if the source stops meanwhile. `from` is where a source without a cursor begins.
    pub(super) fn begin(
        names: Names,
        writing: Writing<'_>,
        context: Context,
        from: Nanos,
    ) -> Result<Option<Progress>, SourceError> {
        let Writing { group, connection, limits, cluster, kafka_away } = writing;
        cluster.require(&names.to_topic)?;
        ensure_topic(&cluster, &names.cursors)?;
        let topic_id = cluster.topic_ids(&[&names.cursors])?.remove(&names.cursors).flatten();
        let writer = TransactionalWriter::new(&connection, &format!("{group}-source-{}", names.name), limits);
        let cursor = Cursor {
            instance: Uuid::new_v4().to_string(),
            at: clock::now(),
            cursor: from,
            floor: from,
            query: names.query.clone(),
            rows: 0,
        };
        let mut progress = Progress {
            cursor,
            seen: Seen::default(),
            names,
            connection,
            cluster,
            writer,
            context,
            kafka_away,
            topic_id,
            stopping: Cell::new(None),
            routed: BTreeSet::new(),
            log: LogLimiter::default(),
        };
        Ok(progress.claim()?.then_some(progress))
    }

    /// Fences others and writes the cursor with our instance in it.
    fn claim(&mut self) -> Result<bool, SourceError> {
        loop {
            let ours = self.cursor.clone();
            if !self.register()? {
                return Ok(false);
            }
            match self.load(None)? {
                None => return Ok(false),
                Some((Some(found), seen)) => self.resume(&ours, found, seen),
                Some((None, _)) => {
                    let from = ours.cursor;
                    tracing::info!(source = self.names.name, %from, "a new source: no cursor yet");
                }
            }
            let again = match self.write(&[], Vec::new()) {
                Ok(()) => return Ok(true),
                Err(TransactionFailure::GivenUp(_)) => return Ok(false),
                // An older one has registered again, and will find that it has been replaced.
                Err(TransactionFailure::Fenced(reason) | TransactionFailure::InDoubt(reason)) => reason,
                Err(failure) => return Err(SourceError::Transaction(failure)),
            };
            tracing::warn!(reason = again, "the cursor can't be claimed yet");
            self.cursor = ours;
            if !self.sleep(RETRY_AFTER) {
                return Ok(false);
            }
        }
    }

    fn resume(&mut self, ours: &Cursor, found: Cursor, seen: Seen) {
        let is_same_query = found.query == ours.query;
        self.cursor = Cursor { instance: ours.instance.clone(), query: ours.query.clone(), ..found };
        self.seen = seen;
        let (cursor, rows) = (self.cursor.cursor, self.cursor.rows);
        if is_same_query {
            tracing::info!(source = self.names.name, %cursor, rows, "continuing; --from is not used");
        } else if rows == 0 {
            // Nothing came of the old query: perhaps it was wrong.
            (self.cursor.cursor, self.cursor.floor) = (ours.cursor, ours.floor);
            tracing::info!(source = self.names.name, from = %ours.cursor, "another query, and no row yet");
        } else {
            // The rows of another query would all be new.
            self.cursor.floor = Nanos(cursor.0.saturating_add(1));
            tracing::warn!(
                source = self.names.name,
                %cursor,
                rows,
                "the query has changed: it begins after the newest row of the old one, and late rows of before are not found"
            );
        }
    }

    /// Commits these records with the cursor at `newest`, and the digests of all rows observed: also of those that
    /// were filtered out, so many.
    pub(super) fn commit(
        &mut self,
        records: &[Outgoing],
        filtered: u64,
        newest: Nanos,
        floor: Nanos,
    ) -> Result<Committed, SourceError> {
        if !self.writer.may_write() {
            return self.recover(&TransactionFailure::InDoubt("a connection to Kafka broke".to_owned()));
        }
        self.cursor.cursor = self.cursor.cursor.max(newest);
        self.cursor.floor = self.cursor.floor.max(floor);
        self.cursor.rows += records.len() as u64 + filtered;
        let changes = self.seen.commit(self.cursor.floor);
        self.routed = records.iter().filter_map(Outgoing::routed_to).map(str::to_owned).collect();
        match self.write(records, changes) {
            Ok(()) => {
                self.routed.clear();
                self.kafka_away.set(false);
                Ok(Committed::Done)
            }
            Err(failure @ (TransactionFailure::Refused { .. } | TransactionFailure::NotRegistered(_))) => {
                self.refused(failure)
            }
            Err(failure) => self.recover(&failure),
        }
    }

    /// A topic that was deleted has a better reason than the broker's.
    fn refused(&mut self, failure: TransactionFailure) -> Result<Committed, SourceError> {
        self.check_topics()?;
        Err(SourceError::Transaction(failure))
    }

    fn write(
        &mut self,
        records: &[Outgoing],
        changes: Vec<super::seen::ChunkChange>,
    ) -> Result<(), TransactionFailure> {
        self.cursor.at = clock::now();
        let Names { name, to_topic, cursors, dead_letters, .. } = &self.names;
        // A cursor has no value that can't be encoded.
        let cursor = serde_json::to_vec(&self.cursor).unwrap_or_default();
        let chunks: Vec<(String, Option<Vec<u8>>)> = changes
            .iter()
            .map(|change| (StateKey::Chunk(change.chunk).to_text(name), chunk_value(change)))
            .collect();
        let rows = records.iter().map(|record| TransactionRecord {
            topic: match &record.target {
                Target::Own => to_topic,
                Target::Routed(topic) => topic,
                Target::DeadLetters { .. } => dead_letters,
            },
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            timestamp: Some(record.at),
            headers: &record.headers,
        });
        let chunks = chunks.iter().map(|(key, value)| TransactionRecord {
            topic: cursors,
            key: Some(key.as_bytes()),
            value: value.as_deref(),
            timestamp: None,
            headers: &[],
        });
        let cursor = TransactionRecord {
            topic: cursors,
            key: Some(name.as_bytes()),
            value: Some(&cursor),
            timestamp: None,
            headers: &[],
        };
        let (context, stopping) = (&self.context, &self.stopping);
        self.writer.commit(rows.chain(chunks).chain([cursor]), || {
            context.health.heartbeat();
            has_to_stop(context, stopping)
        })
    }

    /// Finds out what is committed, and whether this process still is the owner.
    fn recover(&mut self, failure: &TransactionFailure) -> Result<Committed, SourceError> {
        if let TransactionFailure::GivenUp(_) = failure {
            return Ok(Committed::Stopped);
        }
        self.kafka_away.set(true);
        if let Some(more) = self.log.allow((), Instant::now()) {
            let reason = failure.to_string();
            tracing::warn!(
                reason,
                more_since_the_last_line = more,
                "a transaction failed: reading the cursor again"
            );
        }
        let is_fenced = matches!(failure, TransactionFailure::Fenced(_));
        if is_fenced && !self.sleep(CLAIM_TIMEOUT) {
            return Ok(Committed::Stopped);
        }
        loop {
            match self.try_recover() {
                Ok(Some(())) => return Ok(Committed::Again),
                Ok(None) => return Ok(Committed::Stopped),
                Err(
                    error @ (SourceError::Cluster(
                        ClusterError::Unreachable { .. } | ClusterError::Failed { .. },
                    )
                    | SourceError::Client(_)
                    | SourceError::Reader(_)),
                ) => {
                    if let Some(more) = self.log.allow((), Instant::now()) {
                        let reason = genwatch_kafka::error::Chain(&error).to_string();
                        tracing::warn!(
                            reason,
                            more_since_the_last_line = more,
                            "waiting for Kafka; nothing is lost"
                        );
                    }
                    if !self.sleep(RETRY_AFTER) {
                        return Ok(Committed::Stopped);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_recover(&mut self) -> Result<Option<()>, SourceError> {
        // Every other request would wait for long.
        self.cluster.ping(PING_TIMEOUT)?;
        self.check_topics()?;
        // Before registering, which would fence a newer process.
        if let Some((Some(found), _)) = self.load(Some(LOOK_TIMEOUT))? {
            self.check_owner(&found)?;
        }
        if !self.register()? {
            return Ok(None);
        }
        let Some((found, seen)) = self.load(None)? else { return Ok(None) };
        let Some(found) = found else {
            let (topic, name) = (self.names.cursors.clone(), self.names.name.clone());
            return Err(SourceError::CursorGone { topic, name });
        };
        self.check_owner(&found)?;
        (self.cursor, self.seen) = (found, seen);
        Ok(Some(()))
    }

    fn check_owner(&self, found: &Cursor) -> Result<(), SourceError> {
        if found.instance == self.cursor.instance {
            return Ok(());
        }
        Err(SourceError::Replaced { name: self.names.name.clone() })
    }

    /// Checks that the topics still exist, and that the cursors' is the same. Looks twice: a broker that has just
    /// started may not know all topics yet.
    pub(super) fn check_topics(&self) -> Result<(), SourceError> {
        match self.look_for_topics() {
            Err(SourceError::CursorGone { .. } | SourceError::Cluster(ClusterError::MissingTopic { .. }))
                if self.sleep(CLAIM_TIMEOUT) =>
            {
                self.look_for_topics()
            }
            looked => looked,
        }
    }

    fn look_for_topics(&self) -> Result<(), SourceError> {
        for topic in [&self.names.to_topic].into_iter().chain(&self.names.targets).chain(&self.routed) {
            self.cluster.require(topic)?;
        }
        let gone =
            || SourceError::CursorGone { topic: self.names.cursors.clone(), name: self.names.name.clone() };
        match self.cluster.require(&self.names.cursors) {
            Err(ClusterError::MissingTopic { .. }) => return Err(gone()),
            found => found?,
        };
        let id = self.cluster.topic_ids(&[&self.names.cursors])?.remove(&self.names.cursors).flatten();
        match id == self.topic_id {
            true => Ok(()),
            false => Err(gone()),
        }
    }

    fn register(&mut self) -> Result<bool, SourceError> {
        let (context, stopping) = (&self.context, &self.stopping);
        let registered = self.writer.register(|| {
            context.health.heartbeat();
            has_to_stop(context, stopping)
        });
        match registered {
            Ok(()) => Ok(true),
            Err(TransactionFailure::GivenUp(_)) => Ok(false),
            Err(failure) => Err(SourceError::Transaction(failure)),
        }
    }

    /// Reads the topic of cursors as committed, for so long at most; `None` if the source stops meanwhile.
    fn load(&self, limit: Option<Duration>) -> Result<Option<(Option<Cursor>, Seen)>, SourceError> {
        let begun = Instant::now();
        let mut fold = StateFold::new(&self.names.name);
        let from = StartAt::Beginning;
        let mut reader = TopicReader::new(&self.connection, &self.cluster, &self.names.cursors, from)?;
        while !reader.at_end() && limit.is_none_or(|limit| begun.elapsed() < limit) {
            self.context.health.heartbeat();
            if has_to_stop(&self.context, &self.stopping) {
                return Ok(None);
            }
            reader.read(READ_STEP, |record| -> Result<(), SourceError> {
                fold.apply(record.key, record.value);
                Ok(())
            })?;
        }
        Ok(Some(fold.finish()?))
    }

    /// Sleeps; returns whether the source goes on.
    fn sleep(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        while Instant::now() < deadline {
            self.context.health.heartbeat();
            if self.context.is_stopping() {
                return false;
            }
            std::thread::sleep(READ_STEP);
        }
        true
    }
}

/// Whether a stop was requested long enough ago.
fn has_to_stop(context: &Context, stopping: &Cell<Option<Instant>>) -> bool {
    if !context.is_stopping() {
        return false;
    }
    let since = stopping.get().unwrap_or_else(Instant::now);
    stopping.set(Some(since));
    since.elapsed() > STOP_TIMEOUT
}

fn ensure_topic(cluster: &Cluster, topic: &str) -> Result<(), SourceError> {
    if cluster.topic(topic)?.is_none() {
        let plan = TopicPlan::like_its_cluster(cluster, topic, 1, TopicConfig::of_cursors())?;
        if cluster.create(&plan)? {
            tracing::info!(topic, "created the topic of sources' cursors");
        }
    }
    cluster.require_compacted(topic, "a cursor has to be kept until the next one")?;
    Ok(())
}
