//! A topic that gets more partitions while a revocation is open.

use genwatch_kafka::config::{Connection, GroupProtocol};
use genwatch_kafka::consumer::{Consumer, Rebalance};

use crate::member::{Member, Told};
use crate::place::Place;
use crate::split::Split;
use crate::waiting::{all_along, until, until_some};

/// Makes metadata refreshes frequent, so that tests needn't wait for them.
const PROPERTIES: [(&str, &str); 1] = [("topic.metadata.refresh.interval.ms", "300")];

/// Lets the topic's growth overtake the first member's open revocation; returns the rebalance that then comes.
fn overtaken() -> (Split, Told) {
    let split = Split::of(4, &PROPERTIES);
    let open = split.first.membership();
    split.second.answer(&split.second.next_told());
    split.place.grow(6);
    until("the next generation, without an answer", || {
        split.second.obey();
        split.first.look();
        split.first.membership().generation > open.generation
    });
    let told = split.first.next_told();
    (split, told)
}

/// T11. `rd_kafka_cgrp_metadata_update_check` joins again whatever is open (rdkafka_cgrp.c), and without what was
/// revoked: so another member gets it before the revocation is answered, and Kafka accepts the drainer's commits in the
/// new generation. So what drains is committed only in the generation that asked for it (`Fence`).
#[test]
fn what_is_being_given_up_is_given_to_another_before_the_answer() {
    let (split, _told) = overtaken();
    // Three of the four free ones, two of which were revoked.
    until("the other has its half", || {
        split.second.obey();
        split.second.assignment().len() == 3
    });
    let twice = split.revoked.iter().find(|partition| split.second.assignment().contains(partition));
    let twice = *twice.expect("the other has one of those that are being given up");
    assert!(split.first.assignment().contains(&twice));
    assert_eq!(split.first.commit(twice, 1), Ok(()), "though it's another's");
}

/// T11. What the group leaves with the member is assigned to it again while its revocation is open, as it no longer
/// counts as owned (`rd_kafka_cgrp_handle_assignment_cooperative`, rdkafka_cgrp.c). An unassign no longer answers the
/// newer rebalance. So a draining partition may be assigned: once it is released it has to be restored, not forgotten.
#[test]
fn what_is_being_given_up_is_assigned_anew_before_the_answer() {
    let Split { place, first, second, revoked, .. } = Split::of(4, &PROPERTIES);
    place.forget(&second);
    drop(second);
    place.grow(6);
    let told = first.next_told();
    assert_eq!(told, Told::Assigned([&revoked[..], &[4, 5]].concat()));
    first.incremental_unassign(&revoked).expect("taken");
    all_along("that was no answer", || {
        first.look();
        first.told().is_none()
    });
    first.answer(&told);
    assert_eq!(first.assignment(), (0..6).collect(), "added as if it was new");
}

/// T11. What was deferred until after the answer stays deferred (`rkcg_rebalance_incr_assignment`), which counts as "a
/// rebalance is under way" forever (`RD_KAFKA_CGRP_REBALANCING`, rdkafka_cgrp.c): the member neither joins again nor
/// gets any rebalance. So another client takes the place of one that was overtaken, and of one that has no membership
/// for long though nothing is unanswered.
#[test]
fn a_member_that_was_overtaken_is_deaf_afterwards() {
    let (split, _told) = overtaken();
    split.first.incremental_unassign(&split.revoked).expect("the revocation is answered");
    split.first.incremental_assign(&[]).expect("so is the assignment");
    split.place.throw_out(&split.first);
    all_along("no rebalance, and it doesn't join", || {
        split.second.obey();
        split.first.look();
        assert_eq!(split.first.told(), None);
        split.first.membership().id.is_empty() && !split.first.is_lost()
    });
}

/// T11. For the same reason it doesn't join a rebalance that waits for it (`rd_kafka_cgrp_group_is_rebalancing`,
/// rdkafka_cgrp.c: "skipping COOPERATIVE rebalance"), and its heartbeats keep it in the group. So the group stands
/// still until the rebalance has taken `max.poll.interval.ms`, and a worker doesn't wait for its eviction.
#[test]
fn a_member_that_was_overtaken_joins_no_rebalance_that_waits_for_it() {
    let (split, told) = overtaken();
    split.first.incremental_unassign(&split.revoked).expect("the revocation is answered");
    split.first.answer(&told);
    let membership = split.first.membership();
    let third = Member::join(&split.place, &PROPERTIES);
    all_along("it stays a member, and the group waits", || {
        split.second.obey();
        third.look();
        split.first.look();
        assert_eq!((split.first.told(), third.told()), (None, None));
        split.first.membership() == membership
    });
}

/// A worker's client, which shares its topic with another member and has to give up half.
fn asked_back(place: &Place) -> (Consumer, Member) {
    let properties = PROPERTIES.map(|(key, value)| format!("{key}={value}").into());
    let connection = Connection::new(&place.brokers, &properties).expect("an address");
    let (protocol, waker) = (GroupProtocol::Classic, std::thread::current());
    let client = Consumer::of_group(&connection, &place.group, protocol, &place.topic, waker);
    let mut client = client.expect("a client");
    client.subscribe().expect("subscribed");
    until("it's assigned", || next(&mut client).is_some());
    client.acknowledge_assigned(&[]).expect("taken");
    // It doesn't notice a growth, and joins again only when it has answered.
    let second = Member::join(place, &[]);
    let told = until_some("it's revoked", || next(&mut client));
    assert!(matches!(told, Rebalance::Revoked(_)), "{told:?}");
    (client, second)
}

fn next(client: &mut Consumer) -> Option<Rebalance> {
    drop(client.poll(10));
    client.take_rebalances().pop()
}

/// An answer after librdkafka has begun to join again is as good as none, and nothing shows that. But the assignment
/// that then comes isn't the deferred one: its generation is another.
#[test]
fn the_worker_s_client_knows_that_it_was_overtaken_whenever_it_answers() {
    for answers in [true, false] {
        let place = Place::new(4);
        let (mut client, second) = asked_back(&place);
        let open = client.handle().member();
        place.grow(6);
        all_along("it waits for the other", || next(&mut client).is_none());
        assert_eq!(client.handle().member(), open, "it joins, but the group waits for the other");
        if answers {
            client.remove(&[]).expect("answered");
        }
        until("the group goes on", || {
            second.obey();
            next(&mut client).is_some()
        });
        assert!(client.was_overtaken(), "answers: {answers}");
    }
}

/// `rd_kafka_cgrp_incr_unassign_done` (rdkafka_cgrp.c): otherwise an assignment follows under the same membership.
#[test]
fn the_worker_s_client_was_not_overtaken_if_its_answer_is_heard() {
    let place = Place::new(4);
    let (mut client, second) = asked_back(&place);
    client.remove(&[]).expect("answered");
    let told = until_some("the deferred assignment", || next(&mut client));
    assert_eq!(told, Rebalance::Assigned(Vec::new()));
    client.acknowledge_assigned(&[]).expect("taken");
    until("the next sync's", || {
        second.obey();
        next(&mut client).is_some()
    });
    client.acknowledge_assigned(&[]).expect("taken");
    until("the other has its half", || {
        second.obey();
        second.assignment().len() == 2
    });
    assert!(!client.was_overtaken());
}
