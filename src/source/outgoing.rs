//! What becomes of a new row: a record of the next transaction.

use genwatch_core::engine::encode::DLQ_VALUE_DROPPED;
use genwatch_core::types::Millis;
use genwatch_kafka::forward::OwnHeader;

use super::record::SourceRow;
use super::time::Nanos;

/// Bytes of a record besides key, value and headers, at the most.
const RECORD_OVERHEAD: usize = 256;
/// The same of one header.
const HEADER_OVERHEAD: usize = 8;

/// A record of the next transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The row's time: it decides the order, whatever the steps made of the record's.
    pub time: Nanos,
    /// Where it goes.
    pub target: Target,
    /// Its key: the row's.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` only for a dead letter that is too large with it.
    pub value: Option<Vec<u8>>,
    /// Its timestamp.
    pub at: Millis,
    /// Its headers.
    pub headers: Vec<OwnHeader>,
}

/// Where a record goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the source's topic.
    Own,
    /// To the topic that a step named.
    Routed(String),
    /// To the dead letters, because this step failed.
    DeadLetters {
        /// Number and kind of the step.
        step: String,
    },
}

impl Outgoing {
    /// The bytes that it takes in a transaction: of what the steps made of the row.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let header =
            |(name, value): &OwnHeader| name.len() + value.as_ref().map_or(0, Vec::len) + HEADER_OVERHEAD;
        self.value.as_ref().map_or(0, Vec::len)
            + self.key.as_ref().map_or(0, Vec::len)
            + self.headers.iter().map(header).sum::<usize>()
    }

    /// The topic that a step named.
    #[must_use]
    pub fn routed_to(&self) -> Option<&str> {
        match &self.target {
            Target::Routed(topic) => Some(topic),
            Target::Own | Target::DeadLetters { .. } => None,
        }
    }

    /// Drops the value of a dead letter, and adds a header that says so.
    pub fn drop_value(&mut self) {
        if let Some(value) = self.value.take() {
            let bytes = value.len().to_string().into_bytes();
            self.headers.push((DLQ_VALUE_DROPPED.to_owned(), Some(bytes)));
        }
    }

    /// Whether a topic that takes messages of so many bytes takes it, alone and as it is.
    #[must_use]
    pub fn fits(&self, most: usize) -> bool {
        self.bytes() + RECORD_OVERHEAD <= most
    }
}

/// A row that no step changes.
impl From<SourceRow> for Outgoing {
    fn from(row: SourceRow) -> Outgoing {
        Outgoing {
            time: row.time,
            target: Target::Own,
            key: row.key,
            value: Some(row.value),
            at: row.time.millis(),
            headers: Vec::new(),
        }
    }
}
