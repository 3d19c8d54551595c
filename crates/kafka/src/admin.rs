//! Topics: what exists and what is missing. Every command asks here first, so that a mistake becomes one clear line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use genwatch_core::types::{Offset, PartitionId, TopicId};
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::ClientContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::config::{Connection, Context, Isolation};
use super::error::ClientError;
use super::native::groups::list_groups;
pub use super::native::groups::{ListedGroup, ListedGroups};
use super::native::topics::{DescribedTopic, describe_topics};
use super::topics::{Cleanup, TopicConfig};

/// How long to wait for a cluster at startup. A command that can't start says so within 15 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for one answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the brokers may take to propagate a topic's growth.
const METADATA_SPREADS: Duration = Duration::from_secs(3);

/// A reachable cluster.
pub struct Cluster {
    brokers: String,
    client: BaseConsumer<Context>,
    admin: AdminClient<Context>,
    /// An embedded broker doesn't answer admin requests; they would time out.
    embedded: bool,
}

/// What went wrong with the cluster or a topic, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No broker answers.
    #[error(
        "no broker answers at {brokers}: {reason}; check --brokers, that Kafka runs there, and \
             -X security.protocol if it wants TLS or a password"
    )]
    Unreachable {
        /// As given by `--brokers`.
        brokers: String,
        /// What librdkafka said.
        reason: String,
    },
    /// The brokers reject our credentials.
    #[error("the brokers at {brokers} reject this client: {reason}; check the security settings given by -X")]
    Refused {
        /// As given by `--brokers`.
        brokers: String,
        /// What librdkafka said.
        reason: String,
    },
    /// We may not see or use a topic.
    #[error("not authorized for topic {topic}: ask for its ACLs (describe, read or write)")]
    Unauthorized {
        /// The topic.
        topic: String,
    },
    /// A topic is missing.
    #[error("topic {topic} does not exist: create it by `genwatch topics create`")]
    MissingTopic {
        /// The topic.
        topic: String,
    },
    /// Two topics that must have the same partition count don't.
    #[error(
        "topic {topic} has {found} partitions and {reference} has {expected}: they must be equal, as a generator's \
         records keep their partition number; delete {topic} (and let it be recreated) or grow {reference} to {found}"
    )]
    PartitionMismatch {
        /// The wrong topic.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
        /// The topic with the right count.
        reference: String,
    },
    /// A topic's configuration makes it unusable.
    #[error("topic {topic} has cleanup.policy={found}, it needs {needed}: {consequence}")]
    WrongCleanup {
        /// The topic.
        topic: String,
        /// What it has.
        found: String,
        /// What it needs.
        needed: &'static str,
        /// What would happen otherwise.
        consequence: &'static str,
    },
    /// A topic couldn't be created.
    #[error("topic {topic} could not be created: {reason}")]
    NotCreated {
        /// The topic.
        topic: String,
        /// What the broker said.
        reason: String,
    },
    /// A topic couldn't be grown.
    #[error(
        "topic {topic} could not be grown to {partitions} partitions: {reason}; grow it, or let this principal do so (ALTER)"
    )]
    NotGrown {
        /// The topic.
        topic: String,
        /// How many it should have.
        partitions: usize,
        /// What the broker said.
        reason: String,
    },
    /// Anything else.
    #[error("{what}: {reason}")]
    Failed {
        /// What was tried.
        what: String,
        /// What the broker said.
        reason: String,
    },
}

/// Whether the client is connected to librdkafka's mock cluster, by its cluster id (rdkafka_mock.c).
pub(super) fn is_embedded(client: &BaseConsumer<Context>, timeout: Duration) -> bool {
    client.client().fetch_cluster_id(timeout).is_some_and(|id| id.starts_with("mockCluster"))
}

/// The plan of a topic to create.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Partition count.
    pub partitions: i32,
    /// Replication factor.
    pub replication: i32,
    /// Its properties.
    pub config: TopicConfig,
}

/// The state of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Per partition, from 0: leader, replicas, in-sync replicas.
    pub partitions: Vec<PartitionInfo>,
}

/// The state of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The broker that leads it; `-1` for none.
    pub leader: i32,
    /// The brokers that keep it.
    pub replicas: Vec<i32>,
    /// Those that are in sync.
    pub in_sync: Vec<i32>,
}

