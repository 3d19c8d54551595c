//! What happens to records that a producer took and that were given up.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::error::RDKafkaErrorCode::{PurgeInflight, PurgeQueue};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DefaultProducerContext, DeliveryResult, Producer as _, ProducerContext,
    PurgeConfig,
};

use crate::member::Member;
use crate::place::Place;
use crate::waiting::{PATIENCE, all_along, until};

#[derive(Default)]
struct Reports(Mutex<Vec<Option<RDKafkaErrorCode>>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        let code = delivered.as_ref().err().and_then(|(error, _)| error.rdkafka_error_code());
        self.0.lock().expect("no panic elsewhere").push(code);
    }
}

/// A cluster that can be taken away, a producer that has delivered one record to it, and a reader of its records.
struct Outage {
    cluster: MockCluster<'static, DefaultProducerContext>,
    place: Place,
    producer: BaseProducer<Reports>,
    reader: Member,
}

impl Outage {
    fn new() -> Outage {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let place = Place::at(&cluster.bootstrap_servers());
        cluster.create_topic(&place.topic, 1, 1).expect("a topic");
        let mut config = place.client();
        config.set("enable.idempotence", "true").set("linger.ms", "0").set("reconnect.backoff.max.ms", "200");
        let producer = config.create_with_context(Reports::default()).expect("a producer");
        let reader = Member::outside(&place, &[("reconnect.backoff.max.ms", "200")]);
        reader.assign(&[(0, 0)]).expect("assigned");
        let outage = Outage { cluster, place, producer, reader };
        outage.send();
        outage.producer.flush(PATIENCE).expect("delivered");
        outage.until_there_are(1);
        outage
    }

    fn send(&self) {
        let record = BaseRecord::<[u8], [u8]>::to(&self.place.topic).partition(0).payload(b"record");
        self.producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    }

    /// Sends and doesn't wait long enough.
    fn give_up(&self) {
        self.send();
        let flushed = self.producer.flush(Duration::from_millis(300));
        assert_eq!(
            flushed.map_err(|error| error.rdkafka_error_code()),
            Err(Some(RDKafkaErrorCode::OperationTimedOut))
        );
    }

    fn reports(&self) -> Vec<Option<RDKafkaErrorCode>> {
        self.producer.poll(Duration::ZERO);
        self.producer.context().0.lock().expect("no panic elsewhere").clone()
    }

    fn until_there_are(&self, count: usize) {
        until("the records are in the log", || {
            self.reader.look();
            self.reader.received().len() == count
        });
    }
}

/// T15. A flush that times out leaves the records in the queue (`rd_kafka_flush`, rdkafka.c), and they go out when the
/// broker is back. So an at-least-once commit that is given up is purged, or its states could follow newer ones.
#[test]
fn what_was_given_up_is_delivered_later() {
    let outage = Outage::new();
    outage.cluster.broker_down(1).expect("down");
    outage.give_up();
    outage.cluster.broker_up(1).expect("up");
    outage.until_there_are(2);
}

/// T15. `rd_kafka_purge` (rdkafka.c) removes them and reports each, and later records go out as usual. So a producer is
/// used again after a purge.
#[test]
fn what_was_purged_is_not_delivered() {
    let outage = Outage::new();
    outage.cluster.broker_down(1).expect("down");
    outage.give_up();
    outage.producer.purge(PurgeConfig::default().queue().inflight());
    until("it's reported", || outage.reports().len() == 2);
    outage.cluster.broker_up(1).expect("up");
    outage.send();
    outage.until_there_are(2);
    all_along("no more than the first and the last", || {
        outage.reader.look();
        outage.reader.received().len() == 2
    });
    // If the client hasn't noticed yet, the record is on its way to a lost broker.
    until("all are reported", || outage.reports().len() == 3);
    let reports = outage.reports();
    assert!(matches!(reports[..], [None, Some(PurgeQueue | PurgeInflight), None]), "{reports:?}");
}

/// T15. A purge in flight only stops waiting for the answer (`rd_kafka_purge`, `RD_KAFKA_PURGE_F_INFLIGHT`, rdkafka.c).
/// So purged records are in doubt, not refused: the worker takes them neither for written nor for not written.
#[test]
fn what_was_purged_in_flight_may_be_in_the_log_all_the_same() {
    let outage = Outage::new();
    // The broker gets it at once, and says so later.
    outage.cluster.broker_round_trip_time(1, Duration::from_secs(3)).expect("slow");
    outage.send();
    until("it's purged", || {
        outage.producer.purge(PurgeConfig::default().inflight());
        outage.reports().len() == 2
    });
    assert_eq!(outage.reports(), [None, Some(PurgeInflight)]);
    outage.cluster.broker_round_trip_time(1, Duration::ZERO).expect("fast");
    outage.until_there_are(2);
}
