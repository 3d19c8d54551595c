//! The table of genwatch's targets, beside what was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::bare::BARE_LOOPS;

/// How a figure compares with its target.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// Results by the name of their file.
pub type Results = BTreeMap<String, Value>;

/// One line of the table: what, against what, the target, and how to find the figure in the results.
struct Line {
    what: &'static str,
    against: &'static str,
    target: Target,
    found: fn(&Results) -> Option<f64>,
}

const LINES: &[Line] = &[
    Line {
        what: "records/s, no extra work",
        against: "a bare rust-rdkafka loop",
        target: Target::AtLeast(2.5),
        found: |all| ratio(all, "drain", bare_loop(all)?, "records_per_s"),
    },
    Line {
        what: "CPU time a record",
        against: "a bare rust-rdkafka loop",
        target: Target::AtMost(0.34),
        found: |all| ratio(all, "drain", bare_loop(all)?, "cpu_us_per_record"),
    },
    Line {
        what: "records/s",
        against: "kafka-consumer-perf-test",
        target: Target::AtLeast(1.6),
        found: |all| ratio(all, "drain", "perf-test", "records_per_s"),
    },
    Line {
        what: "records/s, exactly-once",
        against: "Kafka Streams exactly_once_v2",
        target: Target::AtLeast(9.0),
        found: |all| ratio(all, "drain", "Kafka Streams", "records_per_s"),
    },
    Line {
        what: "CPU time a record, exactly-once",
        against: "Kafka Streams exactly_once_v2",
        target: Target::AtMost(0.2),
        found: |all| ratio(all, "drain", "Kafka Streams", "cpu_us_per_record"),
    },
    Line {
        what: "records/s, no extra work",
        against: "Parallel Consumer, by key",
        target: Target::AtLeast(35.0),
        found: |all| ratio(all, "drain", "Parallel Consumer", "records_per_s"),
    },
    Line {
        what: "records/s with 2 ms of work",
        against: "Parallel Consumer, by key",
        target: Target::AtLeast(4.0),
        found: |all| ratio(all, "work", "Parallel Consumer", "records_per_s"),
    },
    Line {
        what: "records/s with 2 ms of work",
        against: "Kafka Streams, 6 threads",
        target: Target::AtLeast(30.0),
        found: |all| across(all, "Kafka Streams"),
    },
    Line {
        what: "records/s with 2 ms of work",
        against: "a serial consumer (plain Java)",
        target: Target::AtLeast(150.0),
        found: |all| across(all, "plain consumer"),
    },
    Line {
        what: "capacity of n serial workers, the worst n",
        against: "n × one worker × skew bound",
        target: Target::AtLeast(0.95),
        found: |all| rows(all, "scale").filter_map(|row| row["efficiency"].as_f64()).reduce(f64::min),
    },
    Line {
        what: "reading to alert, exactly-once, p50, ms",
        against: "",
        target: Target::AtMost(8.0),
        found: |all| cell(all, "latency", "genwatch exactly-once", "p50_ms"),
    },
    Line {
        what: "reading to alert, exactly-once, p99, ms",
        against: "",
        target: Target::AtMost(20.0),
        found: |all| cell(all, "latency", "genwatch exactly-once", "p99_ms"),
    },
    Line {
        what: "reading to alert, at-least-once, p50, ms",
        against: "",
        target: Target::AtMost(1.2),
        found: |all| cell(all, "latency", "genwatch at-least-once", "p50_ms"),
    },
    Line {
        what: "reading to alert, at-least-once, p99, ms",
        against: "",
        target: Target::AtMost(6.0),
        found: |all| cell(all, "latency", "genwatch at-least-once", "p99_ms"),
    },
    Line {
        what: "readings/s produced",
        against: "kafka-producer-perf-test",
        target: Target::AtLeast(1.5),
        found: |all| {
            let rate = |name| cell(all, "produce", name, "records_per_s");
            Some(rate("genwatch simulate")? / rate("producer-perf-test")?)
        },
    },
    Line {
        what: "peak resident memory while draining, MiB",
        against: "",
        target: Target::AtMost(100.0),
        found: |all| cell(all, "drain", "genwatch", "peak_MiB"),
    },
    Line {
        what: "a worker joins: standstill of the worst partition, p99, ms",
        against: "",
        target: Target::AtMost(500.0),
        found: |all| standstill(all, "join", "moved_p99_ms"),
    },
    Line {
        what: "a worker leaves in order: the same",
        against: "",
        target: Target::AtMost(300.0),
        found: |all| standstill(all, "leave", "moved_p99_ms"),
    },
    Line {
        what: "a worker joins: the worst partition that stays, p99, ms",
        against: "",
        target: Target::AtMost(100.0),
        found: |all| standstill(all, "join", "stayed_p99_ms"),
    },
    Line {
        what: "a worker is killed: until the worst partition goes on, p99, ms",
        against: "",
        target: Target::AtMost(6000.0),
        found: |all| standstill(all, "kill", "moved_p99_ms"),
    },
    Line {
        what: "six workers are restarted in turn: longest standstill, ms",
        against: "",
        target: Target::AtMost(1000.0),
        found: |all| standstill(all, "restart", "moved_max_ms"),
    },
];

