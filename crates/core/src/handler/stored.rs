//! A record of the state topic.

use serde::{Deserialize, Serialize};

use super::Stored;
use crate::alarm::state::StoredAlarms;
use crate::types::{Epoch, GeneratorId, Offset, TopicId};

/// A record of the state topic: which record of the log it covers, and what the handler remembers:
/// `{"generatorID":"generator4","topic":"fXb3ZTPHT7y5Iq7LgnAqLQ","offset":1042,"epoch":3,"rules":{"low_fuel":{"phase":"raised","since":1766400000000,"severity":"warning","field":"fuel","threshold":250.0}}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "B: Stored")]
pub struct StoredState<B = StoredAlarms> {
    /// The generator, as in the key.
    #[serde(rename = "generatorID")]
    pub generator: String,
    /// The id of the readings topic; the offset means nothing in another. Absent where the broker knows no ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicId>,
    /// The offset of the record that led to this state, in the readings partition of the same number.
    pub offset: Offset,
    /// The leader epoch of that record.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub epoch: Epoch,
    /// The handler's own.
    #[serde(flatten)]
    pub body: B,
    /// The generator is gone and this record is about to be deleted; see [`StoredState::of_decommissioned`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decommissioned: bool,
}

impl<B: Stored> StoredState<B> {
    /// Reads a record of the state topic.
    ///
    /// # Errors
    /// When it isn't such a record.
    pub fn from_json(value: &[u8]) -> Result<StoredState<B>, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// The placeholder for the state of a decommissioned generator until the committed offset has passed the
    /// decommissioning. If the state were deleted at once and we crashed before that, the next owner would handle
    /// old records again, because it couldn't tell them from new ones. See [`crate::pool::outbox`].
    #[must_use]
    pub fn of_decommissioned(
        generator: &GeneratorId,
        topic: Option<&TopicId>,
        offset: Offset,
        epoch: Epoch,
    ) -> StoredState<B> {
        StoredState {
            generator: generator.as_str().to_owned(),
            topic: topic.cloned(),
            offset,
            epoch,
            body: B::default(),
            decommissioned: true,
        }
    }

    /// The record's value.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Only strings and finite numbers: serializing them into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_unknown(epoch: &Epoch) -> bool {
    !epoch.is_known()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_written_as_it_was_read() {
        let text = r#"{"generatorID":"g","topic":"fXb3ZTPHT7y5Iq7LgnAqLQ","offset":42,"epoch":3,"rules":{"gone":{"phase":"raised","since":3}}}"#;
        let stored = StoredState::<StoredAlarms>::from_json(text.as_bytes()).expect("valid");
        assert_eq!((stored.offset, stored.epoch, stored.body.rules.len()), (Offset(42), Epoch(3), 1));
        assert_eq!(String::from_utf8(stored.to_json()).expect("UTF-8"), text);

        let gone =
            StoredState::<StoredAlarms>::of_decommissioned(&"g".into(), None, Offset(7), Epoch::UNKNOWN);
        let text = r#"{"generatorID":"g","offset":7,"rules":{},"decommissioned":true}"#;
        assert_eq!(String::from_utf8(gone.to_json()).expect("UTF-8"), text);
        assert_eq!(StoredState::from_json(text.as_bytes()).expect("valid"), gone);
    }
}
