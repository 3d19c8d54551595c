//! The protocol of `range` and `roundrobin`.

use crate::member::{Member, Told};
use crate::place::Place;

/// T20. `rd_kafka_cgrp_assign` (rdkafka_cgrp.c) clears the assignment before it adds. So a partition that is restored
/// later is added together with all active ones, at their positions.
#[test]
fn an_assignment_is_absolute() {
    let member = Member::outside(&Place::new(3), &[("partition.assignment.strategy", "range")]);
    member.assign(&[(0, 0), (1, 0)]).expect("assigned");
    member.assign(&[(2, 0)]).expect("assigned");
    assert_eq!(member.assignment(), [2].into());
}

/// T20. `rd_kafka_cgrp_group_is_rebalancing` (rdkafka_cgrp.c) revokes everything before the member joins, under a
/// generation that is still valid. So a drain commits as under the cooperative protocol.
#[test]
fn everything_is_revoked_before_the_member_joins_again() {
    let place = Place::new(2);
    let range = [("partition.assignment.strategy", "range")];
    let first = Member::join(&place, &range);
    assert_eq!(first.next_told(), Told::Assigned(vec![0, 1]));
    first.assign(&[(0, 0), (1, 0)]).expect("assigned");
    let before = first.membership();

    let _second = Member::join(&place, &range);
    assert_eq!(first.next_told(), Told::Revoked(vec![0, 1]));
    assert_eq!(first.membership(), before);
    first.unassign().expect("answered");
    let Told::Assigned(list) = first.next_told() else { panic!("not an assignment") };
    assert_eq!(list.len(), 1);
    assert!(first.membership().generation > before.generation);
}
