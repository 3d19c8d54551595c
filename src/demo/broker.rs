//! The demo's broker, in this process, and its topics.

use std::time::Duration;

use anyhow::Context as _;

use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::start::{OnNewTopic, OnOutOfRange, Policies};
use genwatch_core::pool::Bounds;
use genwatch_kafka::config::{Connection, GroupProtocol};
use genwatch_kafka::mock::MockBroker;
use genwatch_kafka::topics::{HandlerTopics, Role, Topics};

use crate::downsample;
use crate::worker::WorkerConfig;

const TOPIC: &str = "emergency_generators";
const GROUP: &str = "genwatch";

/// The names are those of one-minute windows, for which the page looks, whatever the demo's window is.
pub const NAMED_WINDOW: Duration = Duration::from_secs(60);

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
        let state = aggregate_topics(&topics).state;
        let sizes = Role::ALL.map(|role| (topics.name(role), role.partitions(partitions)));
        let sizes: Vec<_> = sizes.into_iter().chain([(state.as_str(), partitions)]).collect();
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

    /// Returns the topics of the downsampler.
    #[must_use]
    pub fn of_aggregates(&self) -> HandlerTopics {
        aggregate_topics(&self.topics)
    }

    /// Returns the configuration of a member of one of the demo's groups.
    #[must_use]
    pub fn member(&self, topics: HandlerTopics, group: &str, name: &str) -> WorkerConfig {
        WorkerConfig {
            reports: self.topics.workers.clone(),
            delivery: Delivery::AtLeastOnce,
            // On this broker its hand-over takes 3 s, the classic protocol's 10 s.
            protocol: GroupProtocol::Consumer,
            drain_timeout: Duration::from_secs(10),
            policies: Policies { on_out_of_range: OnOutOfRange::Earliest, on_new_topic: OnNewTopic::Fail },
            bounds: Bounds { records: 10_000, bytes: 64 << 20 },
            name: name.to_owned(),
            ..WorkerConfig::new(self.connection.clone(), topics, group)
        }
    }

    /// Returns the workers' group.
    #[must_use]
    pub fn group(&self) -> &'static str {
        GROUP
    }
}

fn aggregate_topics(topics: &Topics) -> HandlerTopics {
    downsample::topics(&topics.readings, GROUP, None, NAMED_WINDOW, None)
}
