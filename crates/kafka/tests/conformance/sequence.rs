//! The sequence number of a record that follows one that was given up.

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::broker::Cluster;
use crate::cut::Cut;
use crate::member::Member;
use crate::place::Place;
use crate::waiting::{PATIENCE, all_along};

/// T23. A record whose answer was lost waits in the queue to be sent again. An abort purges it and gives its number to
/// the next record (`rd_kafka_toppar_purge_queues`, "advancing epoch base msgid", rdkafka_partition.c), though the
/// broker may have written it; then the broker takes the next record for it, and reports it as written. The next
/// transaction is committed without its record.
///
/// Any error of a transaction purges (`rd_kafka_txn_set_abortable_error0`, rdkafka_txnmgr.c). So a producer isn't used
/// again after a transaction in which a record was given up.
#[test]
fn after_an_abort_a_record_may_be_taken_for_the_one_that_was_given_up_before_it() {
    let (cluster, here, there) = Cluster::start_behind_a_relay("conformance-cut", &[]);
    let cut = Cut::start(here, there);
    let place = Place::new_in(&cluster.brokers, 1);
    let mut config = Place::at(&format!("127.0.0.1:{here}")).client();
    config.set("transactional.id", &place.group).set("linger.ms", "0");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
    let send = |payload: &str| {
        let record = BaseRecord::<[u8], str>::to(&place.topic).partition(0).payload(payload);
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    };
    producer.init_transactions(PATIENCE).expect("a producer id");
    producer.begin_transaction().expect("begun");
    cut.break_when_written(&place.topic);
    send("given up");
    cut.until_noticed();
    producer.abort_transaction(PATIENCE).expect("aborted");
    cut.mend();
    producer.begin_transaction().expect("begun");
    send("lost");
    producer.commit_transaction(PATIENCE).expect("said to be committed");

    let everything = Member::outside(&place, &[("isolation.level", "read_uncommitted")]);
    let committed = Member::outside(&place, &[]);
    for reader in [&everything, &committed] {
        reader.assign(&[(0, 0)]).expect("assigned");
    }
    all_along("the log has the record that was given up, and nothing else", || {
        everything.look();
        committed.look();
        everything.received().iter().all(|at| *at == (0, 0)) && committed.received().is_empty()
    });
    assert_eq!(*everything.received(), [(0, 0)], "it was read at all");
}
