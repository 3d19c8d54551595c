//! What leaves the worker: the effects that a record calls for, held until a commit makes them durable.
//!
//! Nothing leaves in any other way, so that a replica whose commits are refused has said nothing.

use crate::alarm::event::AlertEvent;
use crate::reading::BadRecord;
use crate::types::{GeneratorId, Millis, Offset, PartitionId};

/// One effect of one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// To the alerts topic.
    Alert(Box<AlertEvent>),
    /// To the state topic.
    State(StateChange),
    /// To the dead letter queue.
    DeadLetter(Box<DeadLetter>),
}

/// The new state of a generator.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    /// Whose state.
    pub generator: GeneratorId,
    /// The partition its readings come from; the record goes to the one of the same number.
    pub partition: PartitionId,
    /// It stands for the state of a decommissioned generator, until the offset has passed it.
    pub is_decommissioned: bool,
    /// The record's value, JSON; `None` deletes the state.
    pub json: Option<Vec<u8>>,
    /// The offset of the record that brought it; of the last reading, where silence did; where the partition begins, if
    /// its start did.
    pub offset: Offset,
}

/// A bad record, as it came, and why it is one.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The partition it came from; it goes to the one of the same number.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Millis,
    /// Its key, as it came.
    pub key: Option<Vec<u8>>,
    /// Its value, as it came.
    pub value: Option<Vec<u8>>,
    /// Its headers, as they came.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// What is wrong with it.
    pub error: BadRecord,
}

impl Effect {
    /// The state change, if it is one.
    #[must_use]
    pub fn as_state(&self) -> Option<&StateChange> {
        match self {
            Effect::State(change) => Some(change),
            Effect::Alert(_) | Effect::DeadLetter(_) => None,
        }
    }

    /// Bytes that it takes, in memory and on its way; roughly, for the bounds of the buffer and the size of a commit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 192;
        /// The JSON of an alert with its headers: some 600 with the overhead.
        const ALERT: usize = 408;
        let payload = match self {
            Effect::Alert(_) => ALERT,
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
