//! What `rd_kafka_assignment_lost` says, and which calls ignore it.

use rdkafka::error::RDKafkaErrorCode::State;

use crate::member::{Member, Told};
use crate::place::Place;
use crate::waiting::until;

/// Returns a member with one of its two partitions added, thrown out and not yet notified.
fn thrown_out() -> (Place, Member) {
    let place = Place::new(2);
    let member = Member::join(&place, &[]);
    assert_eq!(member.next_told(), Told::Assigned(vec![0, 1]));
    member.incremental_assign(&[(0, 0)]).expect("added");
    place.throw_out(&member);
    until("the assignment is lost", || member.is_lost());
    (place, member)
}

/// T4. `rd_kafka_cgrp_revoke_all_rejoin` (rdkafka_cgrp.c) marks the assignment as lost and revokes all of it, including
/// what was never added. So the engine accepts the loss of a partition that it is still restoring, and forgets its
/// questions.
#[test]
fn a_loss_is_told_as_a_loss() {
    let (_place, member) = thrown_out();
    assert_eq!(member.next_told(), Told::Lost(vec![0, 1]));
}

/// T4, T5. `rd_kafka_assignment_add` (rdkafka_assignment.c) ignores the mark, and `rd_kafka_cgrp_incremental_assign`
/// clears it; the callback asks for it when it runs. So the engine never relies on a loss being reported as one: it
/// compares what it commits with the member id.
#[test]
fn an_assignment_that_was_lost_may_be_added_to_and_the_loss_is_then_told_as_a_revocation() {
    let (_place, member) = thrown_out();
    member.incremental_assign(&[(1, 0)]).expect("not refused");
    assert!(!member.is_lost());
    assert_eq!(member.next_told(), Told::Revoked(vec![0, 1]));
}

/// T4. `rd_kafka_cgrp_incremental_assign` and `rd_kafka_cgrp_incremental_unassign` clear the mark, even with an empty
/// list. `rd_kafka_cgrp_handle_assign_op` refuses the absolute calls to a cooperative member (all rdkafka_cgrp.c): so
/// the consumer asks for the protocol before it calls one.
#[test]
fn every_incremental_call_clears_the_mark_and_the_absolute_ones_are_refused() {
    type Call = fn(&Member) -> Result<(), rdkafka::error::RDKafkaErrorCode>;
    let calls: [(&str, Call); 2] = [
        ("incremental_assign", |member| member.incremental_assign(&[])),
        ("incremental_unassign", |member| member.incremental_unassign(&[])),
    ];
    for (name, call) in calls {
        let (_place, member) = thrown_out();
        assert_eq!(member.assign(&[(0, 0)]), Err(State));
        assert_eq!(member.unassign(), Err(State));
        assert!(member.is_lost());
        call(&member).expect(name);
        assert!(!member.is_lost(), "{name}");
    }
}
