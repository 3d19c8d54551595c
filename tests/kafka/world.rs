//! The real broker and the real binary, for tests: the one helper module.
//!
//! A [`World`] is a set of topics and a consumer group that no other test uses, on the shared broker ([`broker`]) or on
//! the test's own. Workers and commands are child processes ([`process`]), run as a user runs them. Records are written
//! and read by rdkafka alone ([`records`]), so that the crate is not checked by itself.
//!
//! Nothing sleeps and hopes: [`until`] waits for whatever takes time, with a deadline.

pub mod broker;
pub mod certificates;
// tests/conformance does more with it.
#[allow(dead_code)]
pub mod cut;
pub mod http;
pub mod influx;
pub mod influxdb;
pub mod late;
pub mod mosquitto;
pub mod process;
pub mod records;
pub mod relay;
pub mod system;
pub mod transformations;
pub mod tty;
pub mod waiting;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, Producer as _};
use serde_json::Value;

use cut::Cut;
use process::{Ended, Process};
use records::{Group, Outgoing, Records};
pub use waiting::{PATIENCE, until, until_some};

/// Tests that measure run alone; all others share the machine.
static MACHINE: RwLock<()> = RwLock::new(());

/// Held while a test needs the machine; never read.
#[allow(dead_code)]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A link that breaks, and the broker behind it.
pub struct Link {
    /// Breaks it.
    pub cut: Cut,
    /// `--brokers` for clients that connect through it.
    pub brokers: String,
    _cluster: broker::Cluster,
}

/// Topics and a group of one test.
pub struct World {
    /// `--brokers`
    pub brokers: String,
    /// `--topic`
    pub topic: String,
    /// `--group`
    pub group: String,
    _turn: Option<Turn>,
}

impl World {
    /// A world with topics of `partitions` partitions.
    pub fn new(partitions: u32) -> World {
        let world = World::empty();
        world.create_topics(partitions);
        world
    }

