//! One way to configure every Kafka client: our defaults, then the user's `-X`, which wins or is refused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, ProducerContext};
use secrecy::SecretString;

use super::properties::Properties;

/// `transaction.timeout.ms`. If we die mid-transaction, the broker aborts it after this; until then `read_committed`
/// consumers wait.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// `session.timeout.ms`: how soon a crash is noticed. librdkafka's default of 45 s is too long for an alarm; brokers allow
/// no less (`group.min.session.timeout.ms`).
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a member of the group sends a heartbeat, by which it hears of a rebalance.
pub(super) const PULSE: Duration = Duration::from_millis(100);
/// `heartbeat.interval.ms`: a little less, so that each pulse makes one.
const HEARTBEAT_MS: &str = "90";

/// What one answer to a fetch may hold, of all partitions together. librdkafka lowers its default to the size of its
/// queue, and after a full queue always asks for the same partitions first (2.12.1, `rd_kafka_conf_finalize`,
/// `rd_kafka_broker_active_toppar_del`): where those alone fill the answer, the others starve for as long as the consumer
/// is the slower one. So an answer must have room for a part of every partition.
const FETCH_BYTES: &str = "52428800";
/// What it may hold of one partition, so that 100 fit in; with half of it a backlog is drained a fifth slower. A larger
/// record comes alone (KIP-74).
const PARTITION_FETCH_BYTES: &str = "524288";

/// The largest record that our clients send: a dead letter is as large as anything that others can produce.
const MAX_MESSAGE_BYTES: &str = "67108864";

/// How to reach the cluster: `--brokers` and `-X`.
#[derive(Clone, Debug)]
pub struct Connection {
    brokers: String,
    properties: Properties,
}

impl Connection {
    /// Parses `-X` values: `key=value`, or `@file` with one pair per line and comments after `#` or `!`.
    ///
    /// # Errors
    /// When a value has no `=`, a file can't be read, librdkafka doesn't know a property or its value, or properties
    /// conflict.
    pub fn new(brokers: &str, properties: &[SecretString]) -> Result<Connection, ConfigError> {
        let mut properties = Properties::read(properties)?;
        // `-X` wins.
        let brokers = properties.take("bootstrap.servers").unwrap_or_else(|| brokers.to_owned());
        let connection = Connection { brokers, properties };
        // Tried now, so that every command finds a mistake before anything starts.
        connection.try_out::<BaseConsumer<_>>(connection.reader("genwatch_reader", Isolation::Committed))?;
        connection.try_out::<BaseProducer<_>>(connection.producer())?;
        Ok(connection)
    }

    /// Checks the configuration of a worker's clients.
    ///
    /// # Errors
    /// When properties conflict.
    pub fn check_worker(
        &self,
        group: &str,
        protocol: GroupProtocol,
        transactional: bool,
    ) -> Result<(), ConfigError> {
        self.try_out::<BaseConsumer<_>>(self.group_consumer(group, protocol))?;
        if transactional {
            self.try_out::<BaseProducer<_>>(self.transactional_producer(group, "instance"))?;
        }
        Ok(())
    }

    /// Creates a client without brokers: only then does librdkafka check properties against each other.
    fn try_out<C: FromClientConfigAndContext<Context>>(
        &self,
        mut config: ClientConfig,
    ) -> Result<(), ConfigError> {
        config.remove("bootstrap.servers");
        let client: Result<C, KafkaError> = config.create_with_context(Context::default());
        client.map(drop).map_err(|error| match error {
            KafkaError::ClientConfig(_, reason, key, _) => {
                ConfigError::Property { origin: self.properties.origin(&key).to_owned(), reason }
            }
            KafkaError::ClientCreation(reason) => ConfigError::Refused(reason),
            other => ConfigError::Refused(other.to_string()),
        })
    }

