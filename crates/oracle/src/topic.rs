//! The serial evaluation of a topic: every record as a consumer reads it, each partition on its own.

use std::collections::BTreeMap;

use crate::evaluation::{Expected, LogRecord, Oracle};
use crate::meaning::{Meaning, classify};
use crate::rule::NaiveRule;

/// A record of a topic, as a consumer reads it.
#[derive(Clone, Copy, Debug)]
pub struct TopicRecord<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its event time, in milliseconds.
    pub at: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none if it is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl<'a> TopicRecord<'a> {
    /// Its key as the name of a generator; empty if it has none or isn't UTF-8, which only bad records have.
    #[must_use]
    pub fn generator(&self) -> &'a str {
        self.key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default()
    }
}

/// The serial evaluation of one topic, whose leader epochs are unknown.
#[derive(Clone, Debug)]
pub struct TopicOracle {
    topic: String,
    rules: Vec<NaiveRule>,
    partitions: BTreeMap<i32, Oracle>,
}

impl TopicOracle {
    /// The evaluation before the first record. The rules are in the order of the file.
    #[must_use]
    pub fn new(topic: &str, rules: &[NaiveRule]) -> TopicOracle {
        TopicOracle { topic: topic.to_owned(), rules: rules.to_vec(), partitions: BTreeMap::new() }
    }

    /// Returns the meaning of its partition's next record, and what it must make visible, in order.
    pub fn evaluate(&mut self, record: TopicRecord<'_>) -> (Meaning, Vec<Expected>) {
        let TopicRecord { partition, offset, at, key, value } = record;
        let meaning = classify(key, value);
        let of_partition = self.partitions.entry(partition);
        let oracle = of_partition.or_insert_with(|| Oracle::new(&self.topic, None, partition, &self.rules));
        let generator = record.generator();
        let expected = oracle.evaluate(LogRecord { offset, epoch: -1, at, generator, meaning: &meaning });
        (meaning, expected)
    }

    /// The evaluation of each partition that has a record.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &Oracle)> {
        self.partitions.iter().map(|(partition, oracle)| (*partition, oracle))
    }
}