impl TopicInfo {
    /// Returns the replication factor: the lowest of all partitions.
    #[must_use]
    pub fn replication(&self) -> usize {
        self.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0)
    }
}

impl Cluster {
    /// Connects, and waits until the cluster answers.
    ///
    /// # Errors
    /// When there is no answer within ten seconds, or, at once, when it rejects our credentials.
    pub fn connect(connection: &Connection) -> Result<Cluster, ClusterError> {
        let failed = |error: KafkaError| ClusterError::Failed {
            what: "cannot create the client".to_owned(),
            reason: error.to_string(),
        };
        let mut config = connection.reader("genwatch_admin", Isolation::Uncommitted);
        config.set("topic.metadata.refresh.interval.ms", "-1");
        let client: BaseConsumer<Context> = config.create_with_context(Context::default()).map_err(failed)?;
        let admin = connection.client().create_with_context(Context::default()).map_err(failed)?;
        let brokers = connection.brokers().to_owned();
        let mut cluster = Cluster { brokers, client, admin, embedded: false };
        cluster.wait_for_answer()?;
        cluster.embedded = is_embedded(&cluster.client, REQUEST_TIMEOUT);
        Ok(cluster)
    }

    /// Returns the errors of the callback, which say more than a failed request. Log lines queue as events before an
    /// error, so this serves all pending events.
    fn take_errors(&self) -> Vec<(KafkaError, String)> {
        while self.client.poll(Duration::from_millis(1)).is_some() {}
        self.client.context().take_errors()
    }

