//! The topics, their names and how they are cleaned up.

/// The names that derive from `--topic` and `--group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// The readings, keyed by generatorID.
    pub readings: String,
    /// Alert events.
    pub alerts: String,
    /// Bad records.
    pub dead_letters: String,
    /// The alarm state of each generator, compacted.
    pub state: String,
    /// Online and offline, from MQTT last wills, compacted.
    pub status: String,
    /// One-minute aggregates.
    pub aggregates: String,
}

impl Topics {
    /// The names for one `--topic` and `--group`.
    #[must_use]
    pub fn new(topic: &str, group: &str) -> Topics {
        Topics {
            readings: topic.to_owned(),
            alerts: format!("{topic}_alerts"),
            dead_letters: format!("{topic}_dlq"),
            state: format!("{group}_state"),
            status: format!("{topic}_status"),
            aggregates: format!("{topic}_1m"),
        }
    }

    /// All of them, with their cleanup policies, in the order of the contract.
    #[must_use]
    pub fn all(&self) -> [(&str, Cleanup); 6] {
        [
            (&self.readings, Cleanup::Delete),
            (&self.alerts, Cleanup::Delete),
            (&self.dead_letters, Cleanup::Delete),
            (&self.state, Cleanup::Compact),
            (&self.status, Cleanup::Compact),
            (&self.aggregates, Cleanup::Delete),
        ]
    }
}

/// A topic's `cleanup.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Old records are dropped after the retention time.
    Delete,
    /// The last record of each key is kept.
    Compact,
}

impl Cleanup {
    /// The value of `cleanup.policy`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
        }
    }
}
