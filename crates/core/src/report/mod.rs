//! What a worker, bridge, sink or source says of itself, as a record of `<group>_workers` (docs/formats.md).
//!
//! The page, `status` and the advisor know from these records who processes what: group metadata never says who
//! restores, who drains, or how a hand-over went, and some brokers list no groups at all.

pub mod load;
pub mod phases;

use serde::{Deserialize, Serialize, Serializer};

use crate::types::{Millis, Offset, PartitionId};
use load::Load;

/// The largest report, in bytes: a record each second for every worker has to stay cheap.
pub const REPORT_BYTES_MAX: usize = 2048;

/// A report. Unknown fields are ignored, so that versions can differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The name, and the record's key; unique in the group.
    pub worker: String,
    /// What it is.
    pub kind: Kind,
    /// When this was said.
    pub at: Millis,
    /// When it started.
    pub since: Millis,
    /// The next report comes within this many milliseconds; if it doesn't, the process is dead, hangs, or can't reach
    /// Kafka.
    pub every: i64,
    /// Its version.
    pub version: String,
    /// The machine or container that it runs on.
    pub host: String,
    /// Its consumer group; a bridge has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The reason not to be ready, in the words of `/readyz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Records a second since the last report.
    pub rate: f64,
    /// The share of its capacity that it uses, 0 to 1: of its loop, its lanes, or its rate limit, whichever is fullest.
    pub busy: f64,
    /// Cores that its process uses.
    pub cpu: f64,
    /// How loaded a worker is, and by what. Others have none, nor do workers of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Records since it started.
    pub records: u64,
    /// Records that it has taken in and not finished.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_flight: u64,
    /// Generators that it keeps in memory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generators: u64,
    /// Changes of its assignment since it started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rebalances: u64,
    /// The other end of a bridge, a sink or a source: `mqtt://broker:1883`, `http://influxdb:8086`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The topic that it reads, where `to` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The topic that it writes, where its kind doesn't say so: aggregates, the rows of a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// All partitions of the main topic that it holds, as ranges: `0-3,7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub held: String,
    /// The partitions that it holds, one by one. Where they don't fit, some are left out: `held` has all.
    #[serde(default)]
    pub partitions: Vec<Held>,
    /// Partitions that it gave up in the last minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<Released>,
}

/// What reports. A kind that this version doesn't know is kept by its name: what a newer version says of itself is shown,
/// and takes part in nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub enum Kind {
    /// A worker.
    Worker,
    /// A worker that makes aggregates.
    Downsample,
    /// A bridge from MQTT.
    Bridge,
    /// A sink.
    Sink,
    /// A source: the rows of a query, into a topic.
    Source,
    /// Another one, of a newer version.
    Other(String),
}

/// A longer name of an unknown kind is cut.
const KIND_CHARS_MAX: usize = 32;

impl Kind {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Kind::Worker => "worker",
            Kind::Downsample => "downsample",
            Kind::Bridge => "bridge",
            Kind::Sink => "sink",
            Kind::Source => "source",
            Kind::Other(name) => name,
        }
    }
}

impl From<String> for Kind {
    fn from(name: String) -> Kind {
        let known = [Kind::Worker, Kind::Downsample, Kind::Bridge, Kind::Sink, Kind::Source];
        let known = known.into_iter().find(|kind| kind.as_str() == name);
        known.unwrap_or_else(|| Kind::Other(name.chars().take(KIND_CHARS_MAX).collect()))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A partition that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its topic, if it isn't the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its number.
    pub partition: PartitionId,
    /// What happens to it.
    pub phase: HeldPhase,
    /// The committed offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Offset>,
    /// When this phase began.
    pub since: Millis,
    /// When the group gave it, in the first minute of being active: from then until `since` it was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Millis>,
}

/// The phase of a held partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldPhase {
    /// Its state is being restored, or it waits for that.
    Restoring,
    /// It is processed.
    Active,
    /// The group has revoked it, or the worker stops: what has begun is finished and committed.
    Draining,
    /// It can't be processed until a fault is fixed.
    Refused,
}

/// A partition that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Its topic, if it isn't the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its number.
    pub partition: PartitionId,
    /// When.
    pub at: Millis,
}