    /// Returns the brokers.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Returns the properties that the user set by `-X`.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties.iter()
    }

    /// Returns a property that the user set by `-X`, under any of its names.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.get(key)
    }

    /// Returns a time that the user set in milliseconds by `-X`, or `otherwise`.
    #[must_use]
    pub fn time(&self, key: &str, otherwise: Duration) -> Duration {
        let millis = self.property(key).and_then(|millis| millis.parse().ok());
        millis.map_or(otherwise, Duration::from_millis)
    }

    /// Returns how long the group waits for a member's heartbeat before it drops it, in the classic protocol.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        self.time("session.timeout.ms", SESSION_TIMEOUT)
    }

    /// Returns the pause after which a process may have lost its membership without knowing it: its last heartbeat was
    /// some time before.
    #[must_use]
    pub fn doubtful_standstill(&self) -> Duration {
        self.session_timeout() / 2
    }

    /// Returns the configuration that all clients share.
    #[must_use]
    pub(crate) fn client(&self) -> ClientConfig {
        self.complete(ClientConfig::new())
    }

    /// Configures a consumer without a group: it assigns itself, never pauses, learns where partitions end.
    #[must_use]
    pub(crate) fn reader(&self, group: &str, isolation: Isolation) -> ClientConfig {
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
            .set("fetch.message.max.bytes", PARTITION_FETCH_BYTES)
            .set("fetch.max.bytes", FETCH_BYTES)
            .set("isolation.level", isolation.as_str());
        config.remove("group.instance.id");
        config.remove("group.protocol");
        config
    }

    /// Configures the worker's group consumer.
    #[must_use]
    pub(crate) fn group_consumer(&self, group: &str, protocol: GroupProtocol) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Off: `rd_kafka_consume_batch_queue` counts the end-of-partition notice as a record, so after the next
            // pause (each rebalance makes one) the fetcher skips a record (librdkafka 2.12.1,
            // rd_kafka_q_serve_rkmessages).
            .set("enable.partition.eof", "false")
            .set("allow.auto.create.topics", "false")
            // How long a topic's growth goes unnoticed; librdkafka's default is five minutes.
            .set("topic.metadata.refresh.interval.ms", "30000")
            // Starts are always explicit; if librdkafka ever had to choose, `latest` would lose records.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // With a bounded queue the fetcher would sleep a second each time the queue is full.
            .set("fetch.queue.backoff.ms", "1")
            // Eight times as much made nothing faster, and took 50 to 90 MiB more while a backlog was drained.
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.message.max.bytes", PARTITION_FETCH_BYTES)
            .set("fetch.max.bytes", FETCH_BYTES)
            .set("group.protocol", protocol.as_str());
        if protocol == GroupProtocol::Classic {
            config.set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string());
            config.set("heartbeat.interval.ms", HEARTBEAT_MS);
            // Its log tells when the member joins the group anew.
            config.set("debug", "cgrp");
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        let mut config = self.complete(config);
        if self.property("client.id").is_none() {
            config.set("client.id", format!("genwatch-{}", worker_name()));
        }
        config
    }

    /// Configures a sink's group consumer: like the worker's, but each topic is assigned separately.
    /// (`cooperative-sticky` balances only totals: a second sink may get the quiet topics while the first one keeps all
    /// readings.)
    #[must_use]
    pub(crate) fn sink_consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.group_consumer(group, GroupProtocol::Classic);
        if self.property("partition.assignment.strategy").is_none() {
            config.set("partition.assignment.strategy", "roundrobin");
        }
        if self.property("debug").is_none() {
            config.remove("debug");
        }
        config
    }

    /// Configures a producer that partitions like the Java client.
    #[must_use]
    pub(crate) fn producer(&self) -> ClientConfig {
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

    /// Configures the producer of a worker whose commits are transactions. One id per process: fencing uses the group's
    /// generation (KIP-447), so ids needn't be stable; with the group as prefix, one ACL fits all workers. Who takes over
    /// from a process that has died registers its id, which ends what it has left open.
    #[must_use]
    pub(crate) fn transactional_producer(&self, group: &str, instance: &str) -> ClientConfig {
        self.transactional_producer_as(&transactional_id(group, instance))
    }

    /// Configures a producer with this transactional id: it fences earlier ones that have it.
    #[must_use]
    pub(crate) fn transactional_producer_as(&self, id: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("transactional.id", id);
        if self.property("transaction.timeout.ms").is_none() {
            config.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        }
        config
    }

    /// Returns the properties that all clients share, as librdkafka takes them; secrets are in clear.
    pub fn shared_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_said = self.properties.iter().any(|(key, _)| key.starts_with("ssl.ca."));
        // The linked OpenSSL looks where no system has certificates; `probe` looks where they are.
        let probe = (!is_said && !certificates_by_environment()).then_some(("ssl.ca.location", "probe"));
        let ours = [("bootstrap.servers", self.brokers.as_str()), ("client.id", "genwatch")];
        ours.into_iter().chain(probe).chain(self.properties.iter())
    }

    /// Adds what all clients share; the user's properties come last. (Not by copying another configuration:
    /// `ClientConfig::config_map` returns a placeholder for each password.)
    fn complete(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in self.shared_properties() {
            config.set(key, value);
        }
        // The log says what librdkafka does; errors come by callback. Whoever sets `debug` wants to read the result.
        let debugs = self.property("debug").is_some();
        config.set_log_level(if debugs { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        config
    }
}

/// Whether OpenSSL's own variables say what to trust; OpenSSL uses them unless configured otherwise.
fn certificates_by_environment() -> bool {
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some())
}

