//! The seam between the runtime of a sink and what it writes to.

use std::error::Error;
use std::time::Duration;

use genwatch_core::types::{Millis, Offset};

/// What a sink writes to: InfluxDB, a file, another database. It says how a record looks there and writes batches of them; all else
/// (groups, batches, back-off, halving, drain, offsets) is the runtime's.
///
/// Writes are at least once: after a crash, a lost answer or a refusal of one point, records are written again. A store should make
/// a repeat overwrite itself.
pub trait Store: Send + Sync + 'static {
    /// What people call it, such as `InfluxDB`.
    fn name(&self) -> &str;

    /// Where it is, without secrets.
    fn address(&self) -> &str;

    /// Appends a record to a batch, in the form in which [`Store::write`] takes it. Whatever is appended can be written alone.
    ///
    /// # Errors
    /// With the reason why nothing is to be written for this record; then nothing is appended.
    fn append(&self, record: &SourceRecord<'_>, batch: &mut String) -> Result<(), Skipped>;

    /// Asks whether we may write, before the first record is read.
    fn check(&self) -> WriteAnswer {
        WriteAnswer::Written
    }

    /// Writes one or more records and waits for the answer. Several threads call it at once, one for each lane.
    fn write(&self, records: &str) -> WriteAnswer;
}

/// A record, as far as a store needs it.
#[derive(Clone, Copy, Debug)]
pub struct SourceRecord<'a> {
    /// Its topic: the place in the list that the sink was configured with.
    pub topic: usize,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its timestamp.
    pub at: Option<Millis>,
    /// Its offset.
    pub offset: Offset,
}

/// Why nothing is written for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// A label of metrics: few values, lower case.
    pub label: &'static str,
    /// For people.
    pub reason: String,
}

/// What became of what was sent.
#[derive(Debug)]
pub enum WriteAnswer {
    /// All of it is written.
    Written,
    /// All of it is written but for some points that the store has dropped, and will drop again.
    Partly {
        /// How many.
        dropped: usize,
        /// What the store said.
        reason: String,
    },
    /// There is a bad point among them, or there are too many: the runtime halves the batch until it has found it.
    NotAsOne(String),
    /// The same again, later.
    Wait {
        /// When, if the store says so; else the runtime backs off.
        after: Option<Duration>,
        /// What the store said, or what is wrong with the way there.
        reason: String,
    },
    /// It may be another store than the one that is meant: the sink ends, unless this one has answered before. Then as
    /// [`WriteAnswer::Wait`].
    Doubtful(StoreRefusal),
    /// No waiting mends it: the sink ends.
    Refused(StoreRefusal),
}

/// Why a store refuses everything, with what to do about it.
pub type StoreRefusal = Box<dyn Error + Send + Sync>;
