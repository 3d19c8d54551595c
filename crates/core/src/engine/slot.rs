//! One partition that the group says is ours.

use super::restore::{Fault, Restore};
use crate::types::{Mono, Offset, PartitionId, TopicId};

/// What a partition is in.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// There is no membership that it could be worked under.
    Waiting,
    /// Its state is on its way.
    Restoring(Restore),
    /// It's worked. The pool holds it, as in the next two.
    Active,
    /// What has begun is finished and committed; nothing new is begun.
    Draining {
        /// The one it was asked back in; none where we go by ourselves.
        generation: Option<i32>,
    },
    /// Nothing of it counts any more; it waits for the end of a commit that holds it.
    Dropping(Then),
    /// It can't be worked.
    Refused,
}

/// What comes after a partition was dropped.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Then {
    Gone,
    /// The group has to say first whether it's ours under the next membership.
    Wait,
    /// It's ours: restored anew from what is committed.
    Restore,
    Refuse(Fault),
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    /// The end of the log when it was started.
    pub(super) end: Option<Offset>,
    /// Where it was last started.
    pub(super) began: Option<Offset>,
    /// The topic that it was last started of.
    pub(super) topic: Option<TopicId>,
    /// The client's position can't be trusted; when to seek.
    pub(super) suspect: Option<Mono>,
    /// The client has stopped fetching, as this offset isn't in the log.
    pub(super) stopped: Option<Offset>,
}

impl Slot {
    pub(super) fn new() -> Slot {
        Slot { phase: Phase::Waiting, end: None, began: None, topic: None, suspect: None, stopped: None }
    }

    pub(super) fn begin(&mut self, start: Offset, end: Offset, topic: Option<TopicId>) {
        // The end of another log says nothing about this one.
        let end = self.end.filter(|_| self.topic == topic).unwrap_or(end);
        *self = Slot {
            phase: Phase::Active,
            end: Some(end),
            began: Some(start),
            topic,
            suspect: None,
            stopped: self.stopped,
        };
    }

    pub(super) fn view(&self, partition: PartitionId, committed: Option<Offset>) -> SlotView {
        let status = match self.phase {
            Phase::Active | Phase::Draining { .. } => SlotStatus::Worked,
            Phase::Waiting | Phase::Restoring(_) | Phase::Dropping(_) => SlotStatus::Awaited,
            Phase::Refused => SlotStatus::Refused,
        };
        SlotView { partition, status, committed: committed.or(self.began), end: self.end }
    }
}

/// How a partition of ours stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotStatus {
    /// It's worked.
    Worked,
    /// Not yet: its state is on its way.
    Awaited,
    /// Not until a fault is mended.
    Refused,
}

/// A partition of ours, as metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its number.
    pub partition: PartitionId,
    /// How it stands.
    pub status: SlotStatus,
    /// The committed offset; `None` while that isn't known.
    pub committed: Option<Offset>,
    /// The end it had when it was first started.
    pub end: Option<Offset>,
}
