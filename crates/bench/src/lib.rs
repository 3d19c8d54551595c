//! Benchmarks: how fast genwatch drains, scales out and reacts, beside others that do the same job.
//!
//! It knows the programs under test by their command lines, and what is genwatch's own in the others (the lines of a bare client)
//! it is given by the command line tool. Its own clients of Kafka are those of `genwatch_kafka`, but for the baseline's.
//!
//! Every program under test is a process of its own, genwatch's worker too, so that CPU time and memory are its own. What
//! it produced is compared with a serial evaluation of the topic before a figure counts.
//!
//! * [`scratch_topics`]: topics and groups of one benchmark, gone when it ends.
//! * [`contender`]: a program under test, from start to exit.
//! * [`verify`]: what the alerts must be, and whether they are.
//! * [`drain`], [`scale`], [`latency`], [`partitions`], [`produce`], [`bridge`]: one benchmark each.
//! * [`sink`]: how fast the sink writes, beside what its [`database`] takes.
//! * [`bare`]: the baseline, a consumer that does the least.
//! * [`report`]: machine, versions, results; JSON, CSV and tables, and JSON back. [`plot`]: SVG of results.
//! * [`targets`]: what is to be reached, beside what was measured.
//! * [`statistics`]: medians and slopes. `membership`, `probe`: whether a group is joined, a worker ready.

pub mod bare;
pub mod bridge;
pub mod contender;
pub mod database;
pub mod drain;
pub mod latency;
mod membership;
pub mod partitions;
pub mod plot;
mod probe;
pub mod produce;
pub mod report;
pub mod scale;
pub mod scratch_topics;
pub mod sink;
pub mod statistics;
pub mod targets;
pub mod verify;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use genwatch_kafka::error::ClientError;

use contender::Contender;

use genwatch_kafka::admin::ClusterError;
use genwatch_kafka::group::GroupError;
use genwatch_kafka::topic_reader::TopicReaderError;

/// ContenderResult while a benchmark goes on: what it does, how much of that or of the whole is done, out of how much.
pub type Tell<'a> = &'a dyn Fn(&str, u64, u64);

/// Why a benchmark gave no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Somebody pressed Ctrl-C.
    #[error("stopped; its topics and processes are gone")]
    Stopped,
    /// The cluster or a topic isn't as it must be.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A group couldn't be asked.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A topic couldn't be read.
    #[error(transparent)]
    TopicReader(#[from] TopicReaderError),
    /// A client couldn't be made, or refused a call.
    #[error("the Kafka client: {0}")]
    Client(#[from] ClientError),
    /// Readings didn't arrive.
    #[error("{failed} readings could not be produced: {reason}")]
    NotProduced {
        /// How many.
        failed: u64,
        /// Why the first of them.
        reason: String,
    },
    /// A program under test failed.
    #[error("{name} {what}; its last words:\n{said}")]
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
        /// What is wrong with what it produced.
        what: String,
    },
    /// The database doesn't answer, or refuses.
    #[error("the database gave no answer to {what}: {reason}")]
    Database {
        /// What was asked for.
        what: String,
        /// What it said.
        reason: String,
    },
    /// Results can't be written or read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
}

impl BenchError {
    fn file(path: &Path, reason: impl ToString) -> BenchError {
        BenchError::File { path: path.display().to_string(), reason: reason.to_string() }
    }
}

/// Lets the contenders do `what`, each in turn, so often: A B A B. `each` is given the repetition and the contender's place.
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

/// HighWatermarks a benchmark when somebody wants it to.
fn go_on(stop: &AtomicBool) -> Result<(), BenchError> {
    if stop.load(Ordering::Relaxed) { Err(BenchError::Stopped) } else { Ok(()) }
}
