//! Whose offsets a coordinator accepts, and when they can be read.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode::{self, IllegalGeneration, OperationTimedOut, UnknownMemberId};
use rdkafka::mocking::MockCluster;

use crate::member::{Member, Membership};
use crate::place::Place;
use crate::transaction::Transaction;
use crate::waiting::{until, until_some};

/// T8. `rd_kafka_cgrp_handle_JoinGroup` (rdkafka_cgrp.c) takes the generation from the Join response; what is assigned
/// or revoked is known only with the Sync response. So the engine compares generations itself, and doesn't wait for a
/// rebalance.
#[test]
fn the_generation_changes_before_anything_is_told() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let place = Place::at(&cluster.bootstrap_servers());
    cluster.create_topic(&place.topic, 2, 1).expect("a topic");
    let first = Member::join_and_take(&place, &[], 2);
    let before = first.membership();
    // Half a second between the Join and Sync responses.
    cluster.broker_round_trip_time(1, Duration::from_millis(500)).expect("slow");
    let _second = Member::join(&place, &[]);
    until("the generation has changed", || {
        first.look();
        assert_eq!(first.told(), None, "told before the generation changed");
        first.membership().generation > before.generation
    });
    first.look();
    assert_eq!(first.told(), None, "told together with the change");
    first.next_told();
}

/// T8. `rd_kafka_send_offsets_to_transaction` (rdkafka_txnmgr.c) sends the generation of its metadata, and Kafka's
/// coordinator refuses any but the current one, even from a live member. So `Refusal::StaleGeneration` costs a member
/// nothing: it retries the commit.
#[test]
fn a_transaction_of_the_former_generation_is_refused_though_the_member_lives() {
    let place = Place::new(2);
    let first = Member::join_and_take(&place, &[], 2);
    let transaction = Transaction::begin(&place);
    let before = first.membership();
    let _second = Member::join(&place, &[]);
    until("the generation has changed", || first.membership().generation > before.generation);
    let now = first.membership();
    assert_eq!(now.id, before.id);

    assert_eq!(transaction.send_offset((0, 1), "", Some(&before)), Err(IllegalGeneration));
    transaction.again();
    transaction.send_offset((0, 1), "", Some(&now)).expect("the new one is taken");
    assert_eq!(first.told(), None, "nothing was told meanwhile: it wasn't polled");
}

/// T9. Kafka's coordinator compares id and generation (`validateOffsetCommit`, org.apache.kafka.coordinator.group), and
/// accepts offsets without either, as in librdkafka's metadata before the first join. It never checks who owns the
/// partition. So at every commit a worker compares its current membership with the one under which it holds the
/// partitions (`Fence`).
#[test]
fn the_coordinator_looks_at_member_and_generation_and_not_at_who_owns_the_partition() {
    let place = Place::new(2);
    let (first, second) = (Member::join(&place, &[]), Member::join(&place, &[]));
    until("each has one", || {
        first.obey();
        second.obey();
        first.assignment().len() == 1 && second.assignment().len() == 1
    });
    let (of_first, member) = (*first.assignment().first().expect("one"), second.membership());
    let transaction = Transaction::begin(&place);
    let send = |member: Option<&Membership>| -> Result<(), RDKafkaErrorCode> {
        let sent = transaction.send_offset((of_first, 1), "", member);
        transaction.again();
        sent
    };
    assert_eq!(send(Some(&member)), Ok(()), "another's partition");
    assert_eq!(send(None), Ok(()), "from nobody");
    let stranger = Membership { id: "stranger".to_owned(), ..member.clone() };
    assert_eq!(send(Some(&stranger)), Err(UnknownMemberId));
    let thrown_out = Membership { id: String::new(), ..member.clone() };
    assert_eq!(send(Some(&thrown_out)), Err(UnknownMemberId), "as librdkafka sends it after an eviction");
    let without_generation = Membership { generation: -1, ..member.clone() };
    assert_eq!(send(Some(&without_generation)), Err(IllegalGeneration));
    let from_nobody = Membership { id: String::new(), generation: -1 };
    assert_eq!(send(Some(&from_nobody)), Ok(()), "from nobody");
    assert_eq!(second.commit(of_first, 1), Ok(()), "another's partition, without a transaction");
}

/// T13, T14. With `isolation.level=read_committed` librdkafka asks for stable offsets (`rd_kafka_OffsetFetchRequest`,
/// rdkafka_request.c; KIP-447), and Kafka keeps a note with an offset until the offset is overwritten. So states are
/// asked for once the offset is known, and the note says which log an offset belongs to.
#[test]
fn an_offset_of_an_open_transaction_is_waited_for_and_comes_back_with_its_note() {
    let place = Place::new(1);
    let transaction = Transaction::begin(&place);
    transaction.send_offset((0, 7), "a note", None).expect("sent");

    let reader = Member::outside(&place, &[]);
    let hasty = Member::outside(&place, &[("isolation.level", "read_uncommitted")]);
    let ask = |reader: &Member| reader.committed(0, Duration::from_secs(2));
    until("the group's coordinator answers", || ask(&hasty) == Ok(None));
    assert_eq!(ask(&reader), Err(OperationTimedOut));
    transaction.commit();
    let committed = until_some("it's stable", || ask(&reader).ok().flatten());
    assert_eq!(committed, (7, "a note".to_owned()));
    reader.commit(0, 8).expect("committed without a note");
    assert_eq!(ask(&reader), Ok(Some((8, String::new()))), "the note went with its offset");
}
