//! The aggregates: what `genwatch downsample` is asked for, and whether they are those of a batch over all readings.
//!
//! Which readings are too late depends on the order of the log alone, as the batch assumes, if the watermark closes
//! every window. A clock closes windows too, of a partition that is read to its end and has been quiet for the grace:
//! hence the grace is longer than any fault can keep the producer from a partition, and readings that are later than
//! that ([`crate::fleet`]) never come first after a pause, in which a topic is recreated. At the end a reading from the
//! future takes the watermark of each partition past all windows, so nobody has to wait for the clock.
//!
//! A recreated topic goes on where the one before ended (`--on-new-topic keep-states`), so all are judged as one log.

use genwatch_oracle::{AggregateOracle, Ending, Windows, compare_aggregates};
use serde_json::Value;

use crate::fleet::{is_last, rules};
use crate::options::Delivery;
use crate::oracle;
use crate::past::Past;
use crate::report::Report;

/// Milliseconds.
pub const WINDOW: i64 = 10_000;
/// Milliseconds.
pub const GRACE: i64 = 60_000;

/// The same, as options. The interval bounds how long a drain takes.
pub const OPTIONS: [&str; 6] = ["--window", "10s", "--grace", "60s", "--commit-interval", "1s"];

/// This many differences say enough.
const DIFFERENCES_MAX: usize = 20;

/// The group that makes aggregates beside the workers' group, or the topic of the aggregates of a readings topic.
pub fn of(name: &str) -> String {
    format!("{name}_10s")
}

/// Panics if the aggregates differ from those of all readings so far: each window once, every value equal. All is
/// committed.
pub fn judge(brokers: &str, topic: &str, past: &Past, delivery: Delivery, report: &mut Report) {
    let windows = Windows { length: WINDOW, grace: GRACE, correct_within: None };
    let mut oracle = AggregateOracle::new(windows, &rules());
    for record in past.readings() {
        oracle.record(record.topic_record());
    }
    let mut expected = oracle.aggregates(Ending::Closed);
    let counted: u64 = expected.iter().filter_map(|aggregate| aggregate["count"].as_u64()).sum();
    let good: usize = past.expected().readings.values().map(Vec::len).sum();
    report.late = good as u64 - counted;

    // The windows of the last readings are still open, unless the drain took so long that the clock closed them.
    let is_judged = |aggregate: &Value| !aggregate["generatorID"].as_str().is_some_and(is_last);
    expected.retain(is_judged);
    let found: Vec<Value> = oracle::log::read(brokers, &of(topic)).values().filter(is_judged).collect();
    let mut told: Vec<Value> = Vec::new();
    match delivery {
        Delivery::ExactlyOnce => told = found,
        Delivery::AtLeastOnce => {
            let mut seen = std::collections::HashSet::new();
            let all = found.len();
            told.extend(found.into_iter().filter(|aggregate| seen.insert(aggregate.to_string())));
            report.repeated_aggregates = all - told.len();
        }
    }
    report.aggregates = expected.len();
    let differences = compare_aggregates(&expected, &told);
    assert!(
        differences.is_empty(),
        "{} aggregates are expected and {} found, with {} differences: {}",
        expected.len(),
        told.len(),
        differences.len(),
        differences[..differences.len().min(DIFFERENCES_MAX)].join("; ")
    );
}