impl Report {
    /// Encodes it in at most [`REPORT_BYTES_MAX`] bytes: leaves out what was released, then the names of generators,
    /// then active partitions, then others, as far as it has to.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut report = self.clone();
        // Whoever is in the middle of something comes first.
        report.partitions.sort_by_key(|held| (held.phase == HeldPhase::Active, held.topic.is_some()));
        loop {
            // Serializing these fields can't fail: no map with keys that aren't strings.
            let json = serde_json::to_vec(&report).unwrap_or_default();
            if json.len() <= REPORT_BYTES_MAX {
                return json;
            }
            let excess = json.len() - REPORT_BYTES_MAX;
            if !report.released.is_empty() {
                report.released.clear();
            } else if let Some(load) = report.load.as_mut().filter(|load| !load.top.is_empty()) {
                load.top.clear();
            } else if !report.partitions.is_empty() {
                // No entry is shorter than 50 bytes.
                let keep = report.partitions.len().saturating_sub(excess / 150 + 1);
                report.partitions.truncate(keep);
            } else {
                report.shorten();
                return serde_json::to_vec(&report).unwrap_or_default();
            }
        }
    }

    /// Bounds the texts: hostile or absurd ones don't fit otherwise.
    fn shorten(&mut self) {
        let cut = |text: &mut String, bytes: usize| {
            while text.len() > bytes {
                text.pop();
            }
        };
        cut(&mut self.held, 400);
        cut(&mut self.host, 255);
        cut(&mut self.version, 100);
        let texts = [&mut self.not_ready, &mut self.peer, &mut self.from, &mut self.to];
        for text in texts.into_iter().flatten() {
            cut(text, 255);
        }
    }

    /// Decodes a record's value.
    ///
    /// # Errors
    /// When it isn't a report.
    pub fn from_json(value: &[u8]) -> Result<Report, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// Whether some partition is in this phase.
    #[must_use]
    pub fn has(&self, phase: HeldPhase) -> bool {
        self.partitions.iter().any(|held| held.phase == phase)
    }

    /// Whether it is of a kind that holds partitions.
    #[must_use]
    pub fn can_hold(&self) -> bool {
        match self.kind {
            Kind::Worker | Kind::Downsample | Kind::Sink => true,
            Kind::Bridge | Kind::Source => false,
            Kind::Other(_) => self.group.is_some(),
        }
    }

    /// Whether it could hold partitions, and holds none.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.can_hold() && self.held.is_empty() && self.partitions.is_empty()
    }

    /// Whether it is overdue at this time, as seen by a reader whose clock may differ a little.
    #[must_use]
    pub fn is_overdue(&self, now: Millis) -> bool {
        now > self.due()
    }

    /// When the next report must have come.
    #[must_use]
    pub fn due(&self) -> Millis {
        Millis(self.at.0.saturating_add(self.every).saturating_add(GRACE))
    }
}

