//! One way to configure every Kafka client: defaults of ours, then `-X` of the user, which always wins.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// The largest record that a client of ours sends: a dead letter is as large as what somebody else could produce.
const MAX_MESSAGE_BYTES: &str = "67108864";

/// Properties that the guarantees rest on, and what to use in their place.
const OURS: [(&str, &str); 6] = [
    ("group.id", "use --group, which the state topic's name derives from too"),
    ("group.protocol", "use --group-protocol"),
    (
        "partitioner",
        "every producer partitions like the Java client, so that all agree where a generator lives",
    ),
    ("enable.auto.commit", "offsets are committed with the effects they belong to"),
    ("enable.auto.offset.store", "offsets are committed with the effects they belong to"),
    ("enable.partition.eof", "it would make the worker skip records after a rebalance"),
];

/// How to reach the cluster: `--brokers` and `-X`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    brokers: String,
    properties: BTreeMap<String, String>,
}

impl Connection {
    /// Takes `-X` values: `key=value`, or `@file` with one such a line, `#` for comments.
    ///
    /// # Errors
    /// When a value has no `=`, a file can't be read, or librdkafka doesn't know the property or its value.
    pub fn new(brokers: &str, properties: &[String]) -> Result<Connection, ConfigError> {
        let mut connection = Connection { brokers: brokers.to_owned(), properties: BTreeMap::new() };
        for value in properties.iter().flat_map(|value| value.lines()) {
            match value.strip_prefix('@') {
                Some(file) => connection.read_file(Path::new(file))?,
                None => connection.set(value, "-X")?,
            }
        }
        // Asked now, so that a mistake is found before anything starts.
        connection.client().create_native_config().map_err(|error| match error {
            KafkaError::ClientConfig(_, reason, key, value) => ConfigError::Property { key, value, reason },
            other => ConfigError::Refused(other.to_string()),
        })?;
        Ok(connection)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.display().to_string(), error })?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            self.set(line, &path.display().to_string())?;
        }
        Ok(())
    }

    fn set(&mut self, pair: &str, origin: &str) -> Result<(), ConfigError> {
        let Some((key, value)) = pair.split_once('=') else {
            // Not the text itself: it may be a secret that lost its key.
            return Err(ConfigError::NoPair { origin: origin.to_owned() });
        };
        if let Some((key, instead)) = OURS.iter().find(|(ours, _)| *ours == key.trim()) {
            return Err(ConfigError::Ours { key, instead });
        }
        self.properties.insert(key.trim().to_owned(), value.trim().to_owned());
        Ok(())
    }

    /// The brokers, as given.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The properties that the user set by `-X`.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// A property that the user set by `-X`.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.get(key).map(String::as_str)
    }

    /// What all clients share.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        self.complete(ClientConfig::new())
    }

    /// A consumer that belongs to no group: assigns by itself, never pauses, learns where partitions end.
    #[must_use]
    pub fn reader(&self, group: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.queue.backoff.ms", "1")
            .set("queued.max.messages.kbytes", "16384")
            .set("isolation.level", isolation.as_str());
        config.remove("group.instance.id");
        config.remove("group.protocol");
        config
    }

    /// The worker's group consumer.
    #[must_use]
    pub fn group_consumer(&self, group: &str, protocol: GroupProtocol) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Not wanted here: `rd_kafka_consume_batch_queue` counts the end-of-partition notice as a record, so that after
            // the next pause (each rebalance makes one) the fetcher goes on one record too far (librdkafka 2.12.1,
            // rd_kafka_q_serve_rkmessages).
            .set("enable.partition.eof", "false")
            .set("allow.auto.create.topics", "false")
            // Starts are always explicit; should librdkafka ever have to choose, `latest` would lose records.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // With a bounded queue the fetcher would sleep a second each time the queue is full.
            .set("fetch.queue.backoff.ms", "1")
            .set("queued.max.messages.kbytes", "32768")
            .set("group.protocol", protocol.as_str());
        if protocol == GroupProtocol::Classic {
            // A crash is noticed after this long; librdkafka's default of 45 s is a long time for an alarm.
            config.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "2000");
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        let mut config = self.complete(config);
        if self.property("client.id").is_none() {
            config.set("client.id", format!("genwatch-{}", replica_name()));
        }
        config
    }

    /// The group consumer of a sink: as the worker's, but each topic is shared out by itself. (`cooperative-sticky` makes the sums
    /// even: a second sink may get the quiet topics, and the first one keep all readings.)
    #[must_use]
    pub fn sink_consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.group_consumer(group, GroupProtocol::Classic);
        if self.property("partition.assignment.strategy").is_none() {
            config.set("partition.assignment.strategy", "roundrobin");
        }
        config
    }

    /// A producer, partitioning like the Java client.
    #[must_use]
    pub fn producer(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            // The broker answers CONCURRENT_TRANSACTIONS just after a commit; with the default of 100 ms each commit
            // would take that long. It backs off exponentially from here.
            .set("retry.backoff.ms", "5");
        self.complete(config)
    }

    /// Adds what all clients share; the user's properties come last. (Not by copying another configuration:
    /// `ClientConfig::config_map` gives a placeholder for each password.)
    fn complete(&self, mut config: ClientConfig) -> ClientConfig {
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "genwatch")
            // librdkafka tells what it does in its log; errors come by callback.
            .set_log_level(RDKafkaLogLevel::Info);
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
    }
}

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, and of none.
    Committed,
    /// All, as they're written.
    Uncommitted,
}

