//! The seam between a sink's runtime and its store.

use std::error::Error;
use std::time::Duration;

use genwatch_core::transform::Failure;
use genwatch_core::transform::record::{Headers, NoHeaders};
use genwatch_core::types::{Millis, Offset, PartitionId};

/// The target of a sink: InfluxDB, a file, another database. It formats records and writes batches of them; the
/// runtime does the rest (groups, batches, back-off, halving, drain, offsets).
///
/// Writes are at-least-once: after a crash, a lost answer or a refusal of one point, the runtime writes records again.
/// In a store a repeat should overwrite itself.
pub trait Store: Send + Sync + 'static {
    /// Returns its common name, such as `InfluxDB`.
    fn name(&self) -> &str;

    /// Returns its address, without secrets.
    fn address(&self) -> &str;

    /// Appends a record to a batch, in the form that [`Store::write`] takes. Each appended record can be written alone.
    ///
    /// # Errors
    /// With the reason why nothing is written for this record; then nothing is appended.
    fn append(&self, record: &SourceRecord<'_>, batch: &mut String) -> Result<(), NotWritten>;

    /// Checks write access, before the first record is read.
    fn check(&self) -> WriteAnswer {
        WriteAnswer::Written
    }

    /// Writes one or more records and waits for the answer. One thread per lane calls it, all at the same time.
    fn write(&self, records: &str) -> WriteAnswer;
}

/// The parts of a record that a store needs.
#[derive(Clone, Copy, Debug)]
pub struct SourceRecord<'a> {
    /// Its topic: an index into the sink's configured list.
    pub topic: usize,
    /// Its partition.
    pub partition: PartitionId,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its timestamp.
    pub at: Option<Millis>,
    /// Its offset.
    pub offset: Offset,
    /// Its headers.
    pub headers: &'a dyn Headers,
}

impl Default for SourceRecord<'_> {
    fn default() -> Self {
        SourceRecord {
            topic: 0,
            partition: PartitionId(0),
            key: None,
            value: None,
            at: None,
            offset: Offset(0),
            headers: &NoHeaders,
        }
    }
}

/// Why nothing is written for a record.
#[derive(Debug)]
pub enum NotWritten {
    /// It can't be written.
    Skipped(Skipped),
    /// A step of the transformations filtered it out.
    Filtered,
    /// A step of the transformations failed: the record becomes a dead letter.
    Failed(Failure),
}

impl From<Skipped> for NotWritten {
    fn from(skipped: Skipped) -> Self {
        NotWritten::Skipped(skipped)
    }
}

/// Why a record can't be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// A metric label: few values, lower case.
    pub label: &'static str,
    /// The reason for people.
    pub reason: String,
}

/// The result of a write.
#[derive(Debug)]
pub enum WriteAnswer {
    /// Everything is written.
    Written,
    /// Everything is written except some points that the store has dropped, and would drop again.
    Partly {
        /// Number of dropped points.
        dropped: usize,
        /// The store's reason.
        reason: String,
    },
    /// It has a bad point, or is too large: the runtime halves the batch until it has found the point.
    NotAsOne(String),
    /// The store wants the same batch again, later.
    Wait {
        /// The delay, if the store names one; otherwise the runtime backs off.
        after: Option<Duration>,
        /// The store's reason, or the connection error.
        reason: String,
    },
    /// This may be the wrong store: the sink ends. If the store has answered before, the same as [`WriteAnswer::Wait`].
    Doubtful(StoreRefusal),
    /// Waiting doesn't help: the sink ends.
    Refused(StoreRefusal),
}

/// Why a store refuses everything, with what to do about it.
pub type StoreRefusal = Box<dyn Error + Send + Sync>;
