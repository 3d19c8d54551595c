//! A broker in this process: librdkafka's mock cluster, the real protocol over TCP on a loopback port.
//!
//! It answers transactions without keeping them, and ignores admin requests (librdkafka 2.12.1).

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::ClientError;

/// The broker; it stops when dropped.
pub struct MockBroker(MockCluster<'static, DefaultProducerContext>);

impl MockBroker {
    /// Starts it, with these topics and their numbers of partitions.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(topics: &[(&str, i32)]) -> Result<MockBroker, ClientError> {
        let cluster = MockCluster::new(1)?;
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1)?;
        }
        Ok(MockBroker(cluster))
    }

    /// Returns its address.
    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        self.0.bootstrap_servers()
    }
}
