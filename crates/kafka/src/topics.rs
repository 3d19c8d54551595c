//! The topics: their names, how they are configured, and whether one that exists will do.

use std::collections::BTreeMap;

/// `max.message.bytes` of every topic but the dead letters'.
const MAX_RECORD_BYTES: u32 = 16 << 20;
/// A dead letter carries what the readings topic took, some headers more, and may be compressed less well.
const MAX_LETTER_BYTES: u32 = MAX_RECORD_BYTES + (1 << 20);
/// Kafka compacts no segment that is still written to; by default that is a gigabyte or a week of old states, and of a marker
/// for each commit, which every restore reads. (Kafka Streams makes its changelogs so, too.) A segment takes any batch of states that a
/// producer makes by itself, which is a megabyte (`batch.size`).
const SEGMENT: [(&str, &str); 3] =
    [("segment.bytes", "4194304"), ("segment.ms", "3600000"), ("min.cleanable.dirty.ratio", "0.1")];
/// Kept until somebody deletes it.
const FOR_EVER: &str = "-1";
/// What Kafka takes for "any time in the future".
const ANY_TIME_MS: &str = "9223372036854775807";

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

    /// All of them, with their cleanup policies, in the order of `docs/formats.md`.
    #[must_use]
    pub fn all(&self) -> [(&str, Cleanup); 6] {
        Role::ALL.map(|role| (self.name(role), role.cleanup()))
    }

    /// The topic of this role.
    #[must_use]
    pub fn name(&self, role: Role) -> &str {
        match role {
            Role::Readings => &self.readings,
            Role::Alerts => &self.alerts,
            Role::DeadLetters => &self.dead_letters,
            Role::State => &self.state,
            Role::Status => &self.status,
            Role::Aggregates => &self.aggregates,
        }
    }

    /// A name that stands for two topics: with `--group g`, `--topic g_state` would hold readings and states.
    #[must_use]
    pub fn clash(&self) -> Option<&str> {
        (self.readings == self.state).then_some(self.readings.as_str())
    }
}

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `<topic>`
    Readings,
    /// `<topic>_alerts`
    Alerts,
    /// `<topic>_dlq`
    DeadLetters,
    /// `<group>_state`
    State,
    /// `<topic>_status`
    Status,
    /// `<topic>_1m`
    Aggregates,
}

impl Role {
    /// All of them, in the order of `docs/formats.md`.
    pub const ALL: [Role; 6] =
        [Role::Readings, Role::Alerts, Role::DeadLetters, Role::State, Role::Status, Role::Aggregates];

    /// The word for it on the command line: its suffix, or `readings`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Readings => "readings",
            Role::Alerts => "alerts",
            Role::DeadLetters => "dlq",
            Role::State => "state",
            Role::Status => "status",
            Role::Aggregates => "1m",
        }
    }

    /// How old records go.
    #[must_use]
    pub fn cleanup(self) -> Cleanup {
        match self {
            Role::State | Role::Status => Cleanup::Compact,
            Role::Readings | Role::Alerts | Role::DeadLetters | Role::Aggregates => Cleanup::Delete,
        }
    }

    /// How such a topic is made; `min.insync.replicas` is the cluster's matter.
    #[must_use]
    pub fn config(self) -> TopicConfig {
        let mut config = TopicConfig::new(self.cleanup());
        match self {
            Role::DeadLetters => {
                config.set("max.message.bytes", &MAX_LETTER_BYTES.to_string());
                // A dead letter keeps its timestamp, whatever it is. Kafka refuses one that is an hour ahead, and a retention
                // time would delete at once one from long ago.
                config.set(AFTER_MAX_MS, ANY_TIME_MS);
                config.set("retention.ms", FOR_EVER);
            }
            Role::State | Role::Status => SEGMENT.iter().for_each(|(key, value)| config.set(key, value)),
            Role::Readings | Role::Alerts | Role::Aggregates => {}
        }
        config
    }

    /// Why users can't set this property of such a topic to this value; `None` when they can.
    #[must_use]
    pub fn refuses(self, key: &str, value: &str) -> Option<String> {
        let own = self.config();
        match key {
            "cleanup.policy" if value != self.cleanup().as_str() => {
                Some(format!("this topic's is {}: {}", self.cleanup().as_str(), self.why_cleanup()))
            }
            TIMESTAMP_TYPE if value != own.get(key) => {
                Some("a record's timestamp is its event time, set by whoever takes the reading".to_owned())
            }
            AFTER_MAX_MS | "message.timestamp.before.max.ms" | "message.timestamp.difference.max.ms"
                if self == Role::DeadLetters && value != ANY_TIME_MS =>
            {
                Some("a dead letter keeps its timestamp, however wrong it is".to_owned())
            }
            MIN_INSYNC => Some("use --min-insync".to_owned()),
            _ => None,
        }
    }

    fn why_cleanup(self) -> &'static str {
        match self {
            Role::Readings => "compaction would delete readings before they are evaluated",
            Role::Alerts => "compaction would keep a generator's last alert alone",
            Role::DeadLetters => {
                "a compacted topic takes no record without a key, and many a dead letter has none"
            }
            Role::State => "an alarm's state has to be kept for as long as the alarm stands",
            Role::Status => "a generator's status has to be kept until the next one",
            Role::Aggregates => "compaction would keep a generator's last minute alone",
        }
    }

    /// What is wrong with a topic of this role that has this configuration. What the broker doesn't tell is no fault.
    #[must_use]
    pub fn faults(self, config: &BTreeMap<String, String>) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        for (key, wanted) in self.config().iter() {
            let Some(found) = config.get(key) else { continue };
            let why = match key {
                "cleanup.policy" if found != wanted => self.why_cleanup(),
                TIMESTAMP_TYPE if found != wanted => "event time would be when the broker wrote the record",
                AFTER_MAX_MS if found != wanted => {
                    "a dead letter whose timestamp is further ahead would end the worker"
                }
                _ => continue,
            };
            let useless = matches!(self, Role::State | Role::Status | Role::DeadLetters);
            faults.push(ConfigFault {
                text: format!("{key}={found}, not {wanted}: {why}"),
                fatal: useless && key == "cleanup.policy",
            });
        }
        faults
    }
}

