//! What becomes of the worker when a topic is deleted, or made anew, under it.
//!
//! Nothing is lost while one is missing: without the readings there's nothing to work, without one of the others no commit
//! succeeds. So the worker waits, and says for which topic.

use std::collections::{BTreeMap, BTreeSet};

use super::Worker;
use crate::health::Obstacle;
use crate::kafka::topic_watch::Found;
use crate::log::TopicId;

/// What is known of the topics.
#[derive(Debug, Default)]
pub(super) struct Known {
    ids: BTreeMap<String, TopicId>,
    missing: BTreeSet<String>,
}

impl Worker {
    pub(super) fn follow_topics(&mut self, found: Found) {
        let mut anew = self.tell_missing(found.missing);
        for (topic, id) in found.ids {
            let known = self.known.ids.insert(topic.clone(), id.clone());
            if topic == self.topics.readings {
                self.engine.topic(&id);
            } else if known.is_some_and(|known| known != id) {
                anew.insert(topic);
            }
        }
        anew.remove(&self.topics.readings);
        for topic in anew {
            self.follow_companion(&topic);
        }
    }

    /// Gives those that were missing and aren't any more.
    fn tell_missing(&mut self, missing: BTreeSet<String>) -> BTreeSet<String> {
        let worker = &self.config.name;
        for topic in missing.difference(&self.known.missing) {
            let consequence = if *topic == self.topics.readings {
                "there is nothing to work"
            } else {
                "commits wait for it"
            };
            tracing::error!(
                worker,
                "topic {topic} does not exist any more: {consequence}, and nothing is lost; make it again with `genwatch topics create`"
            );
        }
        let back: BTreeSet<String> = self.known.missing.difference(&missing).cloned().collect();
        for topic in &back {
            tracing::info!(worker, "topic {topic} is there again");
        }
        self.observers.health.set(Obstacle::TopicMissing, !missing.is_empty());
        self.known.missing = missing;
        back
    }

    /// A companion topic was made anew. The producer may never find its leaders: it takes no leader epoch below the one it knows.
    fn follow_companion(&mut self, topic: &str) {
        self.committer.renew();
        if topic == self.topics.state {
            let states = self.engine.store_states();
            tracing::warn!(
                worker = self.config.name,
                states,
                "topic {topic} was deleted and made anew: the alarm states of this worker's partitions are written to it again; \
                 those of partitions that nobody worked are gone"
            );
        } else {
            tracing::warn!(worker = self.config.name, "topic {topic} was deleted and made anew");
        }
    }
}
