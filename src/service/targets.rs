//! Which topics a route of `--transform` may lead to: those that exist and aren't the group's own.
//!
//! Whoever writes the data may have a hand in the name of a topic, and Kafka may make every topic that somebody writes
//! to. So a service writes only to topics that were made on purpose. And whoever could write to the group's own topics
//! would forge alarm states, reports and cursors.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genwatch_core::transform::Transform;
use genwatch_kafka::admin::{Cluster, ClusterError};

/// How long a service waits for an answer, in its loop.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a topic counts as missing before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// The most topics remembered as missing; names beyond that are asked for each time.
const MISSING_MAX: usize = 1000;

/// Why no record may go to one of the group's own topics.
const OWN_RECORDS: &str = "the group keeps its own records there";

/// A topic that a step of the transformations names can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct TargetError {
    step: String,
    #[source]
    error: ClusterError,
}

/// A name for the output is that of one of the group's own topics.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {topic}: {OWN_RECORDS}")]
pub struct OwnTopic {
    what: String,
    topic: String,
}

/// Whether a record may go to a topic.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// It may.
    Open,
    /// It may not, for this reason.
    Refused(String),
    /// Kafka doesn't say whether the topic exists.
    Unknown,
}

/// Refuses a topic for the output, named by `what`, that is one of the group's own.
///
/// # Errors
/// When it is.
pub fn refuse_own(what: &str, topic: &str, own: &[&str]) -> Result<(), OwnTopic> {
    if own.contains(&topic) {
        return Err(OwnTopic { what: what.to_owned(), topic: topic.to_owned() });
    }
    Ok(())
}

/// The known topics. Owned by a service's loop.
pub struct Targets {
    /// `None` if no step routes.
    cluster: Option<Arc<Cluster>>,
    /// The group's own topics.
    own: Vec<String>,
    known: HashSet<String>,
    missing: HashSet<String>,
    /// When the oldest of `missing` was asked for.
    since: Instant,
}

impl Targets {
    /// Requires the targets that the steps name; asks for others when a record goes there. `own`: the group's own
    /// topics, where none may go.
    ///
    /// # Errors
    /// When one is missing, with the step that names it.
    pub fn new(
        cluster: Arc<Cluster>,
        transform: Option<&Transform>,
        own: &[&str],
    ) -> Result<Targets, TargetError> {
        let mut known = HashSet::new();
        for (name, step) in transform.iter().flat_map(|transform| transform.fixed_targets()) {
            cluster.require(name).map_err(|error| TargetError { step: step.to_string(), error })?;
            known.insert(name.to_owned());
        }
        let cluster = transform.is_some_and(Transform::routes).then_some(cluster);
        let own = own.iter().map(|topic| (*topic).to_owned()).collect();
        Ok(Targets { cluster, own, known, missing: HashSet::new(), since: Instant::now() })
    }

    /// Whether a record may go to the topic, instead of to `default`.
    pub fn check(&mut self, topic: &str, default: &str) -> Route {
        if self.own.iter().any(|own| own == topic) {
            return Route::Refused(format!("no record goes to {topic}: {OWN_RECORDS}"));
        }
        match self.has(topic) {
            Some(true) => Route::Open,
            Some(false) => Route::Refused(format!(
                "there is no topic {topic}, or this principal may not see it: create it, with as many partitions as \
                 {default}"
            )),
            None => Route::Unknown,
        }
    }

    /// Whether the topic exists; `None` while Kafka doesn't answer.
    fn has(&mut self, topic: &str) -> Option<bool> {
        if self.known.contains(topic) {
            return Some(true);
        }
        if self.since.elapsed() >= ASK_AGAIN || self.missing.len() >= MISSING_MAX {
            self.missing.clear();
        }
        if self.missing.contains(topic) {
            return Some(false);
        }
        let found = self.cluster.as_ref()?.has_topic(topic, ASK_TIMEOUT).ok()?;
        if !found && self.missing.is_empty() {
            self.since = Instant::now();
        }
        let set = if found { &mut self.known } else { &mut self.missing };
        set.insert(topic.to_owned());
        Some(found)
    }

    /// Targets that are told apart without a cluster.
    #[cfg(test)]
    pub(crate) fn of(known: &[&str], missing: &[&str], own: &[&str]) -> Targets {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let own = own.iter().map(|name| (*name).to_owned()).collect();
        Targets { cluster: None, own, known: set(known), missing: set(missing), since: Instant::now() }
    }
}
