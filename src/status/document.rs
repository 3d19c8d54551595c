//! What is shown of a group, as one value. Serialized it is the document of `status --json`
//! (`docs/schemas/group-status.json`).

use genwatch_core::lag::{Eta, Trend, Verdict};
use genwatch_core::report::HeldPhase;
use genwatch_core::types::{Millis, Offset, PartitionId};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::roster::WorkerStatus;

/// A group's progress.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The consumer group.
    pub group: String,
    /// The topic of readings.
    #[serde(flatten)]
    pub main: TopicStatus,
    /// The other topics that the group commits to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_topics: Vec<TopicStatus>,
    /// Time of the observation; only where the group is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Millis>,
    /// When the last partition will be done; only where the group is watched.
    #[serde(flatten)]
    pub gone: Option<Gone>,
    /// What the group's processes say of themselves; empty if none does.
    #[serde(skip)]
    pub workers: Vec<WorkerStatus>,
    /// Where the owners are known from.
    #[serde(skip)]
    pub owners_from: OwnersFrom,
}

/// Where the owners of partitions are known from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnersFrom {
    /// The group's coordinator, just now.
    #[default]
    Members,
    /// The group's coordinator, at this time: no worker says what it holds.
    MembersAt(Millis),
    /// What workers say of themselves.
    Reports,
}

/// The progress in one topic.
#[derive(Clone, Debug, Serialize)]
pub struct TopicStatus {
    /// The topic.
    pub topic: String,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionStatus>,
}

/// The progress in one partition.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: PartitionId,
    /// Who owns it.
    pub owner: Option<String>,
    /// The committed offset.
    pub committed: Option<Offset>,
    /// The end of the log.
    pub end: Offset,
    /// The records that wait.
    pub lag: i64,
    /// The age of the oldest of them.
    pub time_lag_ms: i64,
    /// What to think of it.
    pub verdict: Verdict,
    /// How it moves; only where the group is watched.
    #[serde(flatten)]
    pub movement: Option<Movement>,
    /// The last lags, oldest first.
    #[serde(skip)]
    pub lags: Vec<i64>,
}

/// How a partition moves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Movement {
    /// Records that arrive a second; `None` until it was seen twice.
    pub arrivals: Option<f64>,
    /// Records committed a second; `None` until it was seen twice.
    pub processed: Option<f64>,
    /// Where the lag goes; `None` until it was seen twice.
    pub trend: Option<Trend>,
    /// When the lag will be gone.
    #[serde(flatten)]
    pub gone: Gone,
    /// What its owner does with it; `None` if the owner doesn't say.
    pub phase: Option<Phase>,
}

/// When a lag will be gone; `None` if nothing is known yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gone(pub Option<Eta>);

impl Serialize for Gone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = match self.0 {
            Some(Eta::Now) => Some(0.0),
            // Tenths are as good as it is known.
            Some(Eta::Seconds(seconds)) => Some((seconds * 10.0).round() / 10.0),
            Some(Eta::Never) | None => None,
        };
        let mut fields = serializer.serialize_struct("Gone", 2)?;
        fields.serialize_field("eta_seconds", &seconds)?;
        fields.serialize_field("eta_never", &(self.0 == Some(Eta::Never)))?;
        fields.end()
    }
}

/// What an owner does with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is processed.
    Active,
    /// Its state is being restored.
    Restoring,
    /// What has begun is finished, before it is given up.
    Draining,
    /// It can't be processed until a fault is fixed.
    Refused,
    /// Its owner is silent.
    Overdue,
}

impl Phase {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Active => "active",
            Phase::Restoring => "restoring",
            Phase::Draining => "draining",
            Phase::Refused => "refused",
            Phase::Overdue => "overdue",
        }
    }
}

impl From<HeldPhase> for Phase {
    fn from(phase: HeldPhase) -> Phase {
        match phase {
            HeldPhase::Restoring => Phase::Restoring,
            HeldPhase::Active => Phase::Active,
            HeldPhase::Draining => Phase::Draining,
            HeldPhase::Refused => Phase::Refused,
        }
    }
}

impl Status {
    /// A status of these topics, the readings' first.
    #[must_use]
    pub fn new(group: &str, topics: Vec<TopicStatus>) -> Status {
        let mut topics = topics.into_iter();
        let none = || TopicStatus { topic: String::new(), partitions: Vec::new() };
        Status {
            group: group.to_owned(),
            main: topics.next().unwrap_or_else(none),
            other_topics: topics.collect(),
            at: None,
            gone: None,
            workers: Vec::new(),
            owners_from: OwnersFrom::default(),
        }
    }

    /// Returns all topics, the readings' first.
    pub fn topics(&self) -> impl Iterator<Item = &TopicStatus> {
        std::iter::once(&self.main).chain(&self.other_topics)
    }

    /// Returns all partitions with their topics, in order.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, &PartitionStatus)> {
        self.topics().flat_map(|of| of.partitions.iter().map(|partition| (of.topic.as_str(), partition)))
    }

    /// Returns the records that wait in all topics.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.partitions().map(|(_, partition)| partition.lag).sum()
    }

    /// Returns the records that arrive and that are committed a second, in all topics; `None` until that is known.
    #[must_use]
    pub fn rates(&self) -> Option<(f64, f64)> {
        let rates = self.partitions().filter_map(|(_, partition)| {
            let movement = partition.movement.as_ref()?;
            movement.arrivals.zip(movement.processed)
        });
        rates.reduce(|sum, of| (sum.0 + of.0, sum.1 + of.1))
    }
}
