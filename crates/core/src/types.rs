//! The types of a partitioned log: partition, offset, time, generator.
//!
//! Purpose: newtypes, so that an offset can't be passed where a partition is meant.
//! Must not know: Kafka's client library, clocks, alarms.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A partition's number within its topic, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub i32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a record in its partition, from 0. A *committed* offset is the next one to process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// The next offset: what is committed when this record is the last finished one.
    #[inline]
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies one incarnation of a topic: a recreated topic has another id, and so has a mirror. Printed as Kafka's
/// tools print it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(Arc<str>);

impl TopicId {
    /// The id as text.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TopicId {
    fn from(id: &str) -> Self {
        TopicId(id.into())
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for TopicId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TopicId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<TopicId, D::Error> {
        Ok(TopicId(String::deserialize(deserializer)?.into()))
    }
}

/// The leader epoch that a record was written under. In an intact log epochs never fall from one offset to the next.
/// An offset that is reused after an unclean election has truncated the log has a newer epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i32);

impl Epoch {
    /// The broker didn't say.
    pub const UNKNOWN: Epoch = Epoch(-1);

    /// Whether the broker gave one.
    #[inline]
    #[must_use]
    pub fn is_known(self) -> bool {
        self.0 >= 0
    }
}

impl Default for Epoch {
    fn default() -> Epoch {
        Epoch::UNKNOWN
    }
}

/// A partition of one of several topics; its reader numbers the topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's number.
    pub topic: usize,
    /// The partition.
    pub partition: PartitionId,
}

/// Milliseconds since the Unix epoch: event time if it comes from a record, wall clock if a caller passes "now".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// Earlier than every record: the `since` of a generator that never reported.
    pub const NEVER: Millis = Millis(i64::MIN);

    /// Milliseconds from `earlier` to `self`; saturates, so that [`Millis::NEVER`] is infinitely long ago.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Millis) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds of a monotonic clock with its own origin: for deadlines, back-off and the commit policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub i64);

impl Mono {
    /// `millis` milliseconds later.
    #[inline]
    #[must_use]
    pub fn after(self, millis: i64) -> Mono {
        Mono(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to `self`.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Mono) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time by both clocks. The wall clock may be set; it stamps the alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Never goes backwards.
    pub mono: Mono,
    /// The clock that stamps records.
    pub wall: Millis,
}

impl Default for Now {
    fn default() -> Now {
        Now { mono: Mono(0), wall: Millis(0) }
    }
}

/// A generator's identity: the key of its records. Cheap to clone, because effects carry it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GeneratorId(Arc<str>);

impl GeneratorId {
    /// The id as text.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for GeneratorId {
    fn from(id: &str) -> Self {
        GeneratorId(id.into())
    }
}

// Lets a lookup in a map keyed by GeneratorId borrow its key, so that the hot path doesn't allocate.
impl Borrow<str> for GeneratorId {
    #[inline]
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GeneratorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for GeneratorId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
