//! Asks the cluster, on a thread of its own, as answers may take seconds: which topics there are and where to
//! begin reading them, how far the groups are, and whether Kafka answers at all.
//!
//! It never asks the group for its members: `DescribeConsumerGroups` ended long-lived clients
//! (ARCHITECTURE.md).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use genwatch_core::types::{Millis, Offset, PartitionId, TopicId};
use genwatch_kafka::admin::{Cluster, ClusterError};
use genwatch_kafka::clock;
use genwatch_kafka::config::Connection;
use genwatch_kafka::error::Chain;
use genwatch_kafka::group::{Group, GroupError, OldestWaiting, Progress};
use genwatch_kafka::log_limit::LogLimiter;
use genwatch_kafka::starts::{Start, StartAt, starts};
use genwatch_kafka::topic_reader::TopicReaderError;
use genwatch_kafka::topics::{Role, Topics};

use super::model::connectors::ConnectorLook;
use super::model::progress::Bounds;

/// How often it asks for progress.
const EVERY: Duration = Duration::from_secs(1);
/// How often it asks for topics, unless one is missing.
const TOPICS_EVERY: Duration = Duration::from_secs(5);
/// How often it asks how much is written to topics that nobody reads here.
const SIZES_EVERY: Duration = Duration::from_secs(2);
/// How soon a broker has to answer.
const PING: Duration = Duration::from_secs(3);
/// How often at most a record is read for its age.
const AGES_EVERY: Duration = Duration::from_secs(10);
/// How long an age may take to read.
const AGES_PATIENCE: Duration = Duration::from_secs(10);
/// How far before now the newest readings begin: each generator's last values are there at once.
const RECENT: i64 = 2 * 60 * 1000;
/// Where the windows of the past begin, in milliseconds before now: the newest is read first.
const WINDOWS: [i64; 5] = [10 * 60_000, 60 * 60_000, 4 * 60 * 60_000, 12 * 60 * 60_000, 24 * 60 * 60_000];
const A_DAY: i64 = 24 * 60 * 60 * 1000;
/// Topics that are read whole, or from some time on.
pub const FOLLOWED: [Role; 5] = [Role::Readings, Role::Alerts, Role::State, Role::Status, Role::Workers];

/// What it has seen.
#[derive(Debug)]
pub enum Seen {
    /// Kafka answers.
    Answers,
    /// It doesn't, for this reason.
    Away(String),
    /// Whether a topic exists, and its partitions.
    Topic(Role, bool, usize),
    /// How many records were written to a topic that nobody reads here.
    Written(Role, i64),
    /// Where to begin reading a topic; the offsets are of another log than before if it begins `anew`.
    Begin {
        /// Which.
        role: Role,
        /// It was deleted and recreated.
        anew: bool,
        /// Where to begin, and where it ends now.
        starts: BTreeMap<PartitionId, Start>,
    },
    /// The past of the readings, the newest window first.
    Past(Vec<Window>),
    /// The progress of the workers' group.
    Progress(Millis, BTreeMap<PartitionId, Bounds>),
    /// The progress of the sinks' group in one of its topics.
    Sink(Role, Millis, BTreeMap<PartitionId, Bounds>),
    /// The progress of the group that makes one-minute aggregates.
    Downsample(Millis, BTreeMap<PartitionId, Bounds>),
    /// All connectors of Kafka Connect that read our topics.
    Connectors(Millis, Vec<ConnectorLook>),
    /// The timestamp of first waiting records.
    Oldest(Vec<(PartitionId, Offset, Millis)>),
}

/// A part of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its begin.
    pub from: Millis,
    /// The first offset and the end, by partition.
    pub parts: BTreeMap<PartitionId, (Offset, Offset)>,
}

/// What it asks for, and whom it tells.
pub struct Observer {
    /// How to reach the cluster.
    pub connection: Connection,
    /// The topics.
    pub topics: Topics,
    /// The workers' group.
    pub group: String,
    /// How far the past goes.
    pub history: Duration,
    /// Ends it.
    pub stop: Arc<AtomicBool>,
    /// Tells.
    pub seen: Sender<Seen>,
    /// Partitions whose first waiting record has to be read for its age.
    pub ages: Receiver<BTreeMap<PartitionId, Bounds>>,
    /// Whoever reads what it tells.
    pub waker: Thread,
}

/// Why it had no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Reader(#[from] TopicReaderError),
}

/// What it remembers of the topics.
#[derive(Default)]
struct Known {
    /// The partitions and the id of each topic that is followed.
    followed: BTreeMap<Role, (usize, Option<TopicId>)>,
    exist: BTreeMap<Role, usize>,
    /// Missing at the last look: a broker that has just started doesn't know all topics.
    suspects: BTreeSet<Role>,
    has_past: bool,
}

