//! The end of a membership.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use genwatch_core::types::{Offset, PartitionId};
use genwatch_kafka::config::{Connection, GroupProtocol};
use genwatch_kafka::consumer::{Consumer, Rebalance};

use crate::member::{Member, Told};
use crate::place::Place;
use crate::split::Split;
use crate::waiting::{PATIENCE, all_along, until, until_some};

/// Closes in the background, and sets the flag when done. A close that hangs ends with the process.
fn close(member: Member) -> (Arc<Member>, Arc<AtomicBool>) {
    let member = Arc::new(member);
    let done = Arc::new(AtomicBool::new(false));
    let (closed, says) = (Arc::clone(&member), Arc::clone(&done));
    std::thread::spawn(move || {
        closed.close().expect("closed");
        says.store(true, Ordering::SeqCst);
    });
    (member, done)
}

/// T19. `rd_kafka_consumer_close` waits without limit for the answer to an open revocation
/// (`rd_kafka_cgrp_try_terminate`, rdkafka_cgrp.c). It also revokes what the member was to keep
/// (`rd_kafka_cgrp_unsubscribe`), and answering that will do. So a worker answers everything before it leaves its
/// group, and its callback unassigns during a close.
#[test]
fn a_close_waits_for_the_answer_to_an_open_revocation_and_asks_for_the_rest() {
    let Split { first, second, revoked, kept, .. } = Split::of(4, &[]);
    let (first, done) = close(first);
    all_along("it waits", || {
        second.obey();
        !done.load(Ordering::SeqCst)
    });
    assert_eq!(first.told(), Some(Told::Revoked(kept)));
    first.incremental_unassign(&revoked).expect("taken");
    until("it's closed", || done.load(Ordering::SeqCst));
    assert_eq!(first.told(), None);
}

/// T19. If the open one is a loss, nothing is left to revoke: no callback comes that could answer, and the close keeps
/// waiting.
#[test]
fn a_close_waits_for_the_answer_to_a_loss_and_asks_for_nothing() {
    let place = Place::new(2);
    let member = Member::join_and_take(&place, &[], 2);
    place.throw_out(&member);
    assert_eq!(member.next_told(), Told::Lost(vec![0, 1]));
    let (member, done) = close(member);
    all_along("it waits", || {
        assert_eq!(member.told(), None);
        !done.load(Ordering::SeqCst)
    });
    member.incremental_unassign(&[0, 1]).expect("taken");
    until("it's closed", || done.load(Ordering::SeqCst));
}

/// So the worker's own client stops waiting: its thread continues with the rest of its shutdown.
#[test]
fn the_worker_s_client_does_not_wait_for_ever_to_leave() {
    let place = Place::new(1);
    let connection = Connection::new(&place.brokers, &[]).expect("an address");
    let (protocol, waker) = (GroupProtocol::Classic, std::thread::current());
    let client = Consumer::of_group(&connection, &place.group, protocol, &place.topic, waker);
    let mut client = client.expect("a client");
    client.subscribe().expect("subscribed");
    let told = |client: &mut Consumer| {
        drop(client.poll(10));
        client.take_rebalances().pop()
    };
    let assigned = until_some("it's assigned", || told(&mut client));
    assert_eq!(assigned, Rebalance::Assigned(vec![PartitionId(0)]));
    client.acknowledge_assigned(&[]).expect("taken");
    let starts = [(PartitionId(0), Offset(0))];
    client.add(&starts, &starts).expect("added");
    place.forget_id(&client.handle().member().expect("a member").id);
    assert_eq!(until_some("it's lost", || told(&mut client)), Rebalance::Lost(vec![PartitionId(0)]));
    let (ended, outcome) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || ended.send(client.close()));
    let left = outcome.recv_timeout(PATIENCE).expect("an end of it");
    assert!(left.is_err(), "it learns that the session has to end");
}

/// T19. A close revokes an unanswered assignment at once (`rd_kafka_cgrp_unsubscribe`, rdkafka_cgrp.c), and any call
/// answers both. So an assignment that is acknowledged late, or never, doesn't keep a worker from leaving.
#[test]
fn a_close_asks_back_what_was_assigned_and_not_yet_taken() {
    let member = Member::join(&Place::new(2), &[]);
    assert_eq!(member.next_told(), Told::Assigned(vec![0, 1]));
    let (member, done) = close(member);
    let told = until_some("a rebalance during the close", || member.told());
    assert_eq!(told, Told::Revoked(vec![0, 1]));
    assert!(!done.load(Ordering::SeqCst));
    member.incremental_unassign(&[]).expect("taken");
    until("it's closed", || done.load(Ordering::SeqCst));
}

/// For a closed client `rd_kafka_consumer_group_metadata` returns NULL (rdkafka_cgrp.c), and a close revokes everything
/// (`rd_kafka_cgrp_unsubscribe`). So `Handle::member` has an answer for "none", and a callback unassigns during a
/// close.
#[test]
fn a_close_asks_for_everything_back_and_leaves_no_metadata() {
    let (member, done) = close(Member::join_and_take(&Place::new(2), &[], 2));
    let told = until_some("a rebalance during the close", || member.told());
    assert_eq!(told, Told::Revoked(vec![0, 1]));
    assert!(!done.load(Ordering::SeqCst));
    member.answer(&told);
    until("it's closed", || done.load(Ordering::SeqCst));
    assert_eq!(member.metadata(), None);
}
