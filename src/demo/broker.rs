//! The broker of the demo, in this process, and what is on it.

use anyhow::Context as _;

use genwatch_kafka::config::Connection;
use genwatch_kafka::mock::MockBroker;
use genwatch_kafka::topics::Topics;

const TOPIC: &str = "emergency_generators";
const GROUP: &str = "genwatch";

/// The broker; it ends when this is dropped.
pub struct EmbeddedBroker {
    _broker: MockBroker,
    connection: Connection,
    topics: Topics,
}

impl EmbeddedBroker {
    /// Starts it and makes the topics.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(partitions: i32) -> anyhow::Result<EmbeddedBroker> {
        let topics = Topics::new(TOPIC, GROUP);
        let names = topics.all().map(|(name, _)| name);
        let broker = MockBroker::start(&names, partitions).context("the embedded broker did not start")?;
        let connection = Connection::new(&broker.bootstrap_servers(), &[])?;
        Ok(EmbeddedBroker { _broker: broker, connection, topics })
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
