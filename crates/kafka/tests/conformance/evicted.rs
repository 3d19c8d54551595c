//! A member that the group has thrown out.

use rdkafka::error::RDKafkaErrorCode::UnknownMemberId;

use crate::member::Told;
use crate::split::Split;
use crate::waiting::all_along;

/// T2. `rd_kafka_cgrp_handle_heartbeat_error_op` forgets the member id, and `rd_kafka_cgrp_revoke_all_rejoin_maybe`
/// skips the rest while anything is unanswered (rdkafka_cgrp.c). So the engine asks for its membership while a
/// rebalance is open, and drops what it held under another: otherwise commits would be refused forever, and the
/// revocation never answered.
#[test]
fn nothing_is_told_while_a_revocation_is_open_but_the_id_is_gone() {
    let split = Split::of(4, &[]);
    let open = split.first.membership();
    split.place.throw_out(&split.first);
    all_along("no rebalance, and it has no id", || {
        split.first.look();
        let now = split.first.membership();
        assert_eq!(split.first.told(), None);
        now.id.is_empty() && now.generation == open.generation && !split.first.is_lost()
    });
    assert_eq!(split.first.commit(split.revoked[0], 1), Err(UnknownMemberId));
}

/// T3, a member without a name. The answer brings the assignment of the previous sync
/// (`rd_kafka_cgrp_incr_unassign_done`); the next join without an id is refused with MEMBER_ID_REQUIRED, which revokes
/// the rest (`rd_kafka_cgrp_handle_JoinGroup`). So the engine restores nothing that is assigned while it has no
/// membership.
#[test]
fn the_rest_is_lost_after_the_answer() {
    let split = Split::of(4, &[]);
    split.place.throw_out(&split.first);
    split.first.answer(&split.told);
    let stale = split.first.next_told();
    assert_eq!(stale, Told::Assigned(vec![]));
    assert_eq!(split.first.membership().id, "");
    split.first.answer(&stale);
    assert_eq!(split.first.next_told(), Told::Lost(split.kept.clone()));
}

/// T3, a static member (KIP-345). Its join is never refused with MEMBER_ID_REQUIRED, so nothing is revoked: it joins
/// with what it has, and continues with it under another id (`rd_kafka_cgrp_handle_JoinGroup`, rdkafka_cgrp.c). So the
/// engine restores all that it holds when its member id changes: no callback ever reports that.
#[test]
fn a_static_member_keeps_the_rest_under_another_id_and_nothing_is_told() {
    let split = Split::of(4, &[("group.instance.id", "one")]);
    split.place.throw_out(&split.first);
    assert_eq!(split.answer_late(), Told::Assigned(vec![]));
    let now = split.first.membership();
    assert!(!now.id.is_empty() && now.id != split.before.id);
    assert_eq!(split.first.assignment(), split.kept.iter().copied().collect());
    assert_eq!(split.first.commit(split.kept[0], 1), Ok(()));
}

/// T3, a static member whose partitions went to others meanwhile: an ordinary revocation takes them from it, as if
/// nothing had happened (`rd_kafka_cgrp_handle_assignment_cooperative`, rdkafka_cgrp.c). So the engine decides by the
/// member id, not by "lost", whether what it drains is still its own.
#[test]
fn a_static_member_is_asked_back_for_what_others_have_got_meanwhile() {
    let split = Split::of(4, &[("group.instance.id", "one")]);
    split.place.throw_out(&split.first);
    split.let_the_other_take_everything();
    assert_eq!(split.answer_late(), Told::Revoked(split.kept.clone()));
    assert_ne!(split.first.membership().id, split.before.id);
}

/// T21. By KIP-848 a fenced member waits until nothing is open, and then loses the rest; its id stays
/// (`rd_kafka_cgrp_consumer_serve`, rdkafka_cgrp.c). So there an unchanged member id doesn't prove membership, and the
/// engine waits for the loss.
#[test]
fn by_kip_848_the_rest_is_lost_after_the_answer_and_the_id_stays() {
    let split = Split::of(4, &[("group.protocol", "consumer")]);
    split.place.forget_by_kip_848(&split.first);
    split.let_the_other_take_everything();
    split.first.look();
    assert_eq!(split.first.told(), None);
    split.first.answer(&split.told);
    let next = split.first.next_told();
    assert_eq!(next, Told::Assigned(vec![]));
    split.first.answer(&next);
    assert_eq!(split.first.next_told(), Told::Lost(split.kept.clone()));
    assert_eq!(split.first.membership().id, split.before.id);
}
