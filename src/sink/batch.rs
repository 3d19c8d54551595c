//! Batches of points: lines to write together, the record that each stems from, and the next offset of each partition
//! once they are written.

use std::collections::BTreeMap;
use std::ops::Range;

use genwatch_core::types::{Offset, TopicPartition};

/// A period in which the sink holds a partition; every assignment has its own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignmentEpoch(pub u64);

/// A partition's next offset once a batch is written, and the epoch in which its records were taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextOffset {
    /// In another epoch this must not be committed.
    pub epoch: AssignmentEpoch,
    /// The next offset.
    pub next: Offset,
}

/// The record that a point stems from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its topic and partition.
    pub place: TopicPartition,
    /// Its offset.
    pub offset: Offset,
}

/// Lines to write together. Owned by the loop while it fills, then by the writer.
#[derive(Debug, Default)]
pub struct PointBatch {
    text: String,
    /// Where the lines of each point end in `text`.
    points: Vec<(usize, Origin)>,
    records: usize,
    until: BTreeMap<TopicPartition, NextOffset>,
}

impl PointBatch {
    /// Takes in a record, which `append` appends to the text; the batch also covers a record that makes no point.
    ///
    /// # Errors
    /// With the reason if the record makes no point.
    pub fn take_in<E>(
        &mut self,
        origin: Origin,
        epoch: AssignmentEpoch,
        append: impl FnOnce(&mut String) -> Result<(), E>,
    ) -> Result<(), E> {
        self.records += 1;
        self.until.insert(origin.place, NextOffset { epoch, next: origin.offset.next() });
        append(&mut self.text)?;
        self.points.push((self.text.len(), origin));
        Ok(())
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.points.clear();
        self.until.clear();
        self.records = 0;
    }

    /// Returns the records taken in, with a point or without.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Returns the bytes of all lines.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Returns the number of points.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points.len()
    }

    /// Returns the lines of these points.
    #[must_use]
    pub fn lines(&self, range: Range<usize>) -> &str {
        let end = |points: usize| points.checked_sub(1).map_or(0, |last| self.points[last].0);
        &self.text[end(range.start)..end(range.end)]
    }

    /// Returns the record that a point stems from.
    #[must_use]
    pub fn origin(&self, point: usize) -> Origin {
        self.points[point].1
    }

    /// Returns each partition's next offset once this is written.
    #[must_use]
    pub fn until(&self) -> &BTreeMap<TopicPartition, NextOffset> {
        &self.until
    }
}

#[cfg(test)]
mod tests {
    use genwatch_core::types::PartitionId;

    use super::*;

    #[test]
    fn any_run_of_lines_can_be_written_alone_and_a_record_without_a_point_is_done_too() {
        let mut batch = PointBatch::default();
        let place = TopicPartition { topic: 0, partition: PartitionId(3) };
        for (offset, value) in ["a\n", "bb\n", "", "c\n", ""].iter().enumerate() {
            let origin = Origin { place, offset: Offset(offset as i64) };
            let _ = batch.take_in(origin, AssignmentEpoch(7), |text| {
                text.push_str(value);
                if value.is_empty() { Err("empty") } else { Ok(()) }
            });
        }
        assert_eq!((batch.records(), batch.points()), (5, 3));
        assert_eq!(batch.lines(0..3), "a\nbb\nc\n");
        assert_eq!(batch.lines(1..2), "bb\n");
        assert_eq!(batch.lines(2..3), "c\n");
        assert_eq!(batch.lines(2..2), "");
        assert_eq!(batch.origin(2).offset, Offset(3));
        assert_eq!(batch.until()[&place], NextOffset { epoch: AssignmentEpoch(7), next: Offset(5) });
    }
}
