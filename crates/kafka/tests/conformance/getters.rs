//! The results of `rd_kafka_consumer_group_metadata` and its getters.

use crate::member::{Member, Membership};
use crate::place::Place;
use crate::split::Split;
use crate::waiting::until;

/// `rd_kafka_consumer_group_metadata` (rdkafka_cgrp.c) returns an object for every client with a group, joined or not.
/// So "no member" means an empty id or no generation, not only a missing object (`Handle::member`).
#[test]
fn before_it_has_joined_a_member_has_no_id_and_no_generation() {
    let member = Member::outside(&Place::new(1), &[]);
    assert_eq!(member.membership(), Membership { id: String::new(), generation: -1 });
}

/// `rd_kafka_cgrp_handle_JoinGroup` (rdkafka_cgrp.c) takes the id of the coordinator's answer, which stays the same for
/// a member. So kept partitions are committed under the member id alone: their generation moves legitimately (`Fence`).
#[test]
fn a_member_keeps_its_id_while_generations_pass() {
    let split = Split::of(2, &[]);
    let open = split.first.membership();
    assert!(!split.before.id.is_empty());
    assert_eq!(open.id, split.before.id);
    assert_eq!(open.generation, split.before.generation + 1);
    split.first.answer(&split.told);
    until("the next generation", || {
        split.second.obey();
        split.first.obey();
        split.first.membership().generation == open.generation + 1
    });
    assert_eq!(split.first.membership().id, open.id);
}
