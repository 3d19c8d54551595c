//! The embedded broker: librdkafka's mock cluster, the real protocol over TCP on a loopback port.

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::kafka::config::Connection;
use crate::kafka::topics::Topics;

const TOPIC: &str = "emergency_generators";
const GROUP: &str = "genwatch";

/// The broker; it ends when this is dropped.
pub struct EmbeddedBroker {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    connection: Connection,
    topics: Topics,
}

impl EmbeddedBroker {
    /// Starts it and makes the topics.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(partitions: i32) -> anyhow::Result<EmbeddedBroker> {
        let cluster = MockCluster::new(1).context("the embedded broker did not start")?;
        let topics = Topics::new(TOPIC, GROUP);
        for (name, _) in topics.all() {
            cluster
                .create_topic(name, partitions, 1)
                .with_context(|| format!("topic {name} was not made"))?;
        }
        let connection = Connection::new(&cluster.bootstrap_servers(), &[])?;
        Ok(EmbeddedBroker { _cluster: cluster, connection, topics })
    }

    /// How to reach it.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        self.connection.brokers()
    }

    /// Its topics.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The group of the replicas.
    #[must_use]
    pub fn group(&self) -> &'static str {
        GROUP
    }
}
