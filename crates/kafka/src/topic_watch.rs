//! Whether the topics exist, and whether they were recreated: asks for their ids at each start of a partition and every
//! few seconds after.
//!
//! Otherwise a topic that is deleted under a running worker is noticed late and never reported by name; and if it is
//! recreated, librdkafka continues at the old offset, in whatever log it finds there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use genwatch_core::types::TopicId;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::admin::is_embedded;
use super::config::Context;
use super::error::ClientError;
use super::native::topics::{DescribedTopic, describe_topics};
use super::topics::HandlerTopics;

/// How often a running worker asks.
const EVERY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_millis(1000);
/// For requests about all topics of a cluster.
const ALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches the topics that a worker uses.
#[derive(Debug)]
pub struct TopicWatch {
    readings: String,
    /// All of them.
    names: Vec<String>,
    asked: Instant,
    /// The last known id of each.
    ids: BTreeMap<String, TopicId>,
    /// What was missing at the last check. (A broker that has just started may not know all of them yet.)
    suspects: BTreeSet<String>,
    /// What has been missing for longer.
    missing: BTreeSet<String>,
    /// Whether it was logged that the brokers know no ids.
    told: bool,
}

/// The state of the topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicsFound {
    /// The id of the readings topic; `None` if it is missing or the brokers know no ids.
    pub readings: Option<TopicId>,
    /// The topics that have been missing for some seconds.
    pub missing: BTreeSet<String>,
    /// Those recreated since the last check: they were missing, or have another id.
    pub anew: BTreeSet<String>,
}

impl TopicWatch {
    /// Watches these topics.
    #[must_use]
    pub fn new(topics: &HandlerTopics) -> TopicWatch {
        let names = std::iter::once(topics.readings.clone()).chain(topics.companions());
        TopicWatch {
            readings: topics.readings.clone(),
            names: names.collect(),
            asked: Instant::now(),
            ids: BTreeMap::new(),
            suspects: BTreeSet::new(),
            missing: BTreeSet::new(),
            told: false,
        }
    }

    /// Returns the id of the readings topic; `None` if the brokers know no ids.
    ///
    /// # Errors
    /// When no broker answers, or the topic doesn't exist at the moment.
    pub(crate) fn ask(&mut self, client: &BaseConsumer<Context>) -> Result<Option<TopicId>, ClientError> {
        if is_embedded(client, TIMEOUT) {
            // It doesn't answer this request.
            return Ok(None);
        }
        match describe_topics(client, &[&self.readings], TIMEOUT)?.into_iter().next() {
            Some(DescribedTopic::There { id, .. }) => {
                self.tell_of_no_ids(id.is_none());
                Ok(id)
            }
            Some(DescribedTopic::Missing { .. }) | None => Err(ClientError::new(
                RDKafkaErrorCode::UnknownTopicOrPartition,
                format!("topic {} does not exist at the moment", self.readings),
            )),
        }
    }

    fn tell_of_no_ids(&mut self, none: bool) {
        if none && !std::mem::replace(&mut self.told, none) {
            tracing::warn!(
                topic = self.readings,
                "the brokers know no topic ids (before Kafka 2.8): a deleted and recreated topic goes unnoticed"
            );
        }
    }

    /// Returns the state of all topics, if a check is due and there is an answer.
    pub(crate) fn look(&mut self, client: &BaseConsumer<Context>) -> Option<TopicsFound> {
        if self.asked.elapsed() < EVERY {
            return None;
        }
        self.asked = Instant::now();
        if is_embedded(client, TIMEOUT) {
            return None;
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let topics = describe_topics(client, &names, TIMEOUT)
            .map_err(|error| tracing::debug!(%error, topic = self.readings, "cannot describe the topics"))
            .ok()?;
        let (mut there, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for topic in topics {
            match topic {
                DescribedTopic::There { name, id: Some(id) } => {
                    there.insert(name, id);
                }
                DescribedTopic::There { id: None, .. } => {}
                DescribedTopic::Missing { name } => {
                    missing.insert(name);
                }
            }
        }
        let suspects = std::mem::replace(&mut self.suspects, missing);
        let missing: BTreeSet<String> = self.suspects.intersection(&suspects).cloned().collect();
        let mut anew: BTreeSet<String> = self.missing.difference(&missing).cloned().collect();
        self.missing.clone_from(&missing);
        let readings = there.get(&self.readings).cloned();
        for (topic, id) in there {
            if self.ids.insert(topic.clone(), id.clone()).is_some_and(|known| known != id) {
                anew.insert(topic);
            }
        }
        Some(TopicsFound { readings, missing, anew })
    }

    /// Returns the name of a topic with one of these ids, if there is one that we may see.
    ///
    /// # Errors
    /// When no broker answers.
    pub(crate) fn owner(
        &self,
        ids: &[TopicId],
        client: &BaseConsumer<Context>,
    ) -> Result<Option<String>, ClientError> {
        let metadata = client.fetch_metadata(None, ALL_TIMEOUT).map_err(|error| {
            ClientError::new(
                error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
                error.to_string(),
            )
        })?;
        let names: Vec<&str> = metadata.topics().iter().map(MetadataTopic::name).collect();
        let topics = describe_topics(client, &names, ALL_TIMEOUT)?;
        let name_of_one = |topic: DescribedTopic| match topic {
            DescribedTopic::There { name, id: Some(id) } if ids.contains(&id) => Some(name),
            DescribedTopic::There { .. } | DescribedTopic::Missing { .. } => None,
        };
        Ok(topics.into_iter().find_map(name_of_one))
    }
}
