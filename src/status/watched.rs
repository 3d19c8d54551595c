//! A group over time: one look after another becomes rates, trends, verdicts.
//!
//! Must not know: clients, clocks.

use std::collections::BTreeMap;

use genwatch_core::lag::{LagTrack, Look, Verdict, last_of};
use genwatch_core::types::{Millis, Offset, PartitionId};

use super::document::{Gone, Movement, OwnersFrom, PartitionStatus, Phase, Status, TopicStatus};
use super::roster::Roster;

/// The owners of partitions by client id, topic by topic.
pub type Owners = BTreeMap<String, BTreeMap<PartitionId, String>>;

/// One look at a topic.
#[derive(Clone, Debug)]
pub struct TopicLook {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: BTreeMap<PartitionId, PartitionLook>,
}

/// One look at a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLook {
    /// The committed offset.
    pub committed: Option<Offset>,
    /// The next offset to process.
    pub next: Offset,
    /// The end of the log.
    pub end: Offset,
    /// The timestamp of the oldest record that waits.
    pub waiting_since: Option<Millis>,
}

impl PartitionLook {
    /// As of this time.
    fn at(&self, now: Millis) -> Look {
        let time_lag = self.waiting_since.map_or(0, |since| now.since(since).max(0));
        Look { at: now, next: self.next, end: self.end, time_lag }
    }
}

/// A group that is watched.
#[derive(Debug)]
pub struct Watched {
    group: String,
    tracks: BTreeMap<(String, PartitionId), LagTrack>,
    /// What the coordinator said at the start.
    members: Option<(Millis, Owners)>,
    /// What workers say of themselves.
    pub roster: Roster,
}

impl Watched {
    /// Begins to watch.
    #[must_use]
    pub fn new(group: &str) -> Watched {
        Watched {
            group: group.to_owned(),
            tracks: BTreeMap::new(),
            members: None,
            roster: Roster::new(group),
        }
    }

    /// Notes who owned what at this time, for as long as no worker says it.
    pub fn members(&mut self, at: Millis, owners: Owners) {
        self.members = Some((at, owners));
    }

    /// Whether it is unknown who owns what.
    #[must_use]
    pub fn wants_members(&self) -> bool {
        self.members.is_none()
    }

    /// Whether the group owned partitions of this topic at the start.
    #[must_use]
    pub fn owned(&self, topic: &str) -> bool {
        self.members.as_ref().is_some_and(|(_, owners)| owners.contains_key(topic))
    }

    /// Takes in a look at each topic, the readings' first, and returns the status.
    pub fn look(&mut self, now: Millis, topics: Vec<TopicLook>) -> Status {
        let speaks = self.roster.speaks(now);
        let mut statuses = Vec::with_capacity(topics.len());
        for (index, TopicLook { topic, partitions }) in topics.into_iter().enumerate() {
            let other = (index > 0).then_some(topic.as_str());
            let partitions = partitions
                .into_iter()
                .map(|(id, look)| {
                    let track = self.tracks.entry((topic.clone(), id)).or_default();
                    track.push(look.at(now));
                    let (owner, phase) = if speaks {
                        let holder = self.roster.holder(other, id, now);
                        holder.map_or((None, None), |(name, phase)| (Some(name.to_owned()), phase))
                    } else {
                        let members = self.members.as_ref().and_then(|(_, owners)| owners.get(&topic));
                        (members.and_then(|of| of.get(&id)).cloned(), None)
                    };
                    status_of(id, &look, track, owner, phase)
                })
                .collect();
            statuses.push(TopicStatus { topic, partitions });
        }
        let mut status = Status::new(&self.group, statuses);
        status.at = Some(now);
        status.workers = self.roster.workers(now);
        status.owners_from = match &self.members {
            _ if speaks => OwnersFrom::Reports,
            Some((at, _)) => OwnersFrom::MembersAt(*at),
            None => OwnersFrom::Members,
        };
        let etas: Option<Vec<_>> = status
            .partitions()
            .map(|(_, partition)| partition.movement.as_ref().and_then(|movement| movement.gone.0))
            .collect();
        status.gone = Some(Gone(etas.map(last_of)));
        status
    }
}

