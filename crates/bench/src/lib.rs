//! Benchmarks: how fast genwatch drains, scales out and reacts, beside other programs for the same job.
//!
//! This crate knows the programs under test only by their command lines; the command line tool passes in what it needs
//! of genwatch's own (such as the lines of a bare client). Its Kafka clients are those of `genwatch_kafka`, except the
//! baseline's.
//!
//! Every program under test, genwatch's worker included, is a separate process, so that CPU time and memory are its
//! own. Its output is compared with a serial evaluation of the topic before a figure counts.
//!
//! * [`scratch_topics`]: topics and groups of one benchmark, deleted when it ends.
//! * [`contender`]: a program under test, from start to exit.
//! * [`verify`]: what the alerts must be, and whether they are.
//! * [`drain`], [`scale`], [`latency`], [`partitions`], [`produce`], [`rebalance`], [`bridge`]: one benchmark each.
//! * [`sink`]: how fast the sink writes, beside what its [`database`] takes.
//! * [`bare`]: the baseline, a consumer that does the least.
//! * [`report`]: machine, versions, results; JSON, CSV and tables, and JSON back. [`plot`]: SVG of results.
//! * [`targets`]: the targets, beside what was measured.
//! * [`statistics`]: medians and slopes. `numbered`: readings that their alerts tell apart. `membership`, `probe`: whether
//!   a group is joined, a worker ready.

pub mod bare;
pub mod bridge;
pub mod calibrate;
pub mod contender;
pub mod database;
pub mod drain;
pub mod latency;
mod membership;
mod numbered;
pub mod partitions;
pub mod plot;
mod probe;
pub mod produce;
pub mod rebalance;
pub mod report;
pub mod scale;
pub mod scratch_topics;
pub mod sink;
pub mod statistics;
pub mod targets;
pub mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use genwatch_kafka::error::ClientError;

use contender::Contender;

use genwatch_core::types::PartitionId;
use genwatch_kafka::admin::ClusterError;
use genwatch_kafka::group::{GroupError, Progress};
use genwatch_kafka::measure::MeasureError;
use genwatch_kafka::topic_reader::TopicReaderError;

/// Reports progress: the current step, how much of it or of the whole is done, and out of how much.
pub type Tell<'a> = &'a dyn Fn(&str, u64, u64);

/// Why a benchmark gave no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Stopped by Ctrl-C.
    #[error("stopped; its topics and processes are gone")]
    Stopped,
    /// The cluster or a topic isn't as required.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A request about a group failed.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A topic couldn't be read.
    #[error(transparent)]
    TopicReader(#[from] TopicReaderError),
    /// A group couldn't be measured.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// A client couldn't be made, or refused a call.
    #[error("the Kafka client")]
    Client(#[from] ClientError),
    /// Readings weren't delivered.
    #[error("{failed} readings could not be produced: {reason}")]
    NotProduced {
        /// How many.
        failed: u64,
        /// The reason for the first of them.
        reason: String,
    },
    /// A program under test failed.
    #[error("{name} {what}; its last output:\n{said}")]
    Contender {
        /// Which.
        name: String,
        /// What it did.
        what: String,
        /// The end of its stderr.
        said: String,
    },
    /// A program under test did another job than it should.
    #[error("{name} is disqualified: {what}")]
    Wrong {
        /// Which.
        name: String,
        /// What is wrong with its output.
        what: String,
    },
    /// The database doesn't answer, or refuses.
    #[error("the database gave no answer to {what}: {reason}")]
    Database {
        /// What was asked for.
        what: String,
        /// What it answered.
        reason: String,
    },
    /// Results can't be written or read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        reason: String,
    },
}

impl BenchError {
    fn file(path: &Path, reason: impl ToString) -> BenchError {
        BenchError::File { path: path.display().to_string(), reason: reason.to_string() }
    }
}

/// Lets each contender do `what`, `repetitions` times in turn: A B A B. Passes the repetition and the contender's place
/// to `each`.
fn in_turn(
    repetitions: u32,
    contenders: &[Contender],
    what: &str,
    stop: &AtomicBool,
    tell: Tell<'_>,
    mut each: impl FnMut(u32, usize) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let steps = u64::from(repetitions) * contenders.len() as u64;
    let mut done = 0;
    for repetition in 1..=repetitions {
        for (place, contender) in contenders.iter().enumerate() {
            go_on(stop)?;
            tell(&format!("repetition {repetition}: {} {what}", contender.name), done, steps);
            each(repetition, place)?;
            done += 1;
        }
    }
    Ok(())
}

/// The records that wait in all partitions.
fn lag(progress: &BTreeMap<PartitionId, Progress>) -> i64 {
    progress.values().map(Progress::lag).sum()
}

/// Ends a benchmark when the user stops it.
fn go_on(stop: &AtomicBool) -> Result<(), BenchError> {
    if stop.load(Ordering::Relaxed) { Err(BenchError::Stopped) } else { Ok(()) }
}
