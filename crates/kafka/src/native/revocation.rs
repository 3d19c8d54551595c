//! Notices that the group went on without the answer to a revocation.
//!
//! When a topic grows, librdkafka joins again whatever is unanswered (`rd_kafka_cgrp_metadata_update_check`, 2.12.1).
//! It then keeps the assignment that it had deferred until after the answer (`rkcg_rebalance_incr_assignment`). Until
//! the next revocation or loss it takes that for a rebalance under way: it ignores the coordinator's wish that it join
//! again, and the whole group waits for it. Nothing shows that from outside but this: otherwise the answer is followed
//! by the deferred assignment, under the membership of the revocation.
//! (`a_member_that_was_overtaken_joins_no_rebalance_that_waits_for_it`, tests/conformance)
//!
//! This holds for the classic protocol with a cooperative assignor only; others defer nothing, or have no joins.

use genwatch_core::engine::membership::Member;

use super::consumer::Rebalance;

/// The last revocation, until an assignment follows, and what that showed.
#[derive(Debug, Default)]
pub(super) struct Revocation {
    open: Option<Open>,
    is_overtaken: bool,
}

#[derive(Debug)]
struct Open {
    under: Member,
    is_answered: bool,
}

impl Revocation {
    /// Takes note of a rebalance, and of the membership under which it's heard.
    pub(super) fn heard(&mut self, rebalance: &Rebalance, member: Option<&Member>) {
        match rebalance {
            Rebalance::Assigned(_) => {
                // Without a membership it's the deferred one, too: the member was thrown out meanwhile.
                if let (Some(open), Some(member)) = (self.open.take(), member) {
                    self.is_overtaken = !open.is_answered || open.under != *member;
                }
            }
            // Without a membership it's a loss.
            Rebalance::Revoked(_) => {
                self.is_overtaken = false;
                self.open = member.map(|member| Open { under: member.clone(), is_answered: false });
            }
            Rebalance::Lost(_) => *self = Revocation::default(),
        }
    }

    /// Takes note of an answer.
    pub(super) fn answered(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_answered = true;
        }
    }

    pub(super) fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, generation: i32) -> Option<Member> {
        Some(Member { id: id.into(), generation })
    }

    fn assigned() -> Rebalance {
        Rebalance::Assigned(Vec::new())
    }

    /// After a revocation in generation 7, answered or not, and an assignment.
    fn after(is_answered: bool, then: Option<Member>) -> Revocation {
        let mut revocation = Revocation::default();
        revocation.heard(&assigned(), member("a", 6).as_ref());
        revocation.heard(&Rebalance::Revoked(Vec::new()), member("a", 7).as_ref());
        if is_answered {
            revocation.answered();
        }
        revocation.heard(&assigned(), then.as_ref());
        revocation
    }

    #[test]
    fn the_assignment_that_follows_an_answer_is_of_the_same_membership() {
        assert!(!after(true, member("a", 7)).is_overtaken());
        assert!(after(true, member("a", 8)).is_overtaken(), "another generation");
        assert!(after(true, member("b", 8)).is_overtaken(), "another member");
        assert!(after(false, member("a", 7)).is_overtaken(), "not answered");
        assert!(!after(true, None).is_overtaken(), "thrown out while it was open");
    }

    #[test]
    fn later_assignments_change_nothing_and_another_revocation_or_loss_ends_it() {
        let mut once = after(true, member("a", 7));
        once.heard(&assigned(), member("a", 8).as_ref());
        assert!(!once.is_overtaken());
        for end in [Rebalance::Revoked(Vec::new()), Rebalance::Lost(Vec::new())] {
            let mut overtaken = after(true, member("a", 8));
            overtaken.heard(&assigned(), member("a", 9).as_ref());
            assert!(overtaken.is_overtaken());
            overtaken.heard(&end, member("a", 10).as_ref());
            assert!(!overtaken.is_overtaken());
        }
    }
}
