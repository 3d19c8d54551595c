//! What a bridge did, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use genwatch_core::transform::StepPlace;
use serde::Serialize;

/// What a bridge did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BridgeSummary {
    /// Messages received, repeats included.
    pub received: u64,
    /// Readings that are in Kafka.
    pub readings: u64,
    /// Status changes that are in Kafka.
    pub statuses: u64,
    /// Repeats sent by the broker of messages already forwarded; they weren't forwarded twice.
    pub repeats: u64,
    /// Messages of generators that other bridges forward (`--share`).
    pub of_others: u64,
    /// Messages that were never forwarded.
    pub dropped: u64,
    /// The same, by reason.
    pub dropped_by: BTreeMap<DropReason, u64>,
    /// Messages that a filter of `--transform` dropped.
    pub filtered: u64,
    /// Messages that a step of `--transform` failed on, and that are in Kafka as dead letters.
    pub dead_letters: u64,
    /// Messages that a step failed on, by number and kind of the step.
    pub failed_by: BTreeMap<String, u64>,
    /// Messages that Kafka hadn't confirmed when the bridge ended. Those of QoS 1 come again at the next start.
    pub unacknowledged: u64,
    /// How often the MQTT broker had forgotten the session and its messages.
    pub sessions_lost: u64,
    /// Time from the first message to Kafka's last acknowledgement.
    pub seconds: f64,
}

impl BridgeSummary {
    /// Counts a message that is left out; returns whether it is the first for this reason.
    pub(super) fn dropped(&mut self, reason: DropReason) -> bool {
        self.dropped += 1;
        let count = self.dropped_by.entry(reason).or_default();
        *count += 1;
        *count == 1
    }

    /// Counts a message that this step failed on; returns whether it is the first one.
    pub(super) fn failed(&mut self, step: &StepPlace) -> bool {
        let count = self.failed_by.entry(step.label()).or_default();
        *count += 1;
        *count == 1
    }
}

/// Why a message is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A status that is neither online nor offline.
    NotAStatus,
    /// A retained reading: it was forwarded when it was new.
    Retained,
    /// In a topic that isn't subscribed to (any more).
    NotSubscribed,
    /// Larger than the topic allows (`max.message.bytes`).
    TooLarge,
    /// Older or newer than the topic allows (`message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`).
    InvalidTimestamp,
    /// Refused by Kafka as invalid.
    InvalidRecord,
    /// Refused by a policy of the cluster.
    PolicyViolation,
}

impl DropReason {
    /// All of them.
    pub const ALL: [DropReason; 7] = [
        DropReason::NotAStatus,
        DropReason::Retained,
        DropReason::NotSubscribed,
        DropReason::TooLarge,
        DropReason::InvalidTimestamp,
        DropReason::InvalidRecord,
        DropReason::PolicyViolation,
    ];

    /// The name in metrics and the summary.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::NotAStatus => "not_a_status",
            DropReason::Retained => "retained",
            DropReason::NotSubscribed => "not_subscribed",
            DropReason::TooLarge => "too_large",
            DropReason::InvalidTimestamp => "invalid_timestamp",
            DropReason::InvalidRecord => "invalid_record",
            DropReason::PolicyViolation => "policy_violation",
        }
    }
}

/// As the log says it.
impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::NotAStatus => "a status that is neither online nor offline",
            DropReason::Retained => "a retained reading, which is not a new one",
            DropReason::NotSubscribed => "a topic of an earlier start's subscription",
            DropReason::TooLarge => "larger than the Kafka topic takes (max.message.bytes)",
            DropReason::InvalidTimestamp => {
                "its timestamp is older or newer than the Kafka topic takes (message.timestamp.before.max.ms, \
                 message.timestamp.after.max.ms)"
            }
            DropReason::InvalidRecord => "Kafka refuses the record (INVALID_RECORD)",
            DropReason::PolicyViolation => "a policy of the Kafka cluster refuses it (POLICY_VIOLATION)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_called_the_same_everywhere() {
        for reason in DropReason::ALL {
            assert_eq!(serde_json::to_value(reason).expect("JSON"), reason.as_str());
        }
    }
}