    fn wait_for_answer(&self) -> Result<(), ClusterError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let mut reason = "no answer".to_owned();
        loop {
            let answer = self.client.fetch_metadata(Some("__genwatch_probe"), Duration::from_millis(500));
            if answer.is_ok() {
                return Ok(());
            }
            for (error, words) in self.take_errors() {
                self.client.context().log(rdkafka::config::RDKafkaLogLevel::Debug, "CONNECT", &words);
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                        return Err(ClusterError::Refused { brokers: self.brokers.clone(), reason: words });
                    }
                    Some(RDKafkaErrorCode::SSL) => {
                        return Err(ClusterError::Refused { brokers: self.brokers.clone(), reason: words });
                    }
                    Some(RDKafkaErrorCode::AllBrokersDown) => {}
                    _ => reason = words,
                }
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::Unreachable { brokers: self.brokers.clone(), reason });
            }
        }
    }

    /// Checks that a broker answers within this time.
    ///
    /// # Errors
    /// When none does, with the reason.
    pub fn ping(&self, timeout: Duration) -> Result<(), ClusterError> {
        self.metadata_within(Some("__genwatch_probe"), timeout).map(drop)
    }

    /// Whether there is such a topic that we may see.
    ///
    /// # Errors
    /// When the cluster doesn't answer within this time.
    pub fn has_topic(&self, name: &str, timeout: Duration) -> Result<bool, ClusterError> {
        let metadata = self.metadata_within(Some(name), timeout)?;
        let named = metadata.topics().iter().find(|topic| topic.name() == name);
        Ok(named.is_some_and(|topic| !topic.partitions().is_empty()))
    }

    /// Returns the number of brokers.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn broker_count(&self) -> Result<usize, ClusterError> {
        Ok(self.metadata(None)?.brokers().len())
    }

    /// Describes a topic; `None` if it doesn't exist.
    ///
    /// # Errors
    /// When the cluster doesn't answer, or we may not see the topic.
    pub fn topic(&self, name: &str) -> Result<Option<TopicInfo>, ClusterError> {
        let metadata = self.metadata(Some(name))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(None);
        };
        match topic.error().map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::NoError | RDKafkaErrorCode::LeaderNotAvailable) => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Ok(None);
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(ClusterError::Unauthorized { topic: name.to_owned() });
            }
            Some(code) => {
                return Err(ClusterError::Failed { what: format!("topic {name}"), reason: code.to_string() });
            }
        }
        if topic.partitions().is_empty() {
            return Ok(None);
        }
        let mut partitions: Vec<(i32, PartitionInfo)> = topic
            .partitions()
            .iter()
            .map(|partition| {
                let info = PartitionInfo {
                    leader: partition.leader(),
                    replicas: partition.replicas().to_vec(),
                    in_sync: partition.isr().to_vec(),
                };
                (partition.id(), info)
            })
            .collect();
        partitions.sort_by_key(|(id, _)| *id);
        let partitions = partitions.into_iter().map(|(_, info)| info).collect();
        Ok(Some(TopicInfo { name: name.to_owned(), partitions }))
    }

    /// Returns the partition count of a topic that must exist.
    ///
    /// # Errors
    /// As [`Cluster::topic`], and when it doesn't exist.
    pub fn require(&self, name: &str) -> Result<usize, ClusterError> {
        let found = self.topic(name)?;
        found
            .map(|topic| topic.partitions.len())
            .ok_or_else(|| ClusterError::MissingTopic { topic: name.to_owned() })
    }

    /// Ensures that a topic has as many partitions as another: grows it if it has fewer, for example after the other
    /// has grown.
    ///
    /// # Errors
    /// When it doesn't exist, can't be grown, or has more.
    pub fn match_partitions(&self, name: &str, reference: &str, expected: usize) -> Result<(), ClusterError> {
        let found = self.require(name)?;
        if found < expected {
            return self.grow(name, found, expected);
        }
        // If it has more, the other one may have just grown.
        let deadline = Instant::now() + METADATA_SPREADS;
        let mut expected = expected;
        while found > expected {
            if Instant::now() >= deadline {
                let (topic, reference) = (name.to_owned(), reference.to_owned());
                return Err(ClusterError::PartitionMismatch { topic, found, expected, reference });
            }
            std::thread::sleep(Duration::from_millis(100));
            expected = self.require(reference)?;
        }
        Ok(())
    }

    /// Creates a topic; returns `false` if it existed. Waits until its partitions have leaders.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn create(&self, plan: &TopicPlan) -> Result<bool, ClusterError> {
        let created = match self.request(plan, false)? {
            Ok(()) => true,
            Err(RDKafkaErrorCode::TopicAlreadyExists) => false,
            Err(code) => return Err(self.not_created(plan, code)),
        };
        self.wait_for_leaders(plan)?;
        Ok(created)
    }

    /// Lets the broker check a plan without creating anything. Returns the plan that this broker accepts: without
    /// optional properties that it doesn't know.
    ///
    /// # Errors
    /// When the broker would refuse; names a property that it doesn't accept.
    pub fn validate(&self, mut plan: TopicPlan) -> Result<TopicPlan, ClusterError> {
        if let Err(RDKafkaErrorCode::InvalidConfig) = self.request(&plan, true)? {
            let refused = self.refused_properties(&plan)?;
            for key in refused.iter().filter(|key| TopicConfig::is_optional(key)) {
                plan.config = plan.config.without(key);
            }
        }
        match self.request(&plan, true)? {
            Ok(()) | Err(RDKafkaErrorCode::TopicAlreadyExists) => Ok(plan),
            Err(code) => Err(self.not_created(&plan, code)),
        }
    }

    /// Sends one CreateTopics request; the inner result is the broker's answer for the topic.
    fn request(
        &self,
        plan: &TopicPlan,
        validate_only: bool,
    ) -> Result<Result<(), RDKafkaErrorCode>, ClusterError> {
        let topic = NewTopic::new(&plan.name, plan.partitions, TopicReplication::Fixed(plan.replication));
        let topic = plan.config.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let options =
            AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).validate_only(validate_only);
        let results =
            futures::executor::block_on(self.admin.create_topics([&topic], &options)).map_err(|error| {
                ClusterError::NotCreated { topic: plan.name.clone(), reason: error.to_string() }
            })?;
        Ok(match results.into_iter().next() {
            Some(Err((_, code))) => Err(code),
            Some(Ok(_)) | None => Ok(()),
        })
    }

    fn not_created(&self, plan: &TopicPlan, code: RDKafkaErrorCode) -> ClusterError {
        let reason = match code {
            RDKafkaErrorCode::InvalidReplicationFactor => self
                .broker_count()
                .map(|brokers| format!("{code}: {} on {brokers} broker(s)", plan.replication)),
            RDKafkaErrorCode::InvalidConfig => self.refused_properties(plan).map(|keys| {
                let pairs: Vec<_> =
                    keys.iter().map(|key| format!("{key}={}", plan.config.get(key))).collect();
                format!("the broker does not take {}", pairs.join(", "))
            }),
            code => Ok(code.to_string()),
        };
        let reason = reason.unwrap_or_else(|error| format!("{code} ({error})"));
        ClusterError::NotCreated { topic: plan.name.clone(), reason }
    }

    /// Returns the properties that the broker refuses. Its answer covers the whole topic, so each is tried alone.
    fn refused_properties(&self, plan: &TopicPlan) -> Result<Vec<String>, ClusterError> {
        let mut refused = Vec::new();
        for (key, value) in plan.config.iter() {
            let mut alone = TopicPlan { config: TopicConfig::empty(), ..plan.clone() };
            alone.config.set(key, value);
            if self.request(&alone, true)? == Err(RDKafkaErrorCode::InvalidConfig) {
                refused.push(key.to_owned());
            }
        }
        Ok(refused)
    }

    /// Grows a topic from `found` partitions to the count of the readings topic, and logs that.
    ///
    /// # Errors
    /// When the cluster doesn't answer; [`ClusterError::NotGrown`] when it refuses.
    pub fn grow(&self, topic: &str, found: usize, partitions: usize) -> Result<(), ClusterError> {
        tracing::warn!(
            topic,
            partitions = found,
            wanted = partitions,
            "the readings topic has grown: growing this one"
        );
        let failed = |reason: String| ClusterError::Failed { what: format!("growing {topic}"), reason };
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let grown = NewPartitions::new(topic, partitions);
        let results = futures::executor::block_on(self.admin.create_partitions([&grown], &options))
            .map_err(|error| failed(error.to_string()))?;
        match results.into_iter().next() {
            // Another worker was faster.
            Some(Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions))) | None => Ok(()),
            Some(Err((_, code))) => {
                Err(ClusterError::NotGrown { topic: topic.to_owned(), partitions, reason: code.to_string() })
            }
        }
    }

    /// Deletes every topic whose name starts with `prefix`, and returns how many there were.
    ///
    /// # Errors
    /// When the cluster doesn't answer or refuses one of them.
    pub fn delete_topics(&self, prefix: &str) -> Result<usize, ClusterError> {
        let metadata = self.metadata(None)?;
        let names = metadata.topics().iter().map(|topic| topic.name());
        let names: Vec<&str> = names.filter(|name| name.starts_with(prefix)).collect();
        let failed = |reason: String| ClusterError::Failed { what: format!("deleting {prefix}*"), reason };
        if names.is_empty() {
            return Ok(0);
        }
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let results = futures::executor::block_on(self.admin.delete_topics(&names, &options))
            .map_err(|error| failed(error.to_string()))?;
        for result in results {
            match result {
                // Deleted already, by a call whose answer was lost.
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((name, code)) => return Err(failed(format!("{name}: {code}"))),
            }
        }
        Ok(names.len())
    }

    /// Deletes consumer groups that have no members.
    ///
    /// # Errors
    /// When the cluster doesn't answer or refuses one of them.
    pub fn delete_groups(&self, groups: &[&str]) -> Result<(), ClusterError> {
        if groups.is_empty() {
            return Ok(());
        }
        let failed = |reason: String| ClusterError::Failed { what: "deleting groups".to_owned(), reason };
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let results = futures::executor::block_on(self.admin.delete_groups(groups, &options))
            .map_err(|error| failed(error.to_string()))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                Err((name, code)) => return Err(failed(format!("{name}: {code}"))),
            }
        }
        Ok(())
    }

    fn wait_for_leaders(&self, plan: &TopicPlan) -> Result<(), ClusterError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let ready =
                self.topic(&plan.name)?.is_some_and(|topic| topic.partitions.iter().all(|p| p.leader >= 0));
            if ready {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let reason = "its partitions have no leaders yet".to_owned();
                return Err(ClusterError::NotCreated { topic: plan.name.clone(), reason });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns one configuration entry of a topic; `None` if the broker doesn't report it (an embedded broker doesn't).
    #[must_use]
    pub fn topic_config(&self, topic: &str, key: &str) -> Option<String> {
        self.topic_configs(&[topic]).remove(topic)?.remove(key)
    }

    /// Returns the configuration of these topics, as far as the broker reports it.
    #[must_use]
    pub fn topic_configs(&self, topics: &[&str]) -> BTreeMap<String, BTreeMap<String, String>> {
        if self.embedded || topics.is_empty() {
            return BTreeMap::new();
        }
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let described = futures::executor::block_on(self.admin.describe_configs(&resources, &options));
        let told = described.unwrap_or_else(|error| {
            tracing::debug!(?topics, %error, "the broker does not report the topics' configuration");
            Vec::new()
        });
        told.into_iter()
            .flatten()
            .filter_map(|resource| {
                let OwnedResourceSpecifier::Topic(name) = resource.specifier else { return None };
                let entries = resource.entries.into_iter();
                Some((name, entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()))
            })
            .collect()
    }

    /// Checks a topic's `cleanup.policy`, if the broker reports it.
    ///
    /// # Errors
    /// When it isn't `compact`.
    pub fn require_compacted(&self, topic: &str, consequence: &'static str) -> Result<(), ClusterError> {
        match self.topic_config(topic, "cleanup.policy") {
            Some(found) if found != Cleanup::Compact.as_str() => Err(ClusterError::WrongCleanup {
                topic: topic.to_owned(),
                found,
                needed: Cleanup::Compact.as_str(),
                consequence,
            }),
            _ => Ok(()),
        }
    }

    /// Returns a partition's low and high watermark, regardless of open transactions.
    ///
    /// # Errors
    /// When its leader doesn't answer.
    pub fn watermarks(&self, topic: &str, partition: PartitionId) -> Result<(Offset, Offset), ClientError> {
        let (low, high) = self.client().fetch_watermarks(topic, partition.0, REQUEST_TIMEOUT)?;
        Ok((Offset(low), Offset(high)))
    }

    /// Whether the cluster is an embedded broker, which answers neither admin requests nor questions for times.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.embedded
    }

    /// Returns the ids of those of these topics that exist; `None` where the brokers know no ids.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn topic_ids(&self, topics: &[&str]) -> Result<BTreeMap<String, Option<TopicId>>, ClientError> {
        if self.embedded {
            return Ok(BTreeMap::new());
        }
        let described = describe_topics(&self.client, topics, REQUEST_TIMEOUT)?;
        let there = |topic| match topic {
            DescribedTopic::There { name, id } => Some((name, id)),
            DescribedTopic::Missing { .. } => None,
        };
        Ok(described.into_iter().filter_map(there).collect())
    }

    /// Lists the consumer groups that this principal may describe; none of an embedded broker. A broker that is down
    /// takes the whole `timeout`.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn groups(&self, timeout: Duration) -> Result<ListedGroups, ClientError> {
        if self.embedded {
            return Ok(ListedGroups::default());
        }
        list_groups(&self.client, timeout)
    }

    pub(crate) fn client(&self) -> &BaseConsumer<Context> {
        &self.client
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata, ClusterError> {
        self.metadata_within(topic, REQUEST_TIMEOUT)
    }

    fn metadata_within(&self, topic: Option<&str>, timeout: Duration) -> Result<Metadata, ClusterError> {
        self.client.fetch_metadata(topic, timeout).map_err(|error| match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut,
            ) => {
                let errors = self.take_errors();
                // "All brokers down" follows from the other errors.
                let knows =
                    |error: &KafkaError| error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown);
                let last = errors.into_iter().rev().find(|(error, _)| knows(error)).map(|(_, words)| words);
                let reason = last.unwrap_or_else(|| "no answer".to_owned());
                ClusterError::Unreachable { brokers: self.brokers.clone(), reason }
            }
            _ => ClusterError::Failed {
                what: "the cluster's metadata could not be fetched".to_owned(),
                reason: error.to_string(),
            },
        })
    }
}

impl TopicPlan {
    /// Plans a topic that the cluster can carry: three replicas with two in sync on three or more brokers, else fewer.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn like_its_cluster(
        cluster: &Cluster,
        name: &str,
        partitions: usize,
        config: TopicConfig,
    ) -> Result<TopicPlan, ClusterError> {
        let (replication, min_insync) = default_replication(cluster.broker_count()?);
        Ok(TopicPlan {
            name: name.to_owned(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication,
            config: config.min_insync(min_insync),
        })
    }
}

/// Returns the replication factor and `min.insync.replicas` for `brokers` brokers.
#[must_use]
pub fn default_replication(brokers: usize) -> (i32, i32) {
    match brokers {
        0 | 1 => (1, 1),
        2 => (2, 1),
        _ => (3, 2),
    }
}
