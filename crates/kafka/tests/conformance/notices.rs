//! Errors about a partition, among its records.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::member::{Member, Polled};
use crate::place::Place;
use crate::waiting::{until, until_some};

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Returns a member that has read all five records, and then got an error where the sixth would be; now there are three
/// more. The partition is paused, which drops what was fetched meanwhile.
fn after_a_notice(before_the_pause: impl FnOnce(&Member, i64)) -> (Cluster, Member) {
    let cluster = Cluster::new(1).expect("a mock cluster");
    let place = Place::at(&cluster.bootstrap_servers());
    cluster.create_topic(&place.topic, 1, 1).expect("a topic");
    place.produce(0, 5);
    let member = Member::outside(&place, &[]);
    member.assign(&[(0, 0)]).expect("assigned");
    until("all five are read", || {
        member.look();
        member.received().len() == 5
    });
    assert_eq!(member.position(0), Some(5));
    // A request without a partition swallows an error: then inject another.
    let (_, at, _) = until_some("the notice", || {
        cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG; 1]);
        let Polled { notices, records } = member.poll(1, Duration::from_secs(3));
        assert!(records.is_empty());
        notices.first().copied()
    });
    assert_eq!(at, 5, "a notice bears the offset that was asked for");
    assert_eq!(member.position(0), Some(6), "and moves the position past it");
    before_the_pause(&member, at);
    member.pause(0).expect("paused");
    place.produce(0, 3);
    member.received().clear();
    member.resume(0).expect("resumed");
    until("the last record is read", || {
        member.look();
        member.received().last() == Some(&(0, 7))
    });
    (cluster, member)
}

/// T7. A batch call takes an error for a message, and moves the application's position past it
/// (`rd_kafka_q_serve_rkmessages`, rdkafka_queue.c); a pause then takes that as the fetch position
/// (`rd_kafka_toppar_pause_resume`, rdkafka_partition.c). So a partition with a notice is suspect, and its position is
/// ignored.
#[test]
fn a_record_is_skipped_by_a_pause_after_a_notice() {
    let (_cluster, member) = after_a_notice(|_, _| ());
    assert_eq!(*member.received(), [(0, 6), (0, 7)]);
}

/// T7. A seek unsets the application's position (`rd_kafka_toppar_seek`, rdkafka_partition.c), so a pause has nothing
/// to take. So after a notice the engine seeks to what it wants next.
#[test]
fn no_record_is_skipped_after_a_seek() {
    let (_cluster, member) = after_a_notice(|member, at| {
        member.seek(0, at).expect("sought");
        assert_eq!(member.position(0), None);
    });
    assert_eq!(*member.received(), [(0, 5), (0, 6), (0, 7)]);
}