    /// As [`World::new`], and no other test runs meanwhile. For tests in a module `alone`, which `scripts/test` runs
    /// first, so that no test has to wait for them.
    pub fn alone(partitions: u32) -> World {
        let thread = std::thread::current();
        assert!(
            thread.name().is_none_or(|test| test == "main" || test.contains("::alone::")),
            "not in a module `alone`"
        );
        let turn = Turn::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner));
        let world = World::on(broker::shared(), turn);
        world.create_topics(partitions);
        world
    }

    /// As [`World::alone`], without topics.
    pub fn alone_without_topics() -> World {
        let turn = Turn::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner));
        World::on(broker::shared(), turn)
    }

    /// A world with topics of `partitions` partitions in the test's own cluster, with a link to it that the test
    /// breaks. The world's own clients don't use the link.
    pub fn behind_a_cut(name: &str, partitions: u32) -> (World, Link) {
        let (cluster, here, there) = broker::Cluster::start_behind_a_relay(name, &[]);
        let cut = Cut::start(here, there);
        let world = World::in_cluster(&cluster, partitions);
        (world, Link { cut, brokers: format!("127.0.0.1:{here}"), _cluster: cluster })
    }

    /// Names on the shared broker, without topics.
    pub fn empty() -> World {
        World::at(broker::shared())
    }

    /// Names on this broker, without topics.
    pub fn at(brokers: &str) -> World {
        World::on(brokers, Turn::Shared(MACHINE.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A world with topics of `partitions` partitions, in the test's own cluster.
    pub fn in_cluster(cluster: &broker::Cluster, partitions: u32) -> World {
        let world = World::at(&cluster.brokers);
        world.create_topics(partitions);
        world
    }

    /// Another world of the same test, on the same broker; it must not outlive this one. (Taking a second turn could
    /// deadlock: both would wait if another test between them wants the machine alone.)
    pub fn another(&self, partitions: u32) -> World {
        let world = World::on(&self.brokers, None);
        world.create_topics(partitions);
        world
    }

    fn on(brokers: &str, turn: impl Into<Option<Turn>>) -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let thread = std::thread::current();
        let test = thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or("test");
        // A broker may outlive the test process, and meet the same process id again.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let name =
            format!("{test}-{since:x}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        World {
            brokers: brokers.to_owned(),
            topic: name.clone(),
            group: format!("{name}-group"),
            _turn: turn.into(),
        }
    }

    fn create_topics(&self, partitions: u32) {
        self.run("topics create", &["--partitions", &partitions.to_string()]).success();
    }

    /// The derived topics.
    pub fn alerts_topic(&self) -> String {
        format!("{}_alerts", self.topic)
    }

    /// See [`World::alerts_topic`].
    pub fn dlq_topic(&self) -> String {
        format!("{}_dlq", self.topic)
    }

    /// See [`World::alerts_topic`].
    pub fn state_topic(&self) -> String {
        format!("{}_state", self.group)
    }

    /// See [`World::alerts_topic`].
    pub fn workers_topic(&self) -> String {
        format!("{}_workers", self.group)
    }

    /// Starts `genwatch COMMAND` (which may be two words) in this world, with more arguments.
    pub fn start(&self, command: &str, arguments: &[&str]) -> Process {
        let cluster = ["--brokers", &self.brokers, "--topic", &self.topic, "--group", &self.group];
        let all: Vec<&str> =
            command.split_whitespace().chain(cluster).chain(arguments.iter().copied()).collect();
        Process::start(command, &all)
    }

    /// As [`World::start`], and waits for its end.
    pub fn run(&self, command: &str, arguments: &[&str]) -> Ended {
        self.start(command, arguments).wait()
    }

    /// Starts a worker.
    pub fn worker(&self, arguments: &[&str]) -> Process {
        self.start("worker", arguments)
    }

    /// Starts a worker and waits until the group has given it partitions.
    pub fn working(&self, arguments: &[&str]) -> Process {
        let worker = self.worker(arguments);
        worker.wait_until_assigned();
        worker
    }

    /// As [`World::working`], for a worker that reaches the cluster by these brokers.
    pub fn working_by(&mut self, brokers: &str, arguments: &[&str]) -> Process {
        let own = std::mem::replace(&mut self.brokers, brokers.to_owned());
        let worker = self.working(arguments);
        self.brokers = own;
        worker
    }

    /// Runs a worker to the end of the log.
    pub fn work_to_the_end(&self, arguments: &[&str]) -> Ended {
        let arguments: Vec<&str> = [&["--exit-at-end"], arguments].concat();
        self.run("worker", &arguments).success()
    }

    /// Produces records to the readings topic.
    pub fn produce(&self, records: &[Outgoing]) {
        records::produce(&self.brokers, &self.topic, records);
    }

    /// Gives the readings topic more partitions.
    pub fn grow(&self, partitions: usize) {
        let admin = self.admin();
        let grown = NewPartitions::new(&self.topic, partitions);
        let results = block_on(admin.create_partitions([&grown], &AdminOptions::new())).expect("an answer");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Limits a topic's batches to this many bytes; all its other settings are the brokers'.
    pub fn limit_messages(&self, topic: &str, bytes: usize) {
        let admin = self.admin();
        let bytes = bytes.to_string();
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
        let results = block_on(admin.alter_configs([&config], &AdminOptions::new())).expect("an answer");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Changes settings of a topic, as `key=value`, several separated by commas; the others stay.
    pub fn configure(&self, topic: &str, settings: &str) {
        let entity = ["--alter", "--entity-type", "topics", "--entity-name", topic];
        let server = ["--bootstrap-server", &self.brokers];
        let arguments = [&server[..], &entity, &["--add-config", settings]].concat();
        broker::tool("kafka.admin.ConfigCommand", &arguments);
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) {
        let deleted =
            block_on(self.admin().delete_topics(&[topic], &AdminOptions::new())).expect("an answer");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// Deletes the readings topic, and recreates it.
    pub fn make_topic_anew(&self, partitions: i32) {
        self.delete(&self.topic);
        let admin = self.admin();
        let options = AdminOptions::new();
        let topic = NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(1));
        until("the topic is recreated", || {
            block_on(admin.create_topics([&topic], &options)).expect("an answer").iter().all(Result::is_ok)
        });
    }

    /// The same topics, worked by another group.
    pub fn another_group(&self) -> World {
        let group = format!("{}-other", self.group);
        World { brokers: self.brokers.clone(), topic: self.topic.clone(), group, _turn: None }
    }

    /// Whether there is such a topic.
    pub fn has_topic(&self, topic: &str) -> bool {
        let consumer = self.consumer();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        metadata.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty())
    }

    /// The names of all topics of the cluster.
    pub fn all_topics(&self) -> Vec<String> {
        let metadata = self.consumer().fetch_metadata(None, PATIENCE).expect("metadata");
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }

    /// Creates a topic of outputs.
    pub fn create_like_readings(&self, topic: &str, partitions: i32) {
        let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().expect("an admin client")
    }

    /// All committed records of a topic, in the order of each partition, partition by partition.
    pub fn read(&self, topic: &str) -> Records {
        records::read(&self.brokers, topic)
    }

    /// The readings as they are in the log.
    pub fn readings(&self) -> Records {
        self.read(&self.topic)
    }

    /// The values of the alerts topic.
    pub fn alerts(&self) -> Vec<Value> {
        self.read(&self.alerts_topic()).values().collect()
    }

    /// The group's committed offsets.
    pub fn progress(&self) -> Group {
        records::progress(&self.brokers, &self.topic, &self.group)
    }

    /// Another group's committed offsets in the readings topic.
    pub fn progress_of(&self, group: &str) -> Group {
        records::progress(&self.brokers, &self.topic, group)
    }

    /// A producer with the transactional id of one of the group's workers, whose transactions may stay open for so long.
    pub fn transactional_producer(&self, instance: &str, timeout: Duration) -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("transactional.id", format!("{}-{instance}", self.group))
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("a producer id");
        producer
    }

    /// A client of the group that is not a member: to look at its offsets, or to set them.
    pub fn consumer(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer")
    }

    /// Waits until everything now in the log has been committed.
    pub fn wait_until_worked(&self) {
        until("the group has committed everything", || self.progress().lag() == 0);
    }
}

/// Wall clock in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
