//! Handles topics that are deleted or recreated under a running worker.
//!
//! Nothing is lost while one is missing: without readings there's nothing to process, without one of the others no
//! commit succeeds. So the worker waits, and logs for which topic.

use std::collections::BTreeSet;

use genwatch_kafka::topic_watch::TopicsFound;

use super::work::Work;
use super::{Observed, Worker};

impl<H: Observed, W: Work<H>> Worker<H, W> {
    pub(super) fn follow_topics(&mut self, found: TopicsFound) {
        self.tell_missing(found.missing);
        if let Some(id) = &found.readings {
            self.engine.topic(id);
        }
        for topic in found.anew {
            if topic != self.topics.readings {
                self.follow_companion(&topic);
            }
        }
    }

    fn tell_missing(&mut self, missing: BTreeSet<String>) {
        let worker = &self.config.name;
        for topic in missing.difference(&self.missing_topics) {
            let consequence = if *topic == self.topics.readings {
                "there is nothing to process"
            } else {
                "commits wait for it"
            };
            tracing::error!(
                worker,
                "topic {topic} does not exist any more: {consequence}, and nothing is lost; recreate it with \
                 `genwatch topics create`"
            );
        }
        for topic in self.missing_topics.difference(&missing) {
            tracing::info!(worker, "topic {topic} exists again");
        }
        self.instruments.not_ready.topic_missing.set(!missing.is_empty());
        self.missing_topics = missing;
    }

    /// Handles a recreated companion topic. The old producer may never find its leaders: it accepts no leader epoch
    /// below the one it knows.
    fn follow_companion(&mut self, topic: &str) {
        self.committer.renew();
        if topic == self.topics.state {
            let states = self.engine.store_states();
            tracing::warn!(
                worker = self.config.name,
                states,
                "topic {topic} was deleted and recreated: the alarm states of this worker's partitions are written \
                 to it again; those of partitions without a worker are gone"
            );
        } else {
            tracing::warn!(worker = self.config.name, "topic {topic} was deleted and recreated");
        }
    }
}
