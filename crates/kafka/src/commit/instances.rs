//! Who commits: one instance for each membership of the process in its group.
//!
//! The instance is part of each commit's token and of the transactional id. If the membership ends, whoever takes the
//! partitions over may end the instance's transactions
//! ([`Note::departed`](genwatch_core::engine::note::Note::departed)); as the process comes back as another one, that
//! never hurts it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};

use uuid::Uuid;

/// The instances of this process. Clones share what they know.
#[derive(Clone, Debug)]
pub(super) struct Instances {
    first: Uuid,
    /// The member id of the first membership.
    first_member: Arc<OnceLock<Arc<str>>>,
}

impl Instances {
    pub(super) fn new() -> Instances {
        Instances { first: Uuid::new_v4(), first_member: Arc::default() }
    }

    /// The instance of the first membership, whichever that will be: so a producer can be made before it's known.
    pub(super) fn first(&self) -> Uuid {
        self.first
    }

    /// The instance of this membership, always the same.
    pub(super) fn of(&self, member: &Arc<str>) -> Uuid {
        if self.first_member.get_or_init(|| Arc::clone(member)) == member {
            return self.first;
        }
        let mut hasher = DefaultHasher::new();
        member.hash(&mut hasher);
        Uuid::from_u128(self.first.as_u128() ^ u128::from(hasher.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_membership_is_an_instance_of_its_own() {
        let instances = Instances::new();
        let [one, other]: [Arc<str>; 2] = ["one".into(), "other".into()];
        let first = instances.of(&one);
        assert_eq!(first, instances.first());
        let second = instances.clone().of(&other);
        assert_ne!(second, first);
        assert_eq!((instances.of(&one), instances.of(&other)), (first, second));
        assert_ne!(Instances::new().of(&other), second, "another process");
    }
}
