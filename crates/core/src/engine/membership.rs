//! The worker's membership in its group, and the fence of a commit.

use std::sync::Arc;

/// A membership of the group, as the client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member id. If it changes, all held partitions belong to others.
    pub id: Arc<str>,
    /// The generation, or the epoch under KIP-848.
    pub generation: i32,
}

/// The membership under which a commit's partitions are held. It is compared with the very membership that sends the
/// offsets, because Kafka checks member and generation, not who owns a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The member id.
    pub member: Arc<str>,
    /// Set if a partition in the commit drains: it may have another owner in the next generation. The others stay
    /// ours in any generation.
    pub generation: Option<i32>,
}

impl Fence {
    /// Checks whether this member may send the offsets.
    ///
    /// # Errors
    /// Returns the refusal that Kafka would give.
    pub fn check(&self, member: Option<&Member>) -> Result<(), Refusal> {
        let member = member.filter(|member| member.id == self.member).ok_or(Refusal::NotAMember)?;
        match self.generation {
            Some(generation) if generation != member.generation => Err(Refusal::StaleGeneration),
            _ => Ok(()),
        }
    }
}

/// Why a commit was refused, as far as it matters for the held partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// We aren't a member, or are another one.
    NotAMember,
    /// Another generation. That is ordinary: the client may have read its membership just before a rebalance ended
    /// (`rd_kafka_cgrp_op_handle_OffsetCommit`, librdkafka 2.12.1), so no partition is dropped for it.
    StaleGeneration,
    /// The transaction timed out: a smaller commit may succeed.
    Overdue,
    /// Anything else: the commit is retried.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_passes_under_its_own_membership_only_and_what_drains_in_its_own_generation_only() {
        let member = |id: &str, generation| Member { id: id.into(), generation };
        let kept = Fence { member: "a".into(), generation: None };
        assert_eq!(kept.check(Some(&member("a", 7))), Ok(()));
        assert_eq!(kept.check(Some(&member("b", 7))), Err(Refusal::NotAMember));
        assert_eq!(kept.check(None), Err(Refusal::NotAMember));
        let draining = Fence { generation: Some(7), ..kept };
        assert_eq!(draining.check(Some(&member("a", 7))), Ok(()));
        assert_eq!(draining.check(Some(&member("a", 8))), Err(Refusal::StaleGeneration));
    }
}
