//! Which topics a route may lead to: those that exist.
//!
//! A device may have a hand in the name of a topic, and Kafka may make every topic that somebody writes to. So the
//! bridge writes only to topics that were made on purpose.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use genwatch_core::transform::Transform;
use genwatch_kafka::admin::Cluster;

use super::BridgeError;

/// How long the bridge waits for an answer, in its loop.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a topic counts as missing before the bridge asks again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// The most topics remembered as missing; names beyond that are asked for each time.
const MISSING_MAX: usize = 1000;

/// The known topics. Owned by the bridge's loop.
pub(super) struct Targets {
    /// `None` if no step routes.
    cluster: Option<Cluster>,
    known: HashSet<String>,
    missing: HashSet<String>,
    /// When the oldest of `missing` was asked for.
    since: Instant,
}

impl Targets {
    /// Requires the targets that the steps name; asks for others when a message goes there.
    ///
    /// # Errors
    /// When one is missing, with the step that names it.
    pub(super) fn new(cluster: Cluster, transform: Option<&Transform>) -> Result<Targets, BridgeError> {
        let mut known = HashSet::new();
        for (name, step) in transform.iter().flat_map(|transform| transform.fixed_targets()) {
            let missing = |error| BridgeError::Target { step: step.to_string(), error };
            cluster.require(name).map_err(missing)?;
            known.insert(name.to_owned());
        }
        let cluster = transform.is_some_and(Transform::routes).then_some(cluster);
        Ok(Targets { cluster, known, missing: HashSet::new(), since: Instant::now() })
    }

    /// Whether the topic exists; `None` while Kafka doesn't answer.
    pub(super) fn has(&mut self, topic: &str) -> Option<bool> {
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
}
