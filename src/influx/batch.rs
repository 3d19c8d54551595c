//! Points on their way: lines to be written together, which record each stems from, and how far the log is done once
//! they are written.

use std::collections::BTreeMap;
use std::ops::Range;

use genwatch_core::types::{Offset, Place};

use super::line::{Shape, Source, Unfit};

/// A time during which a partition is held: it gets another number when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure(pub u64);

/// How far a partition is done when a batch is written, and the tenure in which its records were taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// Of another one nothing may be committed.
    pub tenure: Tenure,
    /// The next offset.
    pub next: Offset,
}

/// The record that a point stems from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its topic and partition.
    pub place: Place,
    /// Its offset.
    pub offset: Offset,
}

/// Lines to be written together. Owned by the loop while it fills, then by the writer.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    /// Where the lines of each point end in `text`.
    points: Vec<(usize, Origin)>,
    records: usize,
    until: BTreeMap<Place, Until>,
}

impl Batch {
    /// Takes in a record; one that makes no point is done with the batch all the same.
    ///
    /// # Errors
    /// With the reason why it makes no point.
    pub fn take_in(
        &mut self,
        origin: Origin,
        tenure: Tenure,
        shape: &Shape,
        record: &Source<'_>,
    ) -> Result<(), Unfit> {
        self.records += 1;
        self.until.insert(origin.place, Until { tenure, next: origin.offset.next() });
        shape.append(record, &mut self.text)?;
        self.points.push((self.text.len(), origin));
        Ok(())
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.points.clear();
        self.until.clear();
        self.records = 0;
    }

    /// Records taken in, whether they made a point or not.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of all lines.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// How many points there are.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points.len()
    }

    /// The lines of some of the points.
    #[must_use]
    pub fn lines(&self, range: Range<usize>) -> &str {
        let end = |points: usize| points.checked_sub(1).map_or(0, |last| self.points[last].0);
        &self.text[end(range.start)..end(range.end)]
    }

    /// Where a point comes from.
    #[must_use]
    pub fn origin(&self, point: usize) -> Origin {
        self.points[point].1
    }

    /// How far each partition is done when this is written.
    #[must_use]
    pub fn until(&self) -> &BTreeMap<Place, Until> {
        &self.until
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Precision;
    use super::*;
    use genwatch_core::types::{Millis, PartitionId};

    #[test]
    fn any_run_of_lines_can_be_written_alone_and_a_record_without_a_point_is_done_too() {
        let shape = Shape::of_aggregates("m", Precision::Ms);
        let mut batch = Batch::default();
        let place = Place { topic: 0, partition: PartitionId(3) };
        for (offset, value) in
            [&b"{\"a\":1}"[..], b"{\"a\":22}", b"none", b"{\"a\":3}", b"[]"].iter().enumerate()
        {
            let offset = Offset(offset as i64);
            let origin = Origin { place, offset };
            let record = Source { key: Some(b"g"), value: Some(value), at: Some(Millis(5)), offset };
            let _ = batch.take_in(origin, Tenure(7), &shape, &record);
        }
        assert_eq!((batch.records(), batch.points()), (5, 3));
        assert_eq!(batch.lines(0..3).lines().count(), 3);
        assert_eq!(batch.lines(1..2), "m,generatorID=g a=22.0 5\n");
        assert_eq!(batch.lines(2..3), "m,generatorID=g a=3.0 5\n");
        assert_eq!(batch.lines(2..2), "");
        assert_eq!(batch.origin(2).offset, Offset(3));
        assert_eq!(batch.until()[&place], Until { tenure: Tenure(7), next: Offset(5) });
    }
}
