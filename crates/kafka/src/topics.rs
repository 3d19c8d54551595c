//! The topics: their names, their configuration, and whether an existing one will do.

use std::collections::BTreeMap;

/// `max.message.bytes` of every topic but the dead letters'.
const MAX_RECORD_BYTES: u32 = 16 << 20;
/// A dead letter carries a record of the readings topic and some more headers, and may compress worse.
const MAX_LETTER_BYTES: u32 = MAX_RECORD_BYTES + (1 << 20);
/// Kafka never compacts the active segment: by default that is a gigabyte or a week of old states, and a marker per
/// commit, which every restore reads. (Kafka Streams configures its changelogs likewise.) A segment of this size holds
/// any batch of states that a producer builds, which is a megabyte (`batch.size`).
const SEGMENT: [(&str, &str); 3] =
    [("segment.bytes", "4194304"), ("segment.ms", "3600000"), ("min.cleanable.dirty.ratio", "0.1")];
const A_DAY_MS: u32 = 24 * 60 * 60 * 1000;
/// Kept until deleted.
const FOR_EVER: &str = "-1";
/// Kafka's value for "any time in the future".
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
    /// What workers, bridges, sinks and sources say of themselves, compacted; one partition.
    pub workers: String,
    /// The cursors of sources, compacted; one partition. Sources create it: it has no [`Role`].
    pub sources: String,
}

impl Topics {
    /// Derives the names from one `--topic` and `--group`.
    #[must_use]
    pub fn new(topic: &str, group: &str) -> Topics {
        Topics {
            readings: topic.to_owned(),
            alerts: format!("{topic}_alerts"),
            dead_letters: format!("{topic}_dlq"),
            state: format!("{group}_state"),
            status: format!("{topic}_status"),
            aggregates: format!("{topic}_1m"),
            workers: format!("{group}_workers"),
            sources: format!("{group}_sources"),
        }
    }

    /// Returns those of the workers that evaluate alarms.
    #[must_use]
    pub fn of_alarms(&self) -> HandlerTopics {
        HandlerTopics {
            readings: self.readings.clone(),
            output: self.alerts.clone(),
            state: self.state.clone(),
            dead_letters: Some(self.dead_letters.clone()),
        }
    }

    /// Returns all of them, with their cleanup policies, in the order of `docs/formats.md`.
    #[must_use]
    pub fn all(&self) -> [(&str, Cleanup); 7] {
        Role::ALL.map(|role| (self.name(role), role.cleanup()))
    }

    /// Returns the topic of this role.
    #[must_use]
    pub fn name(&self, role: Role) -> &str {
        match role {
            Role::Readings => &self.readings,
            Role::Alerts => &self.alerts,
            Role::DeadLetters => &self.dead_letters,
            Role::State => &self.state,
            Role::Status => &self.status,
            Role::Aggregates => &self.aggregates,
            Role::Workers => &self.workers,
        }
    }

    /// Returns the topics in which the group keeps its own records: no other record may go there.
    #[must_use]
    pub fn own(&self) -> [&str; 3] {
        [&self.state, &self.workers, &self.sources]
    }

    /// Returns a name used for two topics: with `--group g`, `--topic g_state` would hold readings and states.
    #[must_use]
    pub fn clash(&self) -> Option<&str> {
        let is_taken = self.own().contains(&self.readings.as_str());
        is_taken.then_some(self.readings.as_str())
    }
}

/// The topics of one handler's workers. All have the partitions of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerTopics {
    /// What is read.
    pub readings: String,
    /// Outputs.
    pub output: String,
    /// The state of each generator, compacted; it belongs to one consumer group.
    pub state: String,
    /// Bad records; `None`: they are left out, as somebody else keeps them.
    pub dead_letters: Option<String>,
}

impl HandlerTopics {
    /// Returns the topics that are written.
    #[must_use]
    pub fn companions(&self) -> Vec<String> {
        let all = [Some(&self.state), self.dead_letters.as_ref(), Some(&self.output)];
        all.into_iter().flatten().cloned().collect()
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
    /// `<group>_workers`
    Workers,
}

impl Role {
    /// All of them, in the order of `docs/formats.md`.
    pub const ALL: [Role; 7] = [
        Role::Readings,
        Role::Alerts,
        Role::DeadLetters,
        Role::State,
        Role::Status,
        Role::Aggregates,
        Role::Workers,
    ];