/// What a report may be late by, in milliseconds: clocks differ, and a busy machine is slow.
const GRACE: i64 = 2_000;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::load::TopGenerator;
    use super::*;

    fn report(partitions: usize) -> Report {
        let held = |id| Held {
            topic: None,
            partition: PartitionId(id),
            phase: if id == 100 { HeldPhase::Restoring } else { HeldPhase::Active },
            position: Some(Offset(1_234_567_890)),
            since: Millis(1_766_400_000_000),
            assigned: Some(Millis(1_766_400_000_000)),
        };
        Report {
            worker: "host-123".to_owned(),
            kind: Kind::Worker,
            at: Millis(1_766_400_000_000),
            since: Millis(1_766_400_000_000),
            every: 1000,
            version: "0.1.0".to_owned(),
            host: "host".to_owned(),
            group: Some("genwatch".to_owned()),
            not_ready: None,
            rate: 1000.5,
            busy: 0.25,
            cpu: 0.1,
            load: None,
            records: 1_000_000,
            in_flight: 64,
            generators: 1000,
            rebalances: 3,
            peer: None,
            from: None,
            to: None,
            held: "0-11".to_owned(),
            partitions: (0..i32::try_from(partitions).unwrap()).map(held).collect(),
            released: vec![Released { topic: None, partition: PartitionId(5), at: Millis(7) }],
        }
    }

    /// All of it, with names as long as they may be.
    fn load() -> Load {
        let of = |number: u64| TopGenerator { generator: format!("{number:064}"), share: 0.123 };
        Load {
            loop_busy: 0.123,
            lanes_busy: 0.123,
            work: 0.001_23,
            lanes: 1024,
            rate_limit: Some(1_000_000),
            cores: 1.23,
            machine: "0123abcd".to_owned(),
            committing: 0.123,
            full: 0.123,
            fetch_throttled: 0.123,
            produce_throttled: 0.123,
            top: (0..5).map(of).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let said = report(12);
        assert_eq!(Report::from_json(&said.to_json()).unwrap(), said);
        let said = Report { load: Some(load()), ..report(8) };
        assert_eq!(Report::from_json(&said.to_json()).unwrap(), said);
    }

    #[test]
    fn names_of_generators_are_left_out_before_partitions_are() {
        let said = Report { load: Some(load()), ..report(12) };
        let read = Report::from_json(&said.to_json()).unwrap();
        assert_eq!(read.load, Some(Load { top: Vec::new(), ..load() }));
        assert_eq!(read.partitions, said.partitions);
    }

    #[test]
    fn it_never_exceeds_its_size_and_keeps_what_is_in_the_middle_of_something() {
        for (partitions, load) in
            [0, 12, 13, 20, 128, 1000].into_iter().flat_map(|count| [(count, None), (count, Some(load()))])
        {
            let json = Report { load: load.clone(), ..report(partitions) }.to_json();
            assert!(json.len() <= REPORT_BYTES_MAX, "{partitions}: {} bytes", json.len());
            let read = Report::from_json(&json).unwrap();
            assert_eq!(read.held, "0-11");
            assert_eq!(read.load.map(|load| load.lanes), load.map(|load| load.lanes));
            if partitions > 100 {
                assert_eq!(read.partitions[0].partition, PartitionId(100), "the one that restores");
                assert!(read.partitions.len() > 8, "room is used: {}", read.partitions.len());
            }
        }
        let mut absurd = Report { load: Some(load()), ..report(3) };
        absurd.held = "0,2,".repeat(1000);
        absurd.peer = Some("ü".repeat(3000));
        absurd.to = Some("t".repeat(3000));
        assert!(absurd.to_json().len() <= REPORT_BYTES_MAX);
    }

    #[test]
    fn a_reader_ignores_what_it_does_not_know() {
        let json = String::from_utf8(report(1).to_json()).unwrap();
        let newer = json.replacen('{', r#"{"of_the_future":[1],"#, 1);
        assert_eq!(Report::from_json(newer.as_bytes()).unwrap(), report(1));
    }

    #[test]
    fn a_kind_that_is_unknown_is_kept_by_its_name() {
        let json = String::from_utf8(report(1).to_json()).unwrap();
        let newer = json.replacen(r#""kind":"worker""#, r#""kind":"mirror""#, 1);
        let read = Report::from_json(newer.as_bytes()).unwrap();
        assert_eq!(read.kind, Kind::Other("mirror".to_owned()));
        assert_eq!(Report::from_json(&read.to_json()).unwrap(), read);
        assert_eq!(Kind::from("x".repeat(1000)).as_str().len(), KIND_CHARS_MAX);
        for kind in [Kind::Worker, Kind::Downsample, Kind::Bridge, Kind::Sink, Kind::Source] {
            assert_eq!(Kind::from(kind.as_str().to_owned()), kind);
        }
    }

    #[test]
    fn who_holds_no_partitions_is_never_idle() {
        let of = |kind: &str, group: Option<&str>| Report {
            kind: Kind::from(kind.to_owned()),
            group: group.map(str::to_owned),
            held: String::new(),
            partitions: Vec::new(),
            ..report(0)
        };
        assert!(of("downsample", Some("g_1m")).is_idle());
        assert!(of("mirror", Some("g")).is_idle());
        for kind in ["bridge", "source", "mirror"] {
            assert!(!of(kind, None).is_idle(), "{kind}");
        }
    }

    #[test]
    fn silence_longer_than_was_said_is_overdue() {
        let said = report(1);
        assert!(!said.is_overdue(Millis(said.at.0 + 2_900)));
        assert!(said.is_overdue(Millis(said.at.0 + 3_100)));
    }
}
