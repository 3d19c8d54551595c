//! Partitions in one line, as ranges.

use std::ops::RangeInclusive;

use crate::types::PartitionId;

/// Formats partitions for people: `0, 3, 5-9`.
#[must_use]
pub fn listed(partitions: &[PartitionId]) -> String {
    let mut sorted: Vec<i32> = partitions.iter().map(|partition| partition.0).collect();
    sorted.sort_unstable();
    let run = |run: &[i32]| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(i32::to_string).collect(),
    };
    sorted.chunk_by(|a, b| a + 1 == *b).map(run).collect::<Vec<_>>().join(", ")
}

/// Formats partitions for programs: `0,3,5-9`.
#[must_use]
pub fn compact(partitions: &[PartitionId]) -> String {
    listed(partitions).replace(", ", ",")
}

/// Reads either form; leaves out what isn't one.
pub fn parse(text: &str) -> impl Iterator<Item = RangeInclusive<i32>> {
    text.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_listed_as_ranges() {
        let ids = [5, 0, 6, 7, 3].map(PartitionId);
        assert_eq!(listed(&ids), "0, 3, 5-7");
        assert_eq!(listed(&[]), "");
        assert_eq!(compact(&ids), "0,3,5-7");
        assert_eq!(listed(&[PartitionId(4), PartitionId(5)]), "4-5");
    }

    #[test]
    fn what_is_written_is_read_and_nonsense_is_left_out() {
        let read = |text| parse(text).flatten().collect::<Vec<_>>();
        assert_eq!(read("0,3,5-7"), [0, 3, 5, 6, 7]);
        assert_eq!(read(" 0, 3, 5-7"), [0, 3, 5, 6, 7]);
        assert_eq!(read(""), [0; 0]);
        assert_eq!(read("x-3,y,-1"), [0; 0]);
    }
}
