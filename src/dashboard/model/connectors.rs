//! Connectors of Kafka Connect: how far their groups are in our topics.

use std::collections::BTreeMap;

use genwatch_core::types::{Millis, PartitionId};
use genwatch_kafka::topics::Role;

use super::progress::{Bounds, Bursts, GroupProgress, tenth};

/// One connector, as the brokers told of its group.
#[derive(Clone, Debug)]
pub struct ConnectorLook {
    /// Its name.
    pub name: String,
    /// Whether any of its tasks is a member of the group; `None` if the brokers don't say.
    pub has_members: Option<bool>,
    /// Its progress in the topics in which it has committed offsets.
    pub progress: BTreeMap<Role, BTreeMap<PartitionId, Bounds>>,
}

/// All connectors that read our topics.
#[derive(Debug, Default)]
pub struct Connectors(BTreeMap<String, Connector>);

#[derive(Debug, Default)]
struct Connector {
    has_members: Option<bool>,
    reads: BTreeMap<Role, Read>,
}

/// A connector in one topic.
#[derive(Debug, Default)]
struct Read {
    progress: GroupProgress,
    /// It commits once a minute by default, so its rate is that of minutes.
    commits: Bursts,
}

/// A connector as the graph shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectorFacts {
    /// Its name.
    pub name: String,
    /// Whether any of its tasks runs; `None` if that isn't known.
    pub has_members: Option<bool>,
    /// What it reads.
    pub reads: Vec<ReadFacts>,
}

/// A topic that a connector reads.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadFacts {
    /// Which.
    pub role: Role,
    /// Records that wait.
    pub lag: i64,
    /// The age of the oldest one, if it is known.
    pub time_lag_ms: Option<i64>,
    /// Records that it commits a second.
    pub rate: f64,
    /// It has committed nothing for longer than it waits between commits.
    pub stands: bool,
}

impl Connectors {
    /// Takes in all that are there.
    pub fn look(&mut self, at: Millis, looks: Vec<ConnectorLook>) {
        self.0.retain(|name, _| looks.iter().any(|look| look.name == *name));
        for look in looks {
            let connector = self.0.entry(look.name).or_default();
            connector.has_members = look.has_members;
            connector.reads.retain(|role, _| look.progress.contains_key(role));
            for (role, bounds) in &look.progress {
                let read = connector.reads.entry(*role).or_default();
                read.progress.look(at, bounds);
                read.commits.push(at, bounds.values().map(|bounds| bounds.next().0).sum());
            }
        }
    }

    /// The readings topic was deleted and recreated.
    pub fn readings_begin_again(&mut self) {
        for connector in self.0.values_mut() {
            connector.reads.remove(&Role::Readings);
        }
    }

    /// All of them, by name. The progress of the `readings` has the timestamps.
    #[must_use]
    pub fn facts(&self, readings: &GroupProgress, now: Millis) -> Vec<ConnectorFacts> {
        let read = |(role, read): (&Role, &Read)| ReadFacts {
            role: *role,
            lag: read.progress.total().lag,
            time_lag_ms: (*role == Role::Readings)
                .then(|| readings.time_lag_of(&read.progress, now))
                .flatten(),
            rate: tenth(read.commits.rate()),
            stands: read.commits.stand(),
        };
        let facts = |(name, connector): (&String, &Connector)| ConnectorFacts {
            name: name.clone(),
            has_members: connector.has_members,
            reads: connector.reads.iter().map(read).collect(),
        };
        self.0.iter().map(facts).collect()
    }
}

#[cfg(test)]
mod tests {
    use genwatch_core::types::Offset;

    use super::*;

    fn look(name: &str, committed: i64, end: i64) -> ConnectorLook {
        let bounds = Bounds { start: Offset(0), end: Offset(end), committed: Some(Offset(committed)) };
        let partitions = BTreeMap::from([(PartitionId(0), bounds)]);
        let progress = BTreeMap::from([(Role::Alerts, partitions)]);
        ConnectorLook { name: name.to_owned(), has_members: Some(true), progress }
    }

    fn facts(connectors: &Connectors) -> Vec<ConnectorFacts> {
        connectors.facts(&GroupProgress::default(), Millis(0))
    }

    #[test]
    fn a_connector_that_commits_once_a_minute_does_not_stand() {
        let mut connectors = Connectors::default();
        for second in (0..=180).step_by(5) {
            connectors.look(Millis(second * 1000), vec![look("s3", second / 60 * 600, second * 10)]);
            let read = facts(&connectors)[0].reads[0].clone();
            assert!(!read.stands, "after {second} s");
            assert_eq!(read.lag, second % 60 * 10);
        }
        let read = facts(&connectors)[0].reads[0].clone();
        assert!((9.0..16.0).contains(&read.rate), "{read:?}");
        for second in (185..=300).step_by(5) {
            connectors.look(Millis(second * 1000), vec![look("s3", 1800, second * 10)]);
        }
        assert!(facts(&connectors)[0].reads[0].stands);
    }

    #[test]
    fn one_that_is_gone_is_forgotten() {
        let mut connectors = Connectors::default();
        connectors.look(Millis(0), vec![look("a", 1, 2), look("b", 1, 2)]);
        connectors.look(Millis(5000), vec![look("b", 1, 2)]);
        let names: Vec<_> = facts(&connectors).into_iter().map(|facts| facts.name).collect();
        assert_eq!(names, ["b"]);
    }
}
