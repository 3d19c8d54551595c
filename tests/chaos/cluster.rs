//! Three brokers, through `scripts/kafka`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Pid, Resource, Rlimit, prlimit, test_kill_process};

/// The number of partitions of the internal topics (`scripts/kafka`).
const INTERNAL_PARTITIONS: i32 = 5;
/// A killed broker is replaced, and may register again, once its session has ended.
const PROPERTIES: [&str; 6] = [
    "broker.session.timeout.ms=6000",
    // With KIP-848 the broker has the timeouts.
    "group.consumer.min.session.timeout.ms=1000",
    "group.consumer.session.timeout.ms=6000",
    "group.consumer.min.heartbeat.interval.ms=500",
    "group.consumer.heartbeat.interval.ms=2000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=10000",
];

/// How long a cluster may take to replace a killed broker, or to change a topic just after its brokers have returned.
const TIMEOUT: Duration = Duration::from_secs(60);

pub const NODES: [i32; 3] = [1, 2, 3];

pub struct Cluster {
    pub dir: PathBuf,
    pub brokers: String,
    /// Where a relay has to listen, and the address that it forwards to.
    pub relays: Vec<(u16, u16)>,
}

impl Cluster {
    pub fn start(dir: &Path) -> Cluster {
        let mut arguments = vec!["start", "--nodes", "3", "--fresh", "--relay"];
        arguments.extend(PROPERTIES.iter().flat_map(|property| ["--property", property]));
        let brokers = script(dir, &arguments);
        assert!(!brokers.is_empty(), "scripts/kafka start names no broker");
        let relay = std::fs::read_to_string(dir.join("relay")).expect("the ports of the relay");
        let ports = |line: &str| {
            let numbers: Vec<u16> = line.split(' ').map(|number| number.parse().expect("a port")).collect();
            (numbers[2], numbers[1])
        };
        Cluster { dir: dir.to_owned(), brokers, relays: relay.lines().map(ports).collect() }
    }

    pub fn kill(&self, node: i32) {
        self.node("kill-node", node);
    }

    /// Starts it again, once the others have replaced it.
    ///
    /// Not sooner: a broker that returns while it still counts as a leader begins with everything in its own log (Kafka
    /// 4.3.1), even if no other broker has it. If that is the end of a transaction, it has some partitions commit
    /// before the next coordinator, which doesn't know of it, aborts the transaction in the others.
    /// `docs/reliability.md`, "What is left as it is".
    pub fn start_node(&self, node: i32) {
        until(&format!("the others do without broker {node}, which was killed"), || !self.serves(node));
        self.node("start-node", node);
    }

    /// Whether the others regard a broker as alive.
    fn serves(&self, node: i32) -> bool {
        let client: BaseConsumer = self.client().create().expect("a client");
        let metadata = client.fetch_metadata(None, Duration::from_secs(10));
        metadata.map_or(true, |metadata| metadata.brokers().iter().any(|broker| broker.id() == node))
    }

    /// Stops all files of the broker from growing, as a full disk does. Waits until the broker ends by that, and
    /// returns how long it took.
    pub fn fill_disk(&self, node: i32) -> Duration {
        let begun = Instant::now();
        let file = self.dir.join(format!("node-{node}/pid"));
        let pid = std::fs::read_to_string(file).expect("the broker's process id");
        let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("not 0");
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        prlimit(Some(pid), Resource::Fsize, none).expect("the limit is taken");
        until(&format!("broker {node} ends, because it can't write"), || test_kill_process(pid).is_err());
        begun.elapsed()
    }

    pub fn pause(&self, node: i32) {
        self.node("pause-node", node);
    }

    pub fn resume(&self, node: i32) {
        self.node("resume-node", node);
    }

    fn node(&self, command: &str, node: i32) {
        script(&self.dir, &[command, &node.to_string()]);
    }

    /// Gives a topic more partitions.
    pub fn grow(&self, topic: &str, partitions: i32) {
        let count = usize::try_from(partitions).expect("a count");
        let grown = NewPartitions::new(topic, count);
        self.until_done(&format!("{topic} has {partitions} partitions"), |admin, options| {
            let results = block_on(admin.create_partitions([&grown], options));
            // The request is done if only its answer was lost.
            results.is_ok_and(|results| results.iter().all(Result::is_ok))
                || self.leaders(topic).len() >= count
        });
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, topic: &str) {
        self.until_done(&format!("{topic} is deleted"), |admin, options| {
            block_on(admin.delete_topics(&[topic], options)).is_ok_and(|results| {
                results.iter().all(|result| match result {
                    // The request is done if only its answer was lost.
                    Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) | Ok(_) => true,
                    Err(_) => false,
                })
            })
        });
    }

    /// Creates a topic of three replicas.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(3));
        self.until_done(&format!("{topic} is made"), |admin, options| {
            block_on(admin.create_topics([&new], options)).is_ok_and(|results| {
                results
                    .iter()
                    .all(|result| matches!(result, Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))))
            })
        });
    }

    /// Waits until the group has none of the offsets that it had in a topic of this name: Kafka deletes them with the
    /// topic, or a worker has started over.
    pub fn wait_until_offsets_are_gone(&self, topic: &str, group: &str, partitions: i32) {
        let client: BaseConsumer = self.client().set("group.id", group).create().expect("a client");
        let is_gone = |element: &TopicPartitionListElem<'_>| {
            element.error().is_ok() && matches!(element.offset(), Offset::Invalid | Offset::Offset(0))
        };
        until(&format!("the group has no offsets of the old {topic}"), || {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(topic, 0, partitions - 1);
            let committed = client.committed_offsets(list, Duration::from_secs(5));
            committed.is_ok_and(|list| list.elements().iter().all(is_gone))
        });
    }

    /// Repeats the request until it succeeds: a cluster whose brokers have just returned may refuse it.
    fn until_done(
        &self,
        what: &str,
        ask: impl Fn(&AdminClient<DefaultClientContext>, &AdminOptions) -> bool,
    ) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("a client");
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
        until(what, || ask(&admin, &options));
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// The node that coordinates a group.
    pub fn group_coordinator(&self, group: &str) -> Option<i32> {
        // Java's hash of a string, without its sign.
        let hash =
            group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
        let partition = (hash & i32::MAX) % INTERNAL_PARTITIONS;
        self.leaders("__consumer_offsets").into_iter().find(|(id, _)| *id == partition).map(|(_, node)| node)
    }

    /// The node that coordinates most transactions.
    pub fn transaction_coordinator(&self) -> Option<i32> {
        let leaders = self.leaders("__transaction_state");
        NODES.into_iter().max_by_key(|node| leaders.iter().filter(|(_, leader)| leader == node).count())
    }

    fn leaders(&self, topic: &str) -> Vec<(i32, i32)> {
        let client: BaseConsumer = self.client().create().expect("a client");
        let Ok(metadata) = client.fetch_metadata(Some(topic), Duration::from_secs(10)) else {
            return Vec::new();
        };
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.map(|partition| (partition.id(), partition.leader())).collect()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {} s in vain until {what}", TIMEOUT.as_secs());
        crate::reaper::pause(Duration::from_millis(100));
    }
}

/// The script that runs clusters.
pub fn path() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka"))
}

fn script(dir: &Path, arguments: &[&str]) -> String {
    // In its own process group: we handle Ctrl-C.
    let output = Command::new("setsid")
        .arg("--wait")
        .arg(path())
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .expect("scripts/kafka runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/kafka {} failed:\n{said}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}