/// The transactional id of an instance of a group's workers.
#[must_use]
pub(crate) fn transactional_id(group: &str, instance: &str) -> String {
    format!("{group}-{instance}")
}

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Records of committed transactions, and those outside any.
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

/// How the group assigns partitions to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Join and sync, with the cooperative-sticky assignor.
    Classic,
    /// KIP-848: the broker assigns.
    Consumer,
}

impl GroupProtocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            GroupProtocol::Classic => "classic",
            GroupProtocol::Consumer => "consumer",
        }
    }
}

/// Why the connection options were refused. No value is shown: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not `key=value`.
    #[error("{origin}: expected key=value with a property of librdkafka (or @file), such as client.id=me")]
    NoPair {
        /// `-X`, or the file and its line.
        origin: String,
    },
    /// A properties file can't be read.
    #[error("-X @{path}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// librdkafka doesn't know the property or the value.
    #[error("{origin}: {reason} (see librdkafka's CONFIGURATION.md)")]
    Property {
        /// Where the user set which property.
        origin: String,
        /// What librdkafka said.
        reason: String,
    },
    /// genwatch sets it itself.
    #[error("{origin} is not for users to set: {instead}")]
    Managed {
        /// Where the user set which property.
        origin: String,
        /// What to do instead, or why.
        instead: &'static str,
    },
    /// This build of librdkafka can't do it.
    #[error(
        "{origin}: {what} is not compiled into genwatch; available: sasl.mechanism PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, \
         and client certificates (security.protocol=ssl)"
    )]
    NotCompiledIn {
        /// Where the user asked for it.
        origin: String,
        /// What is missing.
        what: &'static str,
    },
    /// Properties conflict.
    #[error("-X: {0}")]
    Refused(String),
}

/// Context of rust-rdkafka's clients: logs go to `tracing`; errors are kept for the message that a user reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    errors: Arc<Mutex<Vec<(KafkaError, String)>>>,
}