/// What is wrong with a topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// What it has, what it needs, and why.
    pub text: String,
    /// It can't be used so at all.
    pub fatal: bool,
}

/// Kafka 3.6 and newer.
const AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const MIN_INSYNC: &str = "min.insync.replicas";

/// The configuration that a topic is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig(BTreeMap<String, String>);

impl TopicConfig {
    /// What all topics have, and how records of this one go.
    #[must_use]
    pub fn new(cleanup: Cleanup) -> TopicConfig {
        let mut config = TopicConfig::empty();
        config.set("cleanup.policy", cleanup.as_str());
        config.set("max.message.bytes", &MAX_RECORD_BYTES.to_string());
        config.set(TIMESTAMP_TYPE, "CreateTime");
        config
    }

    /// No property at all.
    #[must_use]
    pub fn empty() -> TopicConfig {
        TopicConfig(BTreeMap::new())
    }

    /// How many replicas must have a record before it counts as written.
    #[must_use]
    pub fn min_insync(mut self, replicas: i32) -> TopicConfig {
        self.set(MIN_INSYNC, &replicas.to_string());
        self
    }

    /// Sets a property, or replaces it.
    pub fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// A property's value; empty if it isn't set.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Whether a property is set.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// All properties, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Without this property.
    #[must_use]
    pub fn without(mut self, key: &str) -> TopicConfig {
        self.0.remove(key);
        self
    }

    /// Whether the topic can do without this property on a broker that doesn't know it. Brokers before 3.6 have no guard
    /// against the future that would have to be lifted.
    #[must_use]
    pub fn is_optional(key: &str) -> bool {
        key == AFTER_MAX_MS
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dead_letter_topic_takes_records_from_the_future() {
        let lifted: Vec<Role> =
            Role::ALL.into_iter().filter(|role| !role.config().get(AFTER_MAX_MS).is_empty()).collect();
        assert_eq!(lifted, [Role::DeadLetters]);
    }

    #[test]
    fn what_a_topic_is_for_bounds_what_users_can_set() {
        assert!(Role::State.refuses("cleanup.policy", "delete").is_some());
        assert!(Role::State.refuses("cleanup.policy", "compact,delete").is_some());
        assert!(Role::DeadLetters.refuses("cleanup.policy", "compact").is_some());
        assert!(Role::Alerts.refuses("message.timestamp.type", "LogAppendTime").is_some());
        assert!(Role::Readings.refuses("message.timestamp.after.max.ms", "60000").is_none());
        assert!(Role::DeadLetters.refuses("message.timestamp.after.max.ms", "60000").is_some());
        assert!(
            Role::Alerts.refuses("min.insync.replicas", "2").is_some_and(|why| why.contains("--min-insync"))
        );
        assert!(Role::Alerts.refuses("retention.ms", "60000").is_none());
    }

    #[test]
    fn a_topic_as_it_is_made_has_no_fault() {
        for role in Role::ALL {
            let made = role.config().iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            assert_eq!(role.faults(&made), [], "{role:?}");
            assert_eq!(role.faults(&BTreeMap::new()), [], "what isn't told is no fault");
        }
        let forgetful = BTreeMap::from([("cleanup.policy".to_owned(), "delete".to_owned())]);
        let fault = &Role::State.faults(&forgetful)[0];
        assert!(fault.fatal && fault.text.starts_with("cleanup.policy=delete, not compact: "), "{fault:?}");
    }

    #[test]
    fn a_topic_of_readings_is_no_topic_of_states() {
        assert_eq!(Topics::new("g_state", "g").clash(), Some("g_state"));
        assert_eq!(Topics::new("g", "g").clash(), None);
    }
}