fn status_of(
    id: PartitionId,
    look: &PartitionLook,
    track: &LagTrack,
    owner: Option<String>,
    phase: Option<Phase>,
) -> PartitionStatus {
    let lags: Vec<i64> = track.lags().map(|(_, lag)| lag).collect();
    // One look shows no movement.
    let seen_twice = lags.len() > 1;
    let (arrivals, processed) = (track.arrivals(), track.processed());
    let movement = Movement {
        arrivals: seen_twice.then_some(tenths(arrivals)),
        processed: seen_twice.then_some(tenths(processed)),
        trend: seen_twice.then(|| track.trend()),
        gone: Gone(seen_twice.then(|| track.eta())),
        phase,
    };
    let last = track.last().copied().unwrap_or(look.at(Millis(0)));
    // Whoever commits owns it, even if nobody says who that is.
    let owned = owner.is_some() || processed > 0.0;
    PartitionStatus {
        partition: id,
        owner,
        committed: look.committed,
        end: look.end,
        lag: last.lag(),
        time_lag_ms: last.time_lag,
        verdict: track.verdict(owned),
        movement: Some(movement),
        lags,
    }
}

fn tenths(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

/// Judges a group by two looks, the second at least 1.5 s after the first, as long as something waits.
#[must_use]
pub fn judge(
    group: &str,
    before: &[TopicLook],
    after: Vec<TopicLook>,
    owners: &Owners,
    now: Millis,
) -> Status {
    let mut statuses: Vec<TopicStatus> = Vec::with_capacity(after.len());
    for TopicLook { topic, partitions } in after {
        let earlier = before.iter().find(|of| of.topic == topic).map(|of| &of.partitions);
        let partitions = partitions.into_iter().map(|(id, look)| {
            let owner = owners.get(&topic).and_then(|of| of.get(&id)).cloned();
            let first = earlier.and_then(|of| of.get(&id)).unwrap_or(&look).at(now);
            let last = look.at(now);
            PartitionStatus {
                partition: id,
                verdict: Verdict::of(&first, &last, owner.is_some()),
                owner,
                committed: look.committed,
                end: look.end,
                lag: last.lag(),
                time_lag_ms: last.time_lag,
                movement: None,
                lags: Vec::new(),
            }
        });
        let partitions = partitions.collect();
        statuses.push(TopicStatus { topic, partitions });
    }
    Status::new(group, statuses)
}

#[cfg(test)]
mod tests {
    use genwatch_core::lag::{Eta, Trend};
    use genwatch_core::report::{Held, HeldPhase};

    use super::*;
    use crate::status::roster::tests::report;

    fn look(next: i64, end: i64, waiting_since: Option<i64>) -> PartitionLook {
        let waiting_since = waiting_since.map(Millis);
        PartitionLook { committed: Some(Offset(next)), next: Offset(next), end: Offset(end), waiting_since }
    }

    fn topic(name: &str, looks: &[PartitionLook]) -> TopicLook {
        let partitions = looks.iter().zip(0..).map(|(look, id)| (PartitionId(id), *look)).collect();
        TopicLook { topic: name.to_owned(), partitions }
    }

    fn owners(topic: &str, owner: &str) -> Owners {
        BTreeMap::from([(topic.to_owned(), BTreeMap::from([(PartitionId(0), owner.to_owned())]))])
    }

    #[test]
    fn a_verdict_of_two_looks_tells_standstill_from_slowness() {
        let verdict = |before, after, owned: bool| {
            let owners = if owned { owners("t", "me") } else { Owners::new() };
            let now = Millis(100_000);
            let status = judge("g", &[topic("t", &[before])], vec![topic("t", &[after])], &owners, now);
            assert!(status.main.partitions[0].movement.is_none());
            status.main.partitions[0].verdict
        };
        let (short, long) = (Some(97_000), Some(40_000));
        assert_eq!(verdict(look(10, 10, None), look(10, 10, None), false), Verdict::Ok);
        assert_eq!(verdict(look(5, 10, short), look(5, 10, short), false), Verdict::Unowned);
        assert_eq!(verdict(look(5, 10, short), look(5, 10, short), true), Verdict::Stalled);
        assert_eq!(verdict(look(5, 10, short), look(6, 10, short), true), Verdict::Ok);
        assert_eq!(verdict(look(5, 10, long), look(6, 10, long), true), Verdict::Behind);
    }

    #[test]
    fn what_is_not_known_yet_is_not_said() {
        let mut watched = Watched::new("g");
        watched.members(Millis(1000), owners("t", "me"));
        let first = watched.look(Millis(1000), vec![topic("t", &[look(0, 500, Some(1000))])]);
        let movement = first.main.partitions[0].movement.clone().unwrap();
        assert_eq!((movement.arrivals, movement.trend, movement.gone), (None, None, Gone(None)));
        assert_eq!((first.gone, first.rates()), (Some(Gone(None)), None));
        let second = watched.look(Millis(2000), vec![topic("t", &[look(300, 600, Some(1000))])]);
        let movement = second.main.partitions[0].movement.clone().unwrap();
        assert_eq!(movement.gone, Gone(Some(Eta::Now)), "less than a second's worth");
        assert_eq!(second.rates(), Some((100.0, 300.0)));
        assert_eq!(second.owners_from, OwnersFrom::MembersAt(Millis(1000)));
    }

    #[test]
    fn the_group_is_done_when_its_slowest_partition_is() {
        let mut watched = Watched::new("g");
        let mut last = None;
        for second in 0..20 {
            let at = Millis(1000 + second * 1000);
            let slow = look(second * 10, 10_000 + second * 100, Some(0));
            let fast = look(second * 1000, 30_000, Some(0));
            last = Some(watched.look(at, vec![topic("t", &[slow, fast])]));
        }
        let status = last.unwrap();
        let [slow, fast] = &status.main.partitions[..] else { panic!("two partitions") };
        assert_eq!(slow.movement.as_ref().unwrap().trend, Some(Trend::Growing));
        assert_eq!(fast.movement.as_ref().unwrap().gone, Gone(Some(Eta::Seconds(11.0))));
        assert_eq!(status.gone, Some(Gone(Some(Eta::Never))));
        assert_eq!(slow.verdict, Verdict::Behind, "somebody commits, whoever it is");
        assert_eq!(slow.lags.len(), 20);
    }

    #[test]
    fn owners_are_who_says_so_and_members_only_where_nobody_does() {
        let mut watched = Watched::new("g");
        watched.members(Millis(1000), owners("t", "member"));
        let looks = || vec![topic("t", &[look(0, 5, None)]), topic("t_alerts", &[look(0, 5, None)])];
        let status = watched.look(Millis(1000), looks());
        assert_eq!(status.main.partitions[0].owner.as_deref(), Some("member"));
        let mut said = report("worker", 2000, "");
        said.partitions = vec![Held {
            topic: Some("t_alerts".to_owned()),
            partition: PartitionId(0),
            phase: HeldPhase::Restoring,
            position: None,
            since: Millis(0),
            assigned: None,
        }];
        watched.roster.hear(None, Some(&said.to_json()), None);
        let status = watched.look(Millis(2000), looks());
        assert_eq!(status.owners_from, OwnersFrom::Reports);
        assert_eq!(status.main.partitions[0].owner, None, "the member is outdated");
        assert_eq!(status.main.partitions[0].verdict, Verdict::Unowned);
        let other = &status.other_topics[0].partitions[0];
        assert_eq!(other.owner.as_deref(), Some("worker"));
        assert_eq!(other.movement.as_ref().unwrap().phase, Some(Phase::Restoring));
    }

    #[test]
    fn the_document_has_its_old_fields_first_and_new_ones_only_where_it_is_watched() {
        let looks = || vec![topic("t", &[look(1, 3, Some(500))])];
        let once = judge("g", &looks(), looks(), &Owners::new(), Millis(1000));
        assert_eq!(
            serde_json::to_string(&once).unwrap(),
            r#"{"group":"g","topic":"t","partitions":[{"partition":0,"owner":null,"committed":1,"end":3,"lag":2,"time_lag_ms":500,"verdict":"UNOWNED"}]}"#
        );
        let mut watched = Watched::new("g");
        watched.look(Millis(1000), looks());
        let again = watched.look(Millis(2000), looks());
        assert_eq!(
            serde_json::to_string(&again).unwrap(),
            r#"{"group":"g","topic":"t","partitions":[{"partition":0,"owner":null,"committed":1,"end":3,"lag":2,"time_lag_ms":1500,"verdict":"UNOWNED","arrivals":0.0,"processed":0.0,"trend":"steady","eta_seconds":null,"eta_never":true,"phase":null}],"at":2000,"eta_seconds":null,"eta_never":true}"#
        );
    }
}
