//! What a bridge did, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

/// What a bridge did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
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
    pub dropped_by: BTreeMap<Reason, u64>,
    /// Messages that Kafka hadn't confirmed when the bridge ended. By QoS 1 they come again at the next start.
    pub unacknowledged: u64,
    /// How often the MQTT broker had forgotten the session, and with it what it held.
    pub sessions_lost: u64,
    /// From the first message to the last acknowledgement of Kafka.
    pub seconds: f64,
}

impl Summary {
    /// Counts a message that is left out; whether it's the first for this reason.
    pub(super) fn dropped(&mut self, reason: Reason) -> bool {
        self.dropped += 1;
        let count = self.dropped_by.entry(reason).or_default();
        *count += 1;
        *count == 1
    }
}

/// Why a message is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
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

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 7] = [
        Reason::NotAStatus,
        Reason::Retained,
        Reason::NotSubscribed,
        Reason::TooLarge,
        Reason::InvalidTimestamp,
        Reason::InvalidRecord,
        Reason::PolicyViolation,
    ];

    /// As metrics and the summary have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NotAStatus => "not_a_status",
            Reason::Retained => "retained",
            Reason::NotSubscribed => "not_subscribed",
            Reason::TooLarge => "too_large",
            Reason::InvalidTimestamp => "invalid_timestamp",
            Reason::InvalidRecord => "invalid_record",
            Reason::PolicyViolation => "policy_violation",
        }
    }

    /// For the log.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Reason::NotAStatus => "a status that is neither online nor offline",
            Reason::Retained => "a retained reading, which is not a new one",
            Reason::NotSubscribed => "a topic of an earlier start's subscription",
            Reason::TooLarge => "larger than the Kafka topic takes (max.message.bytes)",
            Reason::InvalidTimestamp => {
                "its timestamp is older or newer than the Kafka topic takes (message.timestamp.before.max.ms, \
                 message.timestamp.after.max.ms)"
            }
            Reason::InvalidRecord => "Kafka refuses the record (INVALID_RECORD)",
            Reason::PolicyViolation => "a policy of the Kafka cluster refuses it (POLICY_VIOLATION)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_called_the_same_everywhere() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).expect("JSON"), reason.as_str());
        }
    }
}
