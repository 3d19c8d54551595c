//! Asks the cluster how far connectors of Kafka Connect are, on a thread of its own: a coordinator that doesn't answer
//! must not hold up what the [`observer`](super::observer) asks.
//!
//! Connect writes no reports. The tasks of a sink connector are members of the group `connect-NAME`, so its committed
//! offsets are what there is to see, of each group that has some in our topics.
//!
//! Each group takes a client of its own. So only those that read our topics keep theirs, and few others are asked at a
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use genwatch_kafka::admin::{Cluster, ListedGroup};
use genwatch_kafka::clock;
use genwatch_kafka::config::Connection;
use genwatch_kafka::error::Chain;
use genwatch_kafka::group::{Group, GroupError};
use genwatch_kafka::topics::{Role, Topics};

use super::model::connectors::ConnectorLook;
use super::observer::{Seen, bounds};

/// How often it asks for progress. Connect commits once a minute by default.
const EVERY: Duration = Duration::from_secs(5);
/// How often it lists the groups.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// How long the list may take: a broker that is down takes all of it.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Groups that are asked at a time whether they read our topics.
const ASKED_AT_ONCE: usize = 5;
/// Connectors that are followed, at most.
const FOLLOWED_MAX: usize = 12;
/// The groups of sink connectors, unless their configuration says otherwise.
const PREFIX: &str = "connect-";
/// The topics that a connector may be shown to read.
const READ: [Role; 3] = [Role::Readings, Role::Alerts, Role::Aggregates];

/// What it asks for, and whom it tells.
pub struct ConnectObserver {
    /// How to reach the cluster.
    pub connection: Connection,
    /// The topics.
    pub topics: Topics,
    /// Ends it.
    pub stop: Arc<AtomicBool>,
    /// Tells.
    pub seen: Sender<Seen>,
    /// Whoever reads what it tells.
    pub waker: Thread,
}

/// The groups that are known.
#[derive(Default)]
struct Known<'c> {
    /// Those that read our topics.
    followed: BTreeMap<String, Followed<'c>>,
    /// When others were last asked whether they do.
    asked: BTreeMap<String, Instant>,
}

/// A group that reads our topics.
struct Followed<'c> {
    group: Group<'c>,
    /// In these it has committed offsets.
    reads: BTreeSet<Role>,
    has_members: Option<bool>,
}

impl ConnectObserver {
    /// Asks until it is stopped.
    pub fn run(self) {
        while self.goes_on() {
            // The observer tells why a cluster doesn't answer.
            match Cluster::connect(&self.connection) {
                // It lists no groups.
                Ok(cluster) if cluster.is_embedded() => return,
                Ok(cluster) => return self.watch(&cluster),
                Err(_) => self.pause(EVERY),
            }
        }
    }

    fn watch(&self, cluster: &Cluster) {
        let (mut known, mut listed) = (Known::default(), None::<Instant>);
        while self.goes_on() {
            if listed.is_none_or(|at| at.elapsed() >= LIST_EVERY) {
                listed = Some(Instant::now());
                self.list(cluster, &mut known);
            }
            let looks = known.followed.iter().filter_map(|(name, followed)| {
                self.look(name, followed)
                    .inspect_err(|error| tracing::debug!(group = name, reason = %Chain(error), "no progress"))
                    .ok()
            });
            // The receiver lives as long as the loop, which ends only when it stops.
            let _ = self.seen.send(Seen::Connectors(clock::now(), looks.collect()));
            self.waker.unpark();
            self.pause(EVERY);
        }
    }

    /// Looks which groups there are, and which of them read our topics.
    fn list<'c>(&self, cluster: &'c Cluster, known: &mut Known<'c>) {
        let listed = match cluster.groups(LIST_TIMEOUT) {
            Ok(listed) => listed,
            Err(error) => return tracing::debug!(reason = %Chain(&error), "no list of groups"),
        };
        let ours =
            |group: ListedGroup| group.name.starts_with(PREFIX).then_some((group.name, group.has_members));
        let found: BTreeMap<String, Option<bool>> = listed.groups.into_iter().filter_map(ours).collect();
        if listed.is_whole {
            known.followed.retain(|name, _| found.contains_key(name));
            known.asked.retain(|name, _| found.contains_key(name));
        }
        for (name, followed) in &mut known.followed {
            if let Some(has_members) = found.get(name) {
                followed.has_members = *has_members;
            }
            // It may read another topic by now.
            followed.reads.extend(self.reads(&followed.group).unwrap_or_default());
        }
        let mut others: Vec<(String, Option<bool>)> =
            found.into_iter().filter(|(name, _)| !known.followed.contains_key(name)).collect();
        // Never asked comes first.
        others.sort_by_key(|(name, _)| known.asked.get(name).copied());
        for (name, has_members) in others.into_iter().take(ASKED_AT_ONCE) {
            if !self.goes_on() || known.followed.len() == FOLLOWED_MAX {
                return;
            }
            let group = Group::new(&self.connection, cluster, &name, &self.topics.readings);
            let asked = group.map_err(GroupError::from).and_then(|group| Ok((self.reads(&group)?, group)));
            match asked {
                Ok((reads, group)) if !reads.is_empty() => {
                    known.asked.remove(&name);
                    known.followed.insert(name, Followed { group, reads, has_members });
                }
                Ok(_) => drop(known.asked.insert(name, Instant::now())),
                Err(error) => {
                    tracing::debug!(group = name, reason = %Chain(&error), "no offsets");
                    known.asked.insert(name, Instant::now());
                }
            }
        }
    }

    /// The topics in which the group has committed offsets.
    fn reads(&self, group: &Group<'_>) -> Result<BTreeSet<Role>, GroupError> {
        let mut reads = BTreeSet::new();
        for role in READ {
            let group = group.on(self.topics.name(role));
            if group.sees_topic()? && group.has_committed()? {
                reads.insert(role);
            }
        }
        Ok(reads)
    }

    fn look(&self, name: &str, followed: &Followed<'_>) -> Result<ConnectorLook, GroupError> {
        let mut progress = BTreeMap::new();
        for role in &followed.reads {
            let group = followed.group.on(self.topics.name(*role));
            progress.insert(*role, bounds(group.progress()?));
        }
        let name = name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
        Ok(ConnectorLook { name, has_members: followed.has_members, progress })
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn pause(&self, duration: Duration) {
        let until = Instant::now() + duration;
        while self.goes_on() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