/// The table, in markdown.
#[must_use]
pub fn table(results: &Results) -> String {
    let mut text = "| what | against | target | measured | |\n|---|---|---|---|---|\n".to_owned();
    for line in LINES {
        let (wanted, reached) = match line.target {
            Target::AtLeast(least) => {
                (format!("≥ {least}"), (line.found)(results).map(|found| found >= least))
            }
            Target::AtMost(most) => (format!("≤ {most}"), (line.found)(results).map(|found| found <= most)),
        };
        let found = (line.found)(results).map_or("not measured".to_owned(), |found| format!("{found:.2}"));
        let verdict = match reached {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "",
        };
        // Writing into a String can't fail.
        let _ = writeln!(text, "| {} | {} | {wanted} | {found} | {verdict} |", line.what, line.against);
    }
    text
}

fn rows<'a>(all: &'a Results, name: &str) -> impl Iterator<Item = &'a Value> {
    all.get(name).and_then(|result| result["results"].as_array()).into_iter().flatten()
}

fn cell(all: &Results, name: &str, contender: &str, column: &str) -> Option<f64> {
    rows(all, name).find(|row| row["contender"] == contender)?[column].as_f64()
}

/// How long genwatch's partitions stand still at this kind of event.
fn standstill(all: &Results, event: &str, column: &str) -> Option<f64> {
    rows(all, "rebalance").find(|row| row["contender"] == "genwatch" && row["event"] == event)?[column]
        .as_f64()
}

/// Returns the name of the faster bare loop.
fn bare_loop(all: &Results) -> Option<&'static str> {
    let rate = |name: &&str| cell(all, "drain", name, "records_per_s");
    let measured = BARE_LOOPS.into_iter().filter_map(|name| Some((name, rate(&name)?)));
    Some(measured.max_by(|(_, one), (_, other)| one.total_cmp(other))?.0)
}

/// The ratio of genwatch's figure to another's, in one run.
fn ratio(all: &Results, name: &str, other: &str, column: &str) -> Option<f64> {
    Some(cell(all, name, "genwatch", column)? / cell(all, name, other, column)?)
}

/// With work: serial contenders get fewer readings, in their own run.
fn across(all: &Results, other: &str) -> Option<f64> {
    let rate = cell(all, "work", other, "records_per_s");
    let rate = rate.or_else(|| cell(all, "work-serial", other, "records_per_s"))?;
    Some(cell(all, "work", "genwatch", "records_per_s")? / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_reached_missed_or_not_measured() {
        let drain = serde_json::json!({"results": [
            {"contender": "genwatch", "records_per_s": 2000.0, "cpu_us_per_record": 0.3, "peak_MiB": 100},
            {"contender": "bare BaseConsumer", "records_per_s": 1000.0, "cpu_us_per_record": 1.0},
            {"contender": "bare StreamConsumer", "records_per_s": 900.0, "cpu_us_per_record": 2.0},
        ]});
        let text = table(&Results::from([("drain".to_owned(), drain)]));
        assert!(
            text.contains(
                "| records/s, no extra work | a bare rust-rdkafka loop | ≥ 2.5 | 2.00 | **missed** |"
            )
        );
        assert!(text.contains("| CPU time a record | a bare rust-rdkafka loop | ≤ 0.34 | 0.30 | reached |"));
        assert!(text.contains("| kafka-consumer-perf-test | ≥ 1.6 | not measured |  |"), "{text}");
    }
}
