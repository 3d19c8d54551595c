//! Rebalances and their answers.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode::{Conflict, InvalidArgument};

use crate::member::{Member, Told};
use crate::place::Place;
use crate::split::Split;
use crate::waiting::{all_along, until, until_some};

/// T1. `rd_kafka_rebalance_op_incr` (rdkafka_cgrp.c) pauses all fetching until the answer; what was fetched and not
/// handed out is fetched again from the application's position (`rd_kafka_toppar_pause_resume`, rdkafka_partition.c).
/// So the worker needs no seek for what it keeps, and a long drain holds up all its partitions.
#[test]
fn fetching_waits_for_the_answer_and_goes_on_where_the_application_was() {
    const RECORDS: i64 = 500;
    let place = Place::new(2);
    place.produce(0, 500);
    place.produce(1, 500);
    let first = Member::join_and_take(&place, &[], 2);
    until("something was handed out", || {
        first.look();
        !first.received().is_empty()
    });
    // Not polled meanwhile: the other records stay in the queue.
    let generation = first.membership().generation;
    let _second = Member::join(&place, &[]);
    until("the group rebalances", || first.membership().generation > generation);
    let Told::Revoked(revoked) = first.next_told() else { panic!("not a revocation") };

    let handed_out = first.received().len();
    assert!(handed_out < 1000, "everything was handed out before");
    all_along("nothing is handed out while unanswered", || {
        first.look();
        first.received().len() == handed_out
    });
    first.incremental_unassign(&revoked).expect("answered");
    let of_kept = || -> Vec<i64> {
        let received = first.received();
        received.iter().filter(|record| record.0 != revoked[0]).map(|record| record.1).collect()
    };
    until("the kept one has been read", || {
        first.obey();
        of_kept().last() == Some(&(RECORDS - 1))
    });
    assert_eq!(of_kept(), (0..RECORDS).collect::<Vec<_>>(), "nothing is missing or repeated");
}

/// T22. The pause puts a barrier before the rebalance, and the poll that meets it throws away what it had taken
/// (`rd_kafka_q_serve_rkmessages`, `rd_kafka_purge_outdated_messages`, rdkafka_queue.c); that is read again after the
/// answer. So a poll that brings a rebalance brings no earlier records, and the worker may serve its records first or
/// last.
#[test]
fn the_poll_that_brings_a_rebalance_hands_out_nothing_that_it_had_taken() {
    let place = Place::new(2);
    place.produce(0, 50);
    place.produce(1, 50);
    let first = Member::join_and_take(&place, &[], 2);
    until("something was handed out", || {
        first.received().extend(first.poll(1, Duration::from_millis(100)).records);
        !first.received().is_empty()
    });
    let _second = Member::join(&place, &[]);
    // Takes what is there, and waits for more.
    let taken = until_some("a poll brings the revocation", || {
        let taken = first.poll(1000, Duration::from_secs(5)).records;
        let told = first.told();
        assert!(told.is_some() || taken.is_empty(), "the rebalance took longer than the poll");
        Some((told?, taken))
    });
    let (Told::Revoked(revoked), handed_out) = taken else { panic!("not a revocation") };
    assert_eq!(handed_out, []);
    first.incremental_unassign(&revoked).expect("answered");
    let kept = 1 - revoked[0];
    until("the kept one is read", || {
        first.obey();
        first.received().iter().filter(|record| record.0 == kept).count() == 50
    });
}

/// T6. `rd_kafka_cgrp_handle_assignment_cooperative` reports an assignment after each sync, and
/// `rd_kafka_cgrp_incr_unassign_done` one after each revocation, even if empty (rdkafka_cgrp.c). The engine takes it as
/// the sign that a sync is complete, and acknowledges an empty one too.
#[test]
fn every_sync_ends_in_an_assignment_if_only_in_an_empty_one() {
    let split = Split::of(2, &[]);
    split.first.answer(&split.told);
    let after_the_revocation = split.first.next_told();
    assert_eq!(after_the_revocation, Told::Assigned(vec![]));
    split.first.answer(&after_the_revocation);
    // It joins again, so that another can get what it gave up.
    let after_that = until_some("the next sync", || {
        split.second.obey();
        split.first.look();
        split.first.told()
    });
    assert_eq!(after_that, Told::Assigned(vec![]));
}

/// T5. `rd_kafka_cgrp_incremental_unassign` (rdkafka_cgrp.c) takes any call as the answer, whatever it lists. So the
/// engine has one action that unassigns, and none that takes a partition away for another reason.
#[test]
fn any_unassign_answers_an_open_revocation_whatever_it_lists() {
    let split = Split::of(2, &[]);
    split.first.incremental_unassign(&[]).expect("taken");
    assert_eq!(split.first.next_told(), Told::Assigned(vec![]));
    assert!(split.first.assignment().is_superset(&split.revoked.iter().copied().collect()));
}

/// T5. `rd_kafka_assignment_add` and `rd_kafka_assignment_subtract` (rdkafka_assignment.c) check the whole list first.
/// So the engine knows which partitions were added: it adds none twice, and unassigns none that it was still restoring.
#[test]
fn what_is_there_is_not_added_again_and_what_is_not_there_is_not_removed() {
    let member = Member::outside(&Place::new(2), &[]);
    member.incremental_assign(&[(0, 0)]).expect("added");
    assert_eq!(member.incremental_assign(&[(0, 0)]), Err(Conflict));
    assert_eq!(member.incremental_assign(&[(0, 0), (1, 0)]), Err(Conflict));
    assert_eq!(member.incremental_unassign(&[0, 1]), Err(InvalidArgument));
    assert_eq!(member.assignment(), [0].into(), "all or nothing");
}

/// T10. Kafka's coordinator waits until every member has joined again; a member with an open revocation doesn't join
/// (`rd_kafka_cgrp_handle_heartbeat_error_op`, rdkafka_cgrp.c: "no further action if already rebalancing"). So a drain
/// has a deadline.
#[test]
fn the_group_waits_for_a_member_that_does_not_answer() {
    let split = Split::of(3, &[]);
    split.second.answer(&split.second.next_told());
    let third = Member::join(&split.place, &[]);
    all_along("no member gets anything", || {
        split.second.look();
        third.look();
        third.membership().generation == -1 && third.told().is_none() && split.second.assignment().is_empty()
    });
    split.first.answer(&split.told);
    until("everybody has one", || {
        let members = [&split.first, &split.second, &third];
        members.iter().for_each(|member| member.obey());
        members.iter().all(|member| member.assignment().len() == 1)
    });
}
