//! Who a worker is in its group, and what a commit is compared with.

use std::sync::Arc;

/// A membership of the group, as the client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member id; with another one everything held is somebody else's.
    pub id: Arc<str>,
    /// The generation, or the epoch under KIP-848.
    pub generation: i32,
}

/// Under whom a commit's partitions are held. It's compared with the very membership that the commit's offsets are sent
/// under, as Kafka looks at member and generation, and not at who owns a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The member id.
    pub member: Arc<str>,
    /// Set if a partition in the commit drains: it may be another's in the next generation. Others stay, whatever the
    /// generation.
    pub generation: Option<i32>,
}

impl Fence {
    /// Whether offsets may be sent as this member.
    ///
    /// # Errors
    /// With the refusal that it amounts to.
    pub fn check(&self, member: Option<&Member>) -> Result<(), Refusal> {
        let member = member.filter(|member| member.id == self.member).ok_or(Refusal::NotAMember)?;
        match self.generation {
            Some(generation) if generation != member.generation => Err(Refusal::StaleGeneration),
            _ => Ok(()),
        }
    }
}

/// Why a commit was refused, as far as it matters for what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// We are no member, or another one.
    NotAMember,
    /// Another generation. That is ordinary: the client may have taken its membership just before a rebalance ended
    /// (`rd_kafka_cgrp_op_handle_OffsetCommit`, librdkafka 2.12.1), so nothing is dropped for it.
    StaleGeneration,
    /// A transaction has a time to be done in, and it was over: smaller commits may be.
    Overdue,
    /// Anything else: it's tried again.
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
