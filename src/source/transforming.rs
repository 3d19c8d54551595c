//! Applies `--transform` to new rows, and makes dead letters of those that a step fails on.
//!
//! A row is known by what it was before the steps ([`super::record`]): so one that a filter drops, or that fails, is
//! remembered like any other, in the same transaction, and is not looked at again.

use std::sync::Arc;
use std::time::Instant;

use genwatch_core::transform::record::Record;
use genwatch_core::transform::{Failure, Outcome, StepPlace, Transform};
use genwatch_core::types::Millis;
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::forward::ProducerLimits;

use super::config::{SourceConfig, SourceError};
use super::outgoing::{Outgoing, Target};
use super::record::SourceRow;
use crate::service::LogLimiter;
use crate::service::targets::{Route, Targets};

/// How far ahead of this machine's clock a record's timestamp may be, as in the bridge.
const MAX_AHEAD_MS: i64 = 60_000;

/// What becomes of a new row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Transformed {
    /// A record.
    Record(Outgoing),
    /// A step filtered it out.
    Filtered,
    /// Kafka doesn't say whether its target exists: read it again later.
    Later,
}

/// The steps, and what it takes to follow them. Owned by the source's loop.
pub(super) struct Transforming {
    transform: Arc<Transform>,
    targets: Targets,
    names: Names,
    limits: Limits,
    log: LogLimiter<String>,
}

/// The names in records.
struct Names {
    source: String,
    to_topic: String,
    worker: String,
}

/// What topics take.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    /// `message.timestamp.before.max.ms` of the source's topic.
    before_ms: Option<i64>,
    /// `max.message.bytes` of the dead letters.
    letter_bytes: Option<usize>,
}

/// What the steps say of a row.
enum Verdict {
    Unchanged,
    Changed(Changes),
    Filtered,
    Failed(Failure),
    Later,
}

/// What steps changed of a row; `None` is what it was.
struct Changes {
    target: Target,
    value: Option<Vec<u8>>,
    at: Option<Millis>,
}

impl Transforming {
    /// Requires the topics that rows may go to, if there are steps. Also returns what these topics take.
    ///
    /// # Errors
    /// When one is missing.
    pub(super) fn new(
        config: &SourceConfig,
        cluster: &Arc<Cluster>,
    ) -> Result<(Option<Transforming>, ProducerLimits), SourceError> {
        let Some(transform) = config.transform.clone() else { return Ok((None, ProducerLimits::default())) };
        let to_topic = config.to_topic.as_str();
        // First: it is the one that dead letters are named after.
        cluster.require(to_topic)?;
        if cluster.topic(&config.dead_letters)?.is_none() {
            let (topic, to_topic) = (config.dead_letters.clone(), to_topic.to_owned());
            return Err(SourceError::NoDeadLetters { topic, to_topic });
        }
        let own: Vec<&str> = config.own_topics.iter().map(String::as_str).collect();
        let targets = Targets::new(Arc::clone(cluster), Some(&*transform), &own)?;
        let most_bytes = |topic: &str| cluster.topic_config(topic, "max.message.bytes")?.parse().ok();
        let letter_bytes = most_bytes(&config.dead_letters);
        let fixed = transform.fixed_targets().map(|(topic, _)| topic);
        let batch_bytes = fixed.chain([to_topic]).filter_map(most_bytes).chain(letter_bytes).min();
        let before = cluster.topic_config(to_topic, "message.timestamp.before.max.ms");
        let before_ms = before.and_then(|value| value.parse().ok());
        let names = Names {
            source: config.name.clone(),
            to_topic: to_topic.to_owned(),
            worker: config.worker.clone(),
        };
        let limits = Limits { before_ms, letter_bytes };
        let transforming = Transforming { transform, targets, names, limits, log: LogLimiter::default() };
        Ok((Some(transforming), ProducerLimits { batch_bytes }))
    }

    /// The steps, in the order of the file.
    pub(super) fn steps(&self) -> impl Iterator<Item = &StepPlace> {
        self.transform.steps()
    }

    /// Applies the steps to a new row.
    pub(super) fn apply(&mut self, row: SourceRow, now: Millis) -> Transformed {
        match self.judge(&row, now) {
            Verdict::Unchanged => Transformed::Record(row.into()),
            Verdict::Changed(Changes { target, value, at }) => {
                let unchanged = Outgoing::from(row);
                Transformed::Record(Outgoing {
                    target,
                    value: value.or(unchanged.value),
                    at: at.unwrap_or(unchanged.at),
                    ..unchanged
                })
            }
            Verdict::Filtered => Transformed::Filtered,
            Verdict::Failed(failure) => Transformed::Record(self.dead_letter(row, &failure)),
            Verdict::Later => Transformed::Later,
        }
    }

    fn judge(&mut self, row: &SourceRow, now: Millis) -> Verdict {
        let record = Record {
            timestamp: Some(row.time.millis()),
            key: row.key.as_deref(),
            ..Record::new(&self.names.to_topic, &row.value)
        };
        let changed = match self.transform.apply(&record) {
            Ok(Outcome::Unchanged) => return Verdict::Unchanged,
            Ok(Outcome::Filtered(_)) => return Verdict::Filtered,
            Ok(Outcome::Changed(changed)) => *changed,
            Err(failure) => return Verdict::Failed(failure),
        };
        if let Some(set) = &changed.timestamp
            && let Err(cause) = self.limits.check(set.value, now)
        {
            return Verdict::Failed(set.step.failure(cause));
        }
        let mut target = Target::Own;
        if let Some(set) = changed.target.filter(|set| *set.value != self.names.to_topic) {
            match self.targets.check(&set.value, &self.names.to_topic) {
                Route::Open => target = Target::Routed(set.value.into_owned()),
                Route::Refused(cause) => return Verdict::Failed(set.step.failure(cause)),
                Route::Unknown => return Verdict::Later,
            }
        }
        Verdict::Changed(Changes {
            target,
            value: changed.fields.map(|fields| fields.to_json()),
            at: changed.timestamp.map(|set| set.value),
        })
    }

    /// The row as it came, with headers that say why.
    fn dead_letter(&mut self, row: SourceRow, failure: &Failure) -> Outgoing {
        let step = failure.step.label();
        if let Some(silent) = self.log.allow(step.clone(), Instant::now()) {
            let (time, reason) = (row.time, failure);
            tracing::warn!(%time, %reason, more_since_the_last_line = silent, "a row becomes a dead letter");
        }
        let origin = [("dlq.source", self.names.source.as_str())];
        let mut letter = Outgoing {
            target: Target::DeadLetters { step },
            headers: failure.dead_letter_headers(&self.names.to_topic, &origin, &self.names.worker),
            ..row.into()
        };
        if self.limits.letter_bytes.is_some_and(|most| !letter.fits(most)) {
            letter.drop_value();
        }
        letter
    }
}

impl Limits {
    /// Refuses a timestamp that the topic would refuse, and with it the whole transaction.
    fn check(self, at: Millis, now: Millis) -> Result<(), String> {
        if at.since(now) > MAX_AHEAD_MS {
            return Err(format!("the timestamp {} is more than a minute ahead", at.0));
        }
        match self.before_ms {
            Some(most) if now.since(at) > most => Err(format!(
                "the timestamp {} is older than the topic takes (message.timestamp.before.max.ms={most})",
                at.0
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "transforming/tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
