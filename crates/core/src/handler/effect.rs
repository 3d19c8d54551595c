//! What leaves the worker: the effects of a record, held until a commit makes them durable.
//!
//! There is no other way out, so a worker whose commits are refused publishes nothing.

use std::fmt;

use crate::alarm::event::AlertEvent;
use crate::engine::encode::{Encoder, OutgoingRecord};
use crate::reading::BadRecord;
use crate::types::{GeneratorId, Millis, Offset, PartitionId};

/// What a handler puts out: to its own topic.
pub trait Output: Clone + fmt::Debug + PartialEq + Send + Sync + 'static {
    /// Approximate bytes in memory and on the wire, for the limits of the buffer and of a commit.
    fn bytes(&self) -> usize;

    /// The record to write.
    fn record<'a>(&'a self, names: &'a Encoder) -> OutgoingRecord<'a>;
}

/// An output for handlers that need no more than a value: its key is the generator, which decides its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The generator.
    pub generator: GeneratorId,
    /// The value.
    pub value: Vec<u8>,
}

impl Output for Keyed {
    fn bytes(&self) -> usize {
        self.generator.as_str().len() + self.value.len()
    }

    fn record<'a>(&'a self, names: &'a Encoder) -> OutgoingRecord<'a> {
        names.output(self.generator.as_str().as_bytes(), self.value.as_slice())
    }
}

/// One effect of one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<O = Box<AlertEvent>> {
    /// To the handler's topic.
    Output(O),
    /// To the state topic.
    State(StateChange),
    /// To the dead letter queue.
    DeadLetter(Box<DeadLetter>),
}

/// The new state of a generator.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    /// The generator.
    pub generator: GeneratorId,
    /// The partition of its readings, and that of this record in the state topic.
    pub partition: PartitionId,
    /// Whether it replaces the state of a decommissioned generator, until the committed offset has passed it.
    pub is_decommissioned: bool,
    /// The record's value, JSON; `None` deletes the state.
    pub json: Option<Vec<u8>>,
    /// The offset of the record that caused it; after a silence, that of the last reading; at the start of a
    /// partition, where the partition begins.
    pub offset: Offset,
    /// The first record that it covers and no earlier state record does: no offset behind this one is committed
    /// before it.
    pub from: Offset,
}

/// A bad record, unchanged, and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The partition it came from, and that of this record in the dead letter queue.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Millis,
    /// Its key, unchanged.
    pub key: Option<Vec<u8>>,
    /// Its value, unchanged.
    pub value: Option<Vec<u8>>,
    /// Its headers, unchanged.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// What is wrong with it.
    pub error: BadRecord,
}

impl<O: Output> Effect<O> {
    /// The state change, if it is one.
    #[must_use]
    pub fn as_state(&self) -> Option<&StateChange> {
        match self {
            Effect::State(change) => Some(change),
            Effect::Output(_) | Effect::DeadLetter(_) => None,
        }
    }

    /// Approximate bytes in memory and on the wire, for the limits of the buffer and of a commit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 192;
        let payload = match self {
            Effect::Output(output) => output.bytes(),
            Effect::State(change) => change.json.as_ref().map_or(0, Vec::len),
            Effect::DeadLetter(letter) => {
                let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
                let headers = letter.headers.iter().map(|(name, value)| name.len() + length(value) + 48);
                length(&letter.key) + length(&letter.value) + headers.sum::<usize>()
            }
        };
        OVERHEAD + payload
    }
}
