//! Which making of the readings topic there is: its id, asked for at each start of a partition and every few seconds after.
//!
//! A topic that is deleted and made again under a running worker is otherwise noticed late or not at all: librdkafka goes on
//! at the old offset, in whatever log it finds there.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::admin::is_embedded;
use super::config::Context;
use super::consumer::ClientError;
use super::native::topics::{DescribedTopic, describe_topics};
use crate::log::TopicId;

/// How often a running worker asks.
const EVERY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_millis(1000);
/// Of all topics of a cluster.
const ALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for the id of one topic.
#[derive(Debug)]
pub struct TopicWatch {
    topic: String,
    asked: Instant,
    /// Whether it was told that the brokers know no ids.
    told: bool,
}

impl TopicWatch {
    /// For the topic of this name.
    #[must_use]
    pub fn new(topic: &str) -> TopicWatch {
        TopicWatch { topic: topic.to_owned(), asked: Instant::now(), told: false }
    }

    /// The topic's id; `None` where the brokers know no ids.
    ///
    /// # Errors
    /// When no broker answers, or the topic doesn't exist at the moment.
    pub fn ask(&mut self, client: &BaseConsumer<Context>) -> Result<Option<TopicId>, ClientError> {
        self.asked = Instant::now();
        if is_embedded(client, TIMEOUT) {
            // It would not answer.
            return Ok(None);
        }
        let found = describe_topics(client, &[&self.topic], TIMEOUT)?.into_iter().next();
        let Some(DescribedTopic { id, .. }) = found else {
            return Err(ClientError {
                code: RDKafkaErrorCode::UnknownTopicOrPartition,
                reason: format!("there is no topic {} at the moment", self.topic),
            });
        };
        if id.is_none() && !self.told {
            self.told = true;
            tracing::warn!(
                topic = self.topic,
                "the brokers know no topic ids (before Kafka 2.8): a topic that is deleted and made anew isn't noticed"
            );
        }
        Ok(id)
    }

    /// The same, if it's time again and there is an answer.
    pub fn ask_again(&mut self, client: &BaseConsumer<Context>) -> Option<TopicId> {
        if self.asked.elapsed() < EVERY {
            return None;
        }
        match self.ask(client) {
            Ok(id) => id,
            Err(error) => {
                tracing::debug!(%error, topic = self.topic, "no topic id");
                None
            }
        }
    }

    /// The name of a topic that has one of these ids, if there is one that we may see.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn owner(
        &self,
        ids: &[TopicId],
        client: &BaseConsumer<Context>,
    ) -> Result<Option<String>, ClientError> {
        let metadata = client.fetch_metadata(None, ALL_TIMEOUT).map_err(|error| ClientError {
            code: error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
            reason: error.to_string(),
        })?;
        let names: Vec<&str> = metadata.topics().iter().map(MetadataTopic::name).collect();
        let has_one = |topic: &DescribedTopic| topic.id.as_ref().is_some_and(|id| ids.contains(id));
        let topics = describe_topics(client, &names, ALL_TIMEOUT)?;
        Ok(topics.into_iter().find(has_one).map(|topic| topic.name))
    }
}
