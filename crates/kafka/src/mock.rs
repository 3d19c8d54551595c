//! A broker in this process: librdkafka's mock cluster, the real protocol over TCP on a loopback port.
//!
//! It answers transactions without keeping them, and admin requests not at all (librdkafka 2.12.1).

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::ClientError;

/// The broker; it ends when this is dropped.
pub struct MockBroker(MockCluster<'static, DefaultProducerContext>);

impl MockBroker {
    /// Starts it, with topics of so many partitions.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(topics: &[&str], partitions: i32) -> Result<MockBroker, ClientError> {
        let cluster = MockCluster::new(1)?;
        for topic in topics {
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(MockBroker(cluster))
    }

    /// Where it listens.
    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        self.0.bootstrap_servers()
    }
}
