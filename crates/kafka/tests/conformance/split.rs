//! The moment at which most traits show: a member has an open revocation.

use crate::member::{Member, Membership, Told};
use crate::place::Place;

/// Two members; the first had everything, and is to give up half.
pub struct Split {
    pub place: Place,
    pub first: Member,
    /// Has answered nothing yet, so it doesn't join again.
    pub second: Member,
    /// What the first one has to answer.
    pub told: Told,
    pub revoked: Vec<i32>,
    pub kept: Vec<i32>,
    /// The first one's membership when it had everything.
    pub before: Membership,
}

impl Split {
    /// Creates a split of `partitions` partitions; the properties are the first one's.
    pub fn of(partitions: i32, properties: &[(&str, &str)]) -> Split {
        let place = Place::new(partitions);
        let all = usize::try_from(partitions).expect("a count");
        let first = Member::join_and_take(&place, properties, all);
        let before = first.membership();
        // A static member would bring its id along.
        let shared: Vec<_> =
            properties.iter().copied().filter(|(key, _)| *key != "group.instance.id").collect();
        let second = Member::join(&place, &shared);
        let told = crate::waiting::until_some("the first one's revocation", || {
            second.look();
            first.look();
            first.told()
        });
        let Told::Revoked(revoked) = &told else { panic!("not a revocation: {told:?}") };
        let kept = first.assignment().into_iter().filter(|partition| !revoked.contains(partition)).collect();
        Split { revoked: revoked.clone(), kept, place, first, second, told, before }
    }

    /// Answers the revocation late, and the stale assignment that follows; returns the first one's next rebalance.
    pub fn answer_late(&self) -> Told {
        self.first.answer(&self.told);
        let stale = self.first.next_told();
        assert_eq!(stale, Told::Assigned(vec![]));
        self.first.answer(&stale);
        crate::waiting::until_some("the rebalance of a sync", || {
            self.second.obey();
            self.first.look();
            self.first.told()
        })
    }

    /// Lets the second one take all partitions, as it is alone in the group.
    pub fn let_the_other_take_everything(&self) {
        let all = self.revoked.len() + self.kept.len();
        crate::waiting::until("the other has everything", || {
            self.second.obey();
            self.second.assignment().len() == all
        });
    }
}