impl Context {
    /// Returns the errors since the last call, oldest first.
    #[must_use]
    pub(crate) fn take_errors(&self) -> Vec<(KafkaError, String)> {
        std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: if nobody takes them, they must not grow.
        if errors.len() < 64 {
            errors.push((error, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
}

/// Logs a line of librdkafka (`level` as in syslog). What an operator must act on comes as an error, so these are for
/// debugging: `RUST_LOG=librdkafka=debug`.
pub(crate) fn log(level: i32, facility: &str, message: &str) {
    match level {
        ..=2 => tracing::error!(target: "librdkafka", facility, "{message}"),
        3..=6 => tracing::debug!(target: "librdkafka", facility, "{message}"),
        _ => tracing::trace!(target: "librdkafka", facility, "{message}"),
    }
}

/// Returns this worker's name: host and process id.
#[must_use]
pub fn worker_name() -> String {
    format!("{}-{}", host_name(), std::process::id())
}

/// Returns the name of this machine or container.
#[must_use]
pub fn host_name() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    host.as_deref().map(str::trim).filter(|name| !name.is_empty()).unwrap_or("localhost").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(properties: &[&str]) -> Result<Connection, ConfigError> {
        let properties: Vec<SecretString> = properties.iter().map(|pair| SecretString::from(*pair)).collect();
        Connection::new("localhost:1", &properties)
    }

    fn refusal(properties: &[&str]) -> String {
        connection(properties).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_wrong_property_is_named_and_its_value_is_not() {
        let said = refusal(&["sasl.pasword=hunter2"]);
        assert!(said.starts_with("-X sasl.pasword: No such configuration property"), "{said}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "client.id=me\nsasl.pasword=hunter2\n").expect("written");
        let in_file = refusal(&[&format!("@{}", file.path().display())]);
        assert!(
            in_file.contains(&format!("{}:2: sasl.pasword: No such", file.path().display())),
            "{in_file}"
        );
        for said in [said, in_file, refusal(&["hunter2"]), refusal(&["socket.timeout.ms=hunter2"])] {
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn properties_that_do_not_fit_together_are_found_at_the_start() {
        for pair in ["max.poll.interval.ms=1000", "retries=0", "max.in.flight=100"] {
            let (key, _) = pair.split_once('=').expect("a pair");
            assert!(refusal(&[pair]).contains(key), "{}", refusal(&[pair]));
        }
        let connection = connection(&["message.timeout.ms=120000"]).expect("right for a simulator");
        assert!(connection.check_worker("g", GroupProtocol::Classic, false).is_ok());
        let refused = connection.check_worker("g", GroupProtocol::Classic, true).expect_err("longer than it");
        assert!(refused.to_string().contains("transaction.timeout.ms"), "{refused}");
    }

    #[test]
    fn the_systems_certificates_are_trusted_unless_the_user_says_which() {
        let location = |properties: &[&str]| {
            let connection = connection(properties).expect("valid");
            connection.client().get("ssl.ca.location").map(str::to_owned)
        };
        assert_eq!(location(&[]).as_deref(), (!certificates_by_environment()).then_some("probe"));
        assert_eq!(location(&["ssl.ca.location=/ca.pem"]).as_deref(), Some("/ca.pem"));
        assert_eq!(location(&["ssl.ca.pem=x"]), None);
    }

    #[test]
    fn the_users_brokers_win_under_both_names() {
        for alias in ["bootstrap.servers", "metadata.broker.list"] {
            let connection = connection(&[&format!("{alias}=there:9")]).expect("valid");
            assert_eq!(connection.brokers(), "there:9");
            assert_eq!(connection.client().get("bootstrap.servers"), Some("there:9"));
        }
    }

    #[test]
    fn the_user_has_the_last_word() {
        let connection = connection(&["session.timeout.ms=7000"]).expect("valid");
        let config = connection.group_consumer("g", GroupProtocol::Classic);
        assert_eq!(config.get("session.timeout.ms"), Some("7000"));
        assert!(matches!(connection.producer().log_level, RDKafkaLogLevel::Info));
        let debugs = self::connection(&["debug=eos"]).expect("valid");
        assert!(
            matches!(debugs.producer().log_level, RDKafkaLogLevel::Debug),
            "librdkafka says it at this level"
        );
    }

    #[test]
    fn every_client_is_given_the_password() {
        let connection = connection(&["sasl.password=hunter2"]).expect("valid");
        assert!(!format!("{connection:?}").contains("hunter2"), "{connection:?}");
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
}
