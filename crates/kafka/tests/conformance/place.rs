//! A topic and a group that no other test uses; and actions of others on them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::broker;
use crate::member::Member;
use crate::waiting::{PATIENCE, until};

/// The place of a test.
pub struct Place {
    pub brokers: String,
    pub topic: String,
    pub group: String,
}

impl Place {
    /// Creates a topic of `partitions` partitions on the shared broker.
    pub fn new(partitions: i32) -> Place {
        Place::new_in(broker::shared(), partitions)
    }

    /// As [`Place::new`], on this cluster.
    pub fn new_in(brokers: &str, partitions: i32) -> Place {
        let place = Place::at(brokers);
        let topic = NewTopic::new(&place.topic, partitions, TopicReplication::Fixed(1));
        let made = block_on(place.admin().create_topics([&topic], &options())).expect("an answer");
        made[0].as_ref().expect("the topic is created");
        place
    }

    /// Chooses names on this cluster; creates no topic.
    pub fn at(brokers: &str) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // A broker may outlive the test process, and see the same process id again.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis();
        let name =
            format!("conformance-{since:x}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Place { brokers: brokers.to_owned(), group: format!("{name}-group"), topic: name }
    }

    /// Grows the topic to `partitions` partitions.
    pub fn grow(&self, partitions: usize) {
        let grown = [&NewPartitions::new(&self.topic, partitions)];
        let made = block_on(self.admin().create_partitions(grown, &options())).expect("an answer");
        made[0].as_ref().expect("the topic has grown");
    }

    /// Produces `count` small records to a partition, all acknowledged.
    pub fn produce(&self, partition: i32, count: usize) {
        let mut config = self.client();
        let producer: ThreadedProducer<DefaultProducerContext> =
            config.set("enable.idempotence", "true").create().expect("a producer");
        for _ in 0..count {
            let record = BaseRecord::<[u8], [u8]>::to(&self.topic).partition(partition).payload(b"record");
            producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        }
        producer.flush(PATIENCE).expect("all acknowledged");
    }

    /// Returns a configuration for the cluster.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// Makes the coordinator forget a member, as when its session ends, without asking the member. Returns when the
    /// member's heartbeat has been refused.
    pub fn throw_out(&self, member: &Member) {
        self.forget(member);
        until("the member has noticed", || member.membership().id.is_empty());
    }

    /// As [`Place::throw_out`], but returns at once: a `LeaveGroup` in the member's name, which a coordinator accepts
    /// from anybody who knows the member's id.
    pub fn forget(&self, member: &Member) {
        self.forget_id(&member.membership().id);
    }

    /// As [`Place::forget`], by the member's id.
    pub fn forget_id(&self, id: &str) {
        const LEAVE_GROUP: i16 = 13;
        let mut request = header(LEAVE_GROUP, 1);
        for text in [&self.group, id] {
            request.extend(i16::try_from(text.len()).expect("short").to_be_bytes());
            request.extend(text.as_bytes());
        }
        let answer = self.ask(&request);
        // Correlation id, throttle time, error code.
        assert_eq!(answer[8..10], [0, 0], "the coordinator refuses to let the member go");
    }

    /// As [`Place::forget`], for a member by KIP-848.
    pub fn forget_by_kip_848(&self, member: &Member) {
        const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
        const LEAVES: i32 = -1;
        let mut request = header(CONSUMER_GROUP_HEARTBEAT, 0);
        request.push(0); // no tagged fields
        for text in [&self.group, &member.membership().id] {
            request.push(u8::try_from(text.len() + 1).expect("short"));
            request.extend(text.as_bytes());
        }
        request.extend(LEAVES.to_be_bytes());
        request.extend([0, 0]); // instance, rack: null
        request.extend((-1_i32).to_be_bytes()); // the rebalance timeout stays
        request.extend([0, 0, 0, 0]); // topics, assignor, partitions: null; no tagged fields
        let answer = self.ask(&request);
        // Correlation id, no tagged fields, throttle time, error code.
        assert_eq!(answer[9..11], [0, 0], "the coordinator refuses to let the member go");
    }

    /// Sends a request to the cluster's one node, which is every group's coordinator.
    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut broker = TcpStream::connect(&self.brokers).expect("a connection");
        broker.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        broker.write_all(&u32::try_from(request.len()).expect("short").to_be_bytes()).expect("sent");
        broker.write_all(request).expect("sent");
        let mut size = [0; 4];
        broker.read_exact(&mut size).expect("an answer");
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(size)).expect("a size")];
        broker.read_exact(&mut answer).expect("an answer");
        answer
    }
}

/// Returns a request header: key, version, correlation id, no client id.
fn header(key: i16, version: i16) -> Vec<u8> {
    [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0; 4], &(-1_i16).to_be_bytes()].concat()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)))
}
