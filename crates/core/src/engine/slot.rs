//! One partition that is assigned to us.

use super::restore::{Fault, Restore};
use crate::types::{Mono, Offset, PartitionId, TopicId};

/// The phase of a partition.
#[derive(Clone, Debug)]
pub(super) enum Phase<B> {
    /// We have no membership to process it under.
    Waiting,
    /// Its state is being restored.
    Restoring(Restore<B>),
    /// It is processed. The pool holds it, as in the next two phases.
    Active,
    /// Finishes and commits what has begun; begins nothing new.
    Draining {
        /// The generation in which the group revoked it; `None` if we stop by ourselves.
        generation: Option<i32>,
    },
    /// Its work is dropped; it waits for the end of a commit that holds it.
    Dropping(Then),
    /// It can't be processed.
    Refused,
}

/// What follows after a partition is dropped.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Then {
    Gone,
    /// Wait until the group confirms that it's ours under the next membership.
    Wait,
    /// It's ours: restore it again from the committed offset.
    Restore,
    Refuse(Fault),
}

#[derive(Debug)]
pub(super) struct Slot<B> {
    pub(super) phase: Phase<B>,
    /// The end of the log when it was first started.
    pub(super) end: Option<Offset>,
    /// The offset where it was last started.
    pub(super) began: Option<Offset>,
    /// The topic of the log that it was last started on.
    pub(super) topic: Option<TopicId>,
    /// When to seek, because the client's position can't be trusted.
    pub(super) suspect: Option<Mono>,
    /// The offset at which the client has stopped fetching, because it isn't in the log.
    pub(super) stopped: Option<Offset>,
}

impl<B> Slot<B> {
    pub(super) fn new() -> Slot<B> {
        Slot { phase: Phase::Waiting, end: None, began: None, topic: None, suspect: None, stopped: None }
    }

    pub(super) fn begin(&mut self, start: Offset, end: Offset, topic: Option<TopicId>) {
        // The end of another topic's log says nothing about this one.
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
            Phase::Active => SlotStatus::Active,
            Phase::Draining { .. } | Phase::Dropping(Then::Gone) => SlotStatus::Draining,
            Phase::Waiting | Phase::Restoring(_) | Phase::Dropping(_) => SlotStatus::Awaited,
            Phase::Refused => SlotStatus::Refused,
        };
        SlotView { partition, status, committed: committed.or(self.began), end: self.end }
    }
}

/// The status of a partition that is assigned to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotStatus {
    /// It is processed.
    Active,
    /// It is given up: what has begun is finished.
    Draining,
    /// Not yet processed: its state is being restored.
    Awaited,
    /// Not processed until a fault is fixed.
    Refused,
}

/// A partition that is assigned to us, as metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its number.
    pub partition: PartitionId,
    /// Its status.
    pub status: SlotStatus,
    /// The committed offset; `None` if unknown.
    pub committed: Option<Offset>,
    /// The end of the log when it was first started.
    pub end: Option<Offset>,
}
