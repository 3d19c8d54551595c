//! Takes in the records of one partition.

use super::Handling;
use super::partition::PartitionWork;
use crate::alarm::detector::Detector;
use crate::handler::effect::DeadLetter;
use crate::handler::{Handler, ReadingPosition};
use crate::types::{Epoch, Millis, Now, Offset, PartitionId};

/// Where the records of one partition are taken in. It borrows nothing that another partition's intake changes, so each
/// may be on a thread of its own.
#[derive(Debug)]
pub struct Intake<'p, H: Handler = Detector> {
    pub(super) partition: PartitionId,
    pub(super) work: &'p mut PartitionWork<H>,
    pub(super) handler: &'p H,
    pub(super) handling: Handling,
    pub(super) now: Now,
}

impl<'p, H: Handler> Intake<'p, H> {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The handler, which reads records.
    #[must_use]
    pub fn handler(&self) -> &'p H {
        self.handler
    }

    /// Takes in a good record, unless the partition is given up or had it before. `bytes` is its size, for the bounds;
    /// `epoch` returns its leader epoch, if needed.
    #[inline]
    pub fn take_in(
        &mut self,
        offset: Offset,
        at: Millis,
        generator: &str,
        task: H::Task,
        bytes: usize,
        epoch: impl Fn() -> Epoch,
    ) {
        if !self.work.accepts(offset) {
            return;
        }
        let source = ReadingPosition { partition: self.partition, offset, at };
        match self.handling {
            Handling::Inline => self.work.evaluate(self.handler, generator, task, source, epoch, self.now),
            Handling::Lanes { .. } => {
                self.work.enqueue(self.handler, generator, task, source, epoch(), bytes, self.now);
            }
        }
    }

    /// Takes in a bad record of this partition: finished on arrival, because it belongs to no generator.
    pub fn take_in_bad(&mut self, letter: DeadLetter) {
        if self.work.accepts(letter.offset) {
            self.work.bad(letter);
        }
    }

    /// Takes in a record that is left out: finished on arrival.
    pub fn skip(&mut self, offset: Offset, at: Millis) {
        if self.work.accepts(offset) {
            self.work.skip(offset, at);
        }
    }
}
