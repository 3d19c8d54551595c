//! The demo's broker, in this process, and its topics.

use anyhow::Context as _;

use genwatch_kafka::config::Connection;
use genwatch_kafka::mock::MockBroker;
use genwatch_kafka::topics::{Role, Topics};

const TOPIC: &str = "emergency_generators";
const GROUP: &str = "genwatch";

/// The broker; it ends when dropped.
pub struct EmbeddedBroker {
    _broker: MockBroker,
    connection: Connection,
    topics: Topics,
}

impl EmbeddedBroker {
    /// Starts it and creates the topics: as many partitions each as they would have elsewhere.
    ///
    /// # Errors
    /// When it can't get a port.
    pub fn start(partitions: i32) -> anyhow::Result<EmbeddedBroker> {
        let topics = Topics::new(TOPIC, GROUP);
        let sizes = Role::ALL.map(|role| (topics.name(role), role.partitions(partitions)));
        let broker = MockBroker::start(&sizes).context("the embedded broker did not start")?;
        let connection = Connection::new(&broker.bootstrap_servers(), &[])?;
        Ok(EmbeddedBroker { _broker: broker, connection, topics })
    }

    /// Returns how to connect to it.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        self.connection.brokers()
    }

    /// Returns its topics.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Returns the workers' group.
    #[must_use]
    pub fn group(&self) -> &'static str {
        GROUP
    }
}