impl Isolation {
    fn as_str(self) -> &'static str {
        match self {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        }
    }
}

/// How the group agrees on who works which partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GroupProtocol {
    /// Join and sync, with the cooperative-sticky assignor.
    Classic,
    /// KIP-848: the broker assigns.
    Consumer,
}

impl GroupProtocol {
    fn as_str(self) -> &'static str {
        match self {
            GroupProtocol::Classic => "classic",
            GroupProtocol::Consumer => "consumer",
        }
    }
}

/// Why the connection options were refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value without `=`.
    #[error("{origin}: expected key=value (or @file), found a value without '='")]
    NoPair {
        /// `-X` or the file.
        origin: String,
    },
    /// A properties file can't be read.
    #[error("-X @{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// librdkafka doesn't know it, or not this value.
    #[error("-X {key}: {reason} (see librdkafka's CONFIGURATION.md)")]
    Property {
        /// The property.
        key: String,
        /// The value; not shown, it may be a secret.
        value: String,
        /// What librdkafka said.
        reason: String,
    },
    /// genwatch sets it itself.
    #[error("-X {key} is not for users to set: {instead}")]
    Ours {
        /// The property.
        key: &'static str,
        /// What to do in its place, or why.
        instead: &'static str,
    },
    /// librdkafka refused the whole.
    #[error("the client configuration was refused: {0}")]
    Refused(String),
}

/// Context of rust-rdkafka's clients: logs go to `tracing`, the last errors are kept for the message a user reads.
#[derive(Clone, Debug, Default)]
pub struct Context {
    errors: Arc<Mutex<Vec<(KafkaError, String)>>>,
}

impl Context {
    /// The errors since the last call, oldest first.
    #[must_use]
    pub fn take_errors(&self) -> Vec<(KafkaError, String)> {
        std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: a client that is never asked must not grow.
        if errors.len() < 64 {
            errors.push((error, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Context {}

/// A log line of librdkafka (`level` as in syslog). What an operator must act on comes as an error, so these are for
/// debugging: `RUST_LOG=librdkafka=debug`.
pub fn log(level: i32, facility: &str, message: &str) {
    match level {
        ..=2 => tracing::error!(target: "librdkafka", facility, "{message}"),
        3..=6 => tracing::debug!(target: "librdkafka", facility, "{message}"),
        _ => tracing::trace!(target: "librdkafka", facility, "{message}"),
    }
}

/// This replica as others see it: host and process.
#[must_use]
pub fn replica_name() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host =
        host.as_deref().map(str::trim).filter(|name| !name.is_empty()).unwrap_or("localhost").to_owned();
    format!("{host}-{}", std::process::id())
}

/// One line for partitions: `0, 3, 5-9`.
#[must_use]
pub fn ranges(partitions: &[crate::log::PartitionId]) -> String {
    let mut sorted: Vec<i32> = partitions.iter().map(|p| p.0).collect();
    sorted.sort_unstable();
    let mut text = String::new();
    for run in sorted.chunk_by(|a, b| a + 1 == *b) {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = match run {
            [one] => write!(text, "{separator}{one}"),
            [first, .., last] => write!(text, "{separator}{first}-{last}"),
            [] => Ok(()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::PartitionId;

    fn refusal(properties: &[&str]) -> String {
        let properties: Vec<String> = properties.iter().map(ToString::to_string).collect();
        Connection::new("localhost:1", &properties).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_wrong_property_is_named_and_its_value_is_not() {
        assert!(
            refusal(&["sasl.pasword=hunter2"]).starts_with("-X sasl.pasword: No such configuration property")
        );
        assert!(!refusal(&["sasl.pasword=hunter2"]).contains("hunter2"));
        assert!(!refusal(&["hunter2"]).contains("hunter2"));
        assert!(refusal(&["@/nowhere/client.properties"]).contains("/nowhere/client.properties"));
    }

    #[test]
    fn what_the_guarantees_rest_on_is_not_for_users_to_set() {
        assert!(refusal(&["group.id=other"]).contains("use --group"));
        assert!(
            refusal(&["enable.auto.commit=true"])
                .starts_with("-X enable.auto.commit is not for users to set")
        );
    }

    #[test]
    fn the_user_has_the_last_word() {
        let properties = ["session.timeout.ms=7000".to_owned()];
        let connection = Connection::new("localhost:1", &properties).expect("valid");
        let config = connection.group_consumer("g", GroupProtocol::Classic);
        assert_eq!(config.get("session.timeout.ms"), Some("7000"));
    }

    #[test]
    fn every_client_is_given_the_password() {
        let connection =
            Connection::new("localhost:1", &["sasl.password=hunter2".to_owned()]).expect("valid");
        let clients = [
            connection.client(),
            connection.producer(),
            connection.reader("g", Isolation::Committed),
            connection.group_consumer("g", GroupProtocol::Classic),
            connection.sink_consumer("g"),
        ];
        for config in clients {
            assert_eq!(config.get("sasl.password"), Some("hunter2"));
        }
    }

    #[test]
    fn a_file_of_properties_may_have_comments() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# comment\n\nacks = 1\n").expect("written");
        let connection =
            Connection::new("localhost:1", &[format!("@{}", file.path().display())]).expect("valid");
        assert_eq!(connection.property("acks"), Some("1"));
    }

    #[test]
    fn partitions_are_listed_as_ranges() {
        let ids = [5, 0, 6, 7, 3].map(PartitionId);
        assert_eq!(ranges(&ids), "0, 3, 5-7");
        assert_eq!(ranges(&[]), "");
    }
}