impl Observer {
    /// Asks until it is stopped, or nobody listens any more.
    pub fn run(self) {
        while self.goes_on() {
            match Cluster::connect(&self.connection) {
                Ok(cluster) => self.watch(&cluster),
                Err(error) => self.tell(Seen::Away(Chain(&error).to_string())),
            }
            self.pause(EVERY);
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn pause(&self, duration: Duration) {
        let until = Instant::now() + duration;
        while self.goes_on() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50).min(duration));
        }
    }

    fn tell(&self, seen: Seen) {
        // The receiver lives as long as the loop, which ends only when it stops.
        let _ = self.seen.send(seen);
        self.waker.unpark();
    }

    fn watch(&self, cluster: &Cluster) {
        let group = |name: &str| Group::new(&self.connection, cluster, name, &self.topics.readings);
        let names = [self.group.clone(), format!("{}_influx", self.group), format!("{}_1m", self.group)];
        let [workers, sinks, downsample] = match names.map(|name| group(&name)) {
            [Ok(workers), Ok(sinks), Ok(downsample)] => [workers, sinks, downsample],
            [Err(error), ..] | [_, Err(error), _] | [.., Err(error)] => {
                return self.tell(Seen::Away(Chain(&error).to_string()));
            }
        };
        let (mut known, mut logged) = (Known::default(), LogLimiter::default());
        let (mut topics_at, mut sizes_at, mut ages_at) = (None, None, None);
        let is_due = |last: &mut Option<Instant>, every: Duration| {
            let due = last.is_none_or(|last| last.elapsed() >= every);
            if due {
                *last = Some(Instant::now());
            }
            due
        };
        while self.goes_on() {
            let began = Instant::now();
            let mut look = || -> Result<(), Unanswered> {
                cluster.ping(PING)?;
                self.tell(Seen::Answers);
                let all = known.followed.len() == FOLLOWED.len();
                if is_due(&mut topics_at, if all { TOPICS_EVERY } else { EVERY }) {
                    self.look_at_topics(cluster, &mut known)?;
                }
                if known.exist.contains_key(&Role::Readings) {
                    let at = clock::now();
                    self.tell(Seen::Progress(at, bounds(workers.progress()?)));
                    self.tell(Seen::Sink(Role::Readings, at, bounds(sinks.progress()?)));
                }
                if is_due(&mut sizes_at, SIZES_EVERY) {
                    for role in [Role::Alerts, Role::Aggregates] {
                        if known.exist.contains_key(&role) {
                            let progress = sinks.on(self.topics.name(role)).progress()?;
                            self.tell(Seen::Sink(role, clock::now(), bounds(progress)));
                        }
                    }
                    // An operator of an older release may not see this group: that hides nothing else.
                    match downsample.progress() {
                        Ok(progress) => self.tell(Seen::Downsample(clock::now(), bounds(progress))),
                        Err(error) => tracing::debug!(reason = %Chain(&error), "no progress of aggregates"),
                    }
                    for role in [Role::DeadLetters, Role::Aggregates] {
                        if known.exist.contains_key(&role) {
                            let ends = starts(cluster, self.topics.name(role), StartAt::Now)?;
                            self.tell(Seen::Written(role, ends.values().map(|start| start.end.0).sum()));
                        }
                    }
                }
                Ok(())
            };
            if let Err(error) = look() {
                self.tell_of(&error, cluster, &mut logged);
            }
            if let Some(unknown) = self.ages.try_iter().last()
                && is_due(&mut ages_at, AGES_EVERY)
            {
                self.ask_ages(unknown);
            }
            self.pause(EVERY.saturating_sub(began.elapsed()).max(Duration::from_millis(100)));
        }
    }

    /// A topic that is gone is no outage: the next look at the topics tells it.
    fn tell_of(&self, error: &Unanswered, cluster: &Cluster, logged: &mut LogLimiter<String>) {
        if let Err(error) = cluster.ping(PING) {
            return self.tell(Seen::Away(Chain(&error).to_string()));
        }
        let reason = Chain(error).to_string();
        if logged.allow(reason.clone(), Instant::now()).is_some() {
            tracing::warn!(reason, "the cluster does not tell everything");
        }
    }

    fn look_at_topics(&self, cluster: &Cluster, known: &mut Known) -> Result<(), Unanswered> {
        let mut found = BTreeMap::new();
        for role in Role::ALL {
            match cluster.topic(self.topics.name(role)) {
                Ok(Some(topic)) => {
                    found.insert(role, topic.partitions.len());
                }
                Ok(None) => {}
                // Nobody may say more than "not for you" of such a topic: as if it weren't there.
                Err(ClusterError::Unauthorized { topic }) => tracing::debug!(topic, "not authorized"),
                Err(error) => return Err(error.into()),
            }
        }
        let names: Vec<&str> = found.keys().map(|role| self.topics.name(*role)).collect();
        let ids = cluster.topic_ids(&names).unwrap_or_else(|error| {
            tracing::debug!(%error, "the brokers do not tell the topics' ids");
            BTreeMap::new()
        });
        for role in Role::ALL {
            match found.get(&role) {
                Some(partitions) => {
                    known.suspects.remove(&role);
                    known.exist.insert(role, *partitions);
                    self.tell(Seen::Topic(role, true, *partitions));
                }
                None if known.exist.contains_key(&role) && known.suspects.insert(role) => {}
                None => {
                    known.exist.remove(&role);
                    known.followed.remove(&role);
                    self.tell(Seen::Topic(role, false, 0));
                }
            }
        }
        for role in FOLLOWED {
            let Some(partitions) = found.get(&role) else { continue };
            let id = ids.get(self.topics.name(role)).cloned().flatten();
            let is_known = known.followed.get(&role);
            let anew = is_known.is_some_and(|(_, known)| known.is_some() && id.is_some() && *known != id);
            if !anew && is_known.is_some_and(|(before, _)| before == partitions) {
                continue;
            }
            let now = clock::now();
            let starts = starts(cluster, self.topics.name(role), self.start_of(role, now))?;
            known.followed.insert(role, (*partitions, id));
            if role == Role::Readings && !known.has_past && !cluster.is_embedded() {
                known.has_past = true;
                let windows = self.past(cluster, &starts, now)?;
                self.tell(Seen::Begin { role, anew, starts });
                self.tell(Seen::Past(windows));
            } else {
                self.tell(Seen::Begin { role, anew, starts });
            }
        }
        Ok(())
    }

    fn start_of(&self, role: Role, now: Millis) -> StartAt {
        match role {
            Role::Readings => StartAt::Time(Millis(now.0 - RECENT)),
            // The statistics are of a day, whatever is kept of the readings.
            Role::Alerts | Role::Workers => StartAt::Time(Millis(now.0 - A_DAY)),
            _ => StartAt::Beginning,
        }
    }

    /// Returns the windows of the past, the newest first.
    fn past(
        &self,
        cluster: &Cluster,
        recent: &BTreeMap<PartitionId, Start>,
        now: Millis,
    ) -> Result<Vec<Window>, Unanswered> {
        let history = clock::millis(self.history);
        let borders = WINDOWS.into_iter().filter(|border| *border < history).chain([history]);
        let mut ends: BTreeMap<PartitionId, Offset> =
            recent.iter().map(|(id, start)| (*id, start.begin)).collect();
        let mut windows = Vec::new();
        for border in borders.filter(|border| *border > RECENT) {
            let from = Millis(now.0 - border);
            let begins = starts(cluster, &self.topics.readings, StartAt::Time(from))?;
            let part = |(id, end): (&PartitionId, &Offset)| {
                let begin = begins.get(id).map_or(*end, |start| start.begin).min(*end);
                (*id, (begin, *end))
            };
            let parts: BTreeMap<_, _> = ends.iter().map(part).collect();
            ends = parts.iter().map(|(id, (begin, _))| (*id, *begin)).collect();
            windows.push(Window { from, parts });
        }
        Ok(windows)
    }

    /// Reads first waiting records, on a thread of its own: it may take seconds.
    fn ask_ages(&self, unknown: BTreeMap<PartitionId, Bounds>) {
        let (connection, group, topic) =
            (self.connection.clone(), self.group.clone(), self.topics.readings.clone());
        let (seen, waker) = (self.seen.clone(), self.waker.clone());
        let ask = move || {
            let progress = |bounds: &Bounds| Progress {
                start: bounds.start,
                end: bounds.end,
                committed: Some(bounds.next()),
            };
            let asked = unknown.iter().map(|(id, bounds)| (*id, progress(bounds))).collect();
            let waiting = OldestWaiting::new(&connection, &group, &topic);
            match waiting.and_then(|mut waiting| waiting.ask(&asked, AGES_PATIENCE)) {
                Ok(found) => {
                    let told =
                        found.into_iter().filter_map(|(id, at)| Some((id, unknown.get(&id)?.next(), at)));
                    let _ = seen.send(Seen::Oldest(told.collect()));
                    waker.unpark();
                }
                Err(error) => tracing::debug!(reason = %Chain(&error), "the age of the lag is unknown"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("ages".to_owned()).spawn(ask) {
            tracing::warn!(%error, "no thread to ask for the age of the lag");
        }
    }
}

pub(super) fn bounds(progress: BTreeMap<PartitionId, Progress>) -> BTreeMap<PartitionId, Bounds> {
    let of = |Progress { start, end, committed }| Bounds { start, end, committed };
    progress.into_iter().map(|(id, progress)| (id, of(progress))).collect()
}
