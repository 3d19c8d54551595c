//! A topic that gets more partitions while a revocation is open.

use crate::member::Told;
use crate::split::Split;
use crate::waiting::{all_along, until};

/// A refresh of the metadata is not waited for.
const PROPERTIES: [(&str, &str); 1] = [("topic.metadata.refresh.interval.ms", "300")];

/// The first member's open revocation was overtaken by the topic's growth; what it was told then.
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
/// revoked: so another has it before the revocation was answered, and Kafka takes the drainer's commits in the new
/// generation. So what drains is committed only in the generation that asked for it (`Fence`).
#[test]
fn what_is_being_given_up_is_given_to_another_before_the_answer() {
    let (split, _told) = overtaken();
    // Three of the four that nobody has, two of which were revoked.
    until("the other has its half", || {
        split.second.obey();
        split.second.assignment().len() == 3
    });
    let twice = split.revoked.iter().find(|partition| split.second.assignment().contains(partition));
    let twice = *twice.expect("the other has one of those that are being given up");
    assert!(split.first.assignment().contains(&twice));
    assert_eq!(split.first.commit(twice, 1), Ok(()), "though it's another's");
}

/// T11. And what the group leaves with the member is assigned to it anew while its revocation is open, as it's no
/// longer counted as owned (`rd_kafka_cgrp_handle_assignment_cooperative`, rdkafka_cgrp.c). An unassign answers the
/// newer one no more. So a partition that drains may be assigned: once it's released it has to be restored, not
/// forgotten.
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

/// T11. What was kept back for after the answer stays kept back (`rkcg_rebalance_incr_assignment`), which counts as "a
/// rebalance is under way" for ever (`RD_KAFKA_CGRP_REBALANCING`, rdkafka_cgrp.c): the member neither joins again nor
/// is told anything. So a worker that has had no membership for long begins anew, though nothing is unanswered.
#[test]
fn a_member_that_was_overtaken_is_deaf_afterwards() {
    let (split, _told) = overtaken();
    split.first.incremental_unassign(&split.revoked).expect("the revocation is answered");
    split.first.incremental_assign(&[]).expect("so is the assignment");
    split.place.throw_out(&split.first);
    all_along("it's told nothing, and doesn't join", || {
        split.second.obey();
        split.first.look();
        assert_eq!(split.first.told(), None);
        split.first.membership().id.is_empty() && !split.first.is_lost()
    });
}