    /// Returns its word on the command line: its suffix, or `readings`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Readings => "readings",
            Role::Alerts => "alerts",
            Role::DeadLetters => "dlq",
            Role::State => "state",
            Role::Status => "status",
            Role::Aggregates => "1m",
            Role::Workers => "workers",
        }
    }

    /// Returns the number of its partitions if all topics of readings have `partitions`. Reports of workers have one: a
    /// reader wants all of them, in order.
    #[must_use]
    pub fn partitions(self, partitions: i32) -> i32 {
        if self == Role::Workers { 1 } else { partitions }
    }

    /// Returns how old records are removed.
    #[must_use]
    pub fn cleanup(self) -> Cleanup {
        match self {
            Role::State | Role::Status | Role::Workers => Cleanup::Compact,
            Role::Readings | Role::Alerts | Role::DeadLetters | Role::Aggregates => Cleanup::Delete,
        }
    }

    /// Returns the configuration of such a topic; `min.insync.replicas` depends on the cluster.
    #[must_use]
    pub fn config(self) -> TopicConfig {
        let mut config = TopicConfig::new(self.cleanup());
        match self {
            Role::DeadLetters => {
                config.set("max.message.bytes", &MAX_LETTER_BYTES.to_string());
                // A dead letter keeps its timestamp. Kafka refuses one that is an hour ahead, and a retention time
                // would delete a very old one at once.
                config.set(AFTER_MAX_MS, ANY_TIME_MS);
                config.set("retention.ms", FOR_EVER);
            }
            Role::State | Role::Status => SEGMENT.iter().for_each(|(key, value)| config.set(key, value)),
            Role::Workers => {
                SEGMENT.iter().for_each(|(key, value)| config.set(key, value));
                // The hand-overs of a day: whoever asks later sees them, too.
                config.set("min.compaction.lag.ms", &A_DAY_MS.to_string());
                config.set("delete.retention.ms", &A_DAY_MS.to_string());
            }
            Role::Readings | Role::Alerts | Role::Aggregates => {}
        }
        config
    }

    /// Returns why users can't set this property of such a topic to this value; `None` if they can.
    #[must_use]
    pub fn refuses(self, key: &str, value: &str) -> Option<String> {
        let own = self.config();
        match key {
            "cleanup.policy" if value != self.cleanup().as_str() => {
                Some(format!("this topic's is {}: {}", self.cleanup().as_str(), self.why_cleanup()))
            }
            TIMESTAMP_TYPE if value != own.get(key) => {
                Some("a record's timestamp is its event time, set where the reading is taken".to_owned())
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
                "a compacted topic takes no record without a key, and many dead letters have none"
            }
            Role::State => "an alarm's state has to be kept for as long as the alarm stands",
            Role::Status => "a generator's status has to be kept until the next one",
            Role::Aggregates => "compaction would keep a generator's last minute alone",
            Role::Workers => "the last report of each worker has to be kept",
        }
    }

    /// Returns what is wrong with this configuration of a topic of this role. What the broker doesn't report is no
    /// fault.
    #[must_use]
    pub fn faults(self, config: &BTreeMap<String, String>) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        for (key, wanted) in self.config().iter() {
            let Some(found) = config.get(key) else { continue };
            let why = match key {
                "cleanup.policy" if found != wanted => self.why_cleanup(),
                TIMESTAMP_TYPE if found != wanted => "event time would be when the broker wrote the record",
                AFTER_MAX_MS if found != wanted => {
                    "a dead letter whose timestamp is further ahead would stop the worker"
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

/// A fault of an existing topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// What it has, what it needs, and why.
    pub text: String,
    /// The topic is unusable.
    pub fatal: bool,
}

/// Kafka 3.6 and newer.
const AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const MIN_INSYNC: &str = "min.insync.replicas";

/// The configuration of a new topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig(BTreeMap<String, String>);

impl TopicConfig {
    /// Returns what all topics share, with this cleanup policy.
    #[must_use]
    pub fn new(cleanup: Cleanup) -> TopicConfig {
        let mut config = TopicConfig::empty();
        config.set("cleanup.policy", cleanup.as_str());
        config.set("max.message.bytes", &MAX_RECORD_BYTES.to_string());
        config.set(TIMESTAMP_TYPE, "CreateTime");
        config
    }

    /// Returns what a topic of sources' cursors has: compacted, in small segments, as every start reads all of it.
    #[must_use]
    pub fn of_cursors() -> TopicConfig {
        let mut config = TopicConfig::new(Cleanup::Compact);
        SEGMENT.iter().for_each(|(key, value)| config.set(key, value));
        config
    }

    /// Returns a configuration without properties.
    #[must_use]
    pub fn empty() -> TopicConfig {
        TopicConfig(BTreeMap::new())
    }

    /// Sets how many replicas must have a record before it counts as written.
    #[must_use]
    pub fn min_insync(mut self, replicas: i32) -> TopicConfig {
        self.set(MIN_INSYNC, &replicas.to_string());
        self
    }

    /// Sets a property, or replaces it.
    pub fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// Returns a property's value; empty if it isn't set.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Whether a property is set.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Returns all properties, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Removes this property.
    #[must_use]
    pub fn without(mut self, key: &str) -> TopicConfig {
        self.0.remove(key);
        self
    }

    /// Whether the topic works without this property on a broker that doesn't know it. Brokers before 3.6 have no limit
    /// on future timestamps to lift.
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
    /// Returns the value of `cleanup.policy`.
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
            assert_eq!(role.faults(&BTreeMap::new()), [], "what isn't reported is no fault");
        }
        let forgetful = BTreeMap::from([("cleanup.policy".to_owned(), "delete".to_owned())]);
        let fault = &Role::State.faults(&forgetful)[0];
        assert!(fault.fatal && fault.text.starts_with("cleanup.policy=delete, not compact: "), "{fault:?}");
    }

    #[test]
    fn a_topic_of_readings_is_no_topic_of_states() {
        assert_eq!(Topics::new("g_state", "g").clash(), Some("g_state"));
        assert_eq!(Topics::new("g_workers", "g").clash(), Some("g_workers"));
        assert_eq!(Topics::new("g", "g").clash(), None);
    }
}
