//! What a bridge did, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

/// What a bridge did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BridgeSummary {
    /// Messages that came in, repeats included.
    pub received: u64,
    /// Readings that Kafka has.
    pub readings: u64,
    /// Changes of status, as well.
    pub statuses: u64,
    /// Messages that the broker sent again though they were forwarded already; they weren't, twice.
    pub repeats: u64,
    /// Messages of generators that other bridges forward (`--share`).
    pub of_others: u64,
    /// Messages that were not forwarded and never will be, by reason.
    pub dropped: u64,
    /// As above.
    pub dropped_by: BTreeMap<DropReason, u64>,
    /// Messages that Kafka hadn't confirmed when the bridge ended. By QoS 1 they come again at the next start.
    pub unacknowledged: u64,
    /// How often the MQTT broker had forgotten the session, and with it what it held.
    pub sessions_lost: u64,
    /// From the first message to the last acknowledgement of Kafka.
    pub seconds: f64,
}

impl BridgeSummary {
    /// Counts a message that is left out; whether it's the first for this reason.
    pub(super) fn dropped(&mut self, reason: DropReason) -> bool {
        self.dropped += 1;
        let count = self.dropped_by.entry(reason).or_default();
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
    /// A reading that the broker had retained: it was forwarded when it was new.
    Retained,
    /// In a topic that isn't subscribed to (any more).
    NotSubscribed,
    /// Larger than the topic takes (`max.message.bytes`).
    TooLarge,
    /// Older or newer than the topic takes (`message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`).
    InvalidTimestamp,
    /// Refused by Kafka for what it is.
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

    /// As metrics and the summary have it.
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

    /// For the log.
    pub(super) fn in_words(self) -> &'static str {
        match self {
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
        }
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
