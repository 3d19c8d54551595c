//! A topic that gets more partitions while a revocation is open.

use crate::member::Told;
use crate::split::Split;
use crate::waiting::{all_along, until};

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
/// gets any rebalance. So a worker without a membership for long starts over, though nothing is unanswered.
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
