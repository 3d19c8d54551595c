//! How far a group is in a topic: lag, time lag, rates, trend and verdict of each partition, and of all.

use std::collections::{BTreeMap, VecDeque};

use genwatch_core::lag::{Eta, LagTrack, Look, Trend, Verdict, last_of};
use genwatch_core::types::{Millis, Offset, PartitionId};
use serde::Serialize;

use super::time_index::TimeIndex;

/// The progress of one partition, as the brokers told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset in the log.
    pub start: Offset,
    /// The end of the log.
    pub end: Offset,
    /// The committed offset.
    pub committed: Option<Offset>,
}

impl Bounds {
    /// The next offset to process.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.committed.unwrap_or(self.start).max(self.start)
    }

    /// The records that wait.
    #[must_use]
    pub fn lag(&self) -> i64 {
        (self.end.0 - self.next().0).max(0)
    }
}

/// One partition over time.
#[derive(Debug, Default)]
struct Track {
    looks: LagTrack,
    bounds: Option<Bounds>,
    times: TimeIndex,
    /// The first waiting record and its timestamp, as it was read from the log.
    asked: Option<(Offset, Millis)>,
}

/// A group's progress in a topic.
#[derive(Debug, Default)]
pub struct GroupProgress {
    tracks: BTreeMap<PartitionId, Track>,
    total: LagTrack,
}

/// One partition as it is shown, without its owner.
#[derive(Debug, Serialize)]
pub struct Shown {
    committed: Option<Offset>,
    start: Offset,
    end: Offset,
    lag: i64,
    time_lag_ms: i64,
    arrivals: f64,
    processed: f64,
    trend: Trend,
    #[serde(flatten)]
    eta: ShownEta,
    verdict: Verdict,
}

/// When a lag will be gone.
#[derive(Debug, PartialEq, Serialize)]
pub struct ShownEta {
    eta_seconds: Option<f64>,
    eta_never: bool,
}

impl From<Eta> for ShownEta {
    fn from(eta: Eta) -> ShownEta {
        match eta {
            Eta::Now => ShownEta { eta_seconds: Some(0.0), eta_never: false },
            Eta::Seconds(seconds) => ShownEta { eta_seconds: Some(tenth(seconds)), eta_never: false },
            Eta::Never => ShownEta { eta_seconds: None, eta_never: true },
        }
    }
}

/// All partitions together as they are shown.
#[derive(Debug, Serialize)]
pub struct Total {
    /// Records that wait.
    pub lag: i64,
    /// The age of the oldest one.
    pub time_lag_ms: i64,
    /// Records that arrive a second.
    pub arrivals: f64,
    /// Records that are committed a second.
    pub processed: f64,
    trend: Trend,
    #[serde(flatten)]
    eta: ShownEta,
}

impl Shown {
    /// What to think of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Records that wait.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.lag
    }

    /// The age of the oldest one.
    #[must_use]
    pub fn time_lag_ms(&self) -> i64 {
        self.time_lag_ms
    }

    /// Records that are committed a second.
    #[must_use]
    pub fn processed(&self) -> f64 {
        self.processed
    }
}

impl GroupProgress {
    /// Notes the timestamp of a record, read in the order of the log.
    pub fn note_time(&mut self, partition: PartitionId, offset: Offset, at: Millis) {
        self.tracks.entry(partition).or_default().times.note(offset, at);
    }

    /// Notes the timestamp of a first waiting record, read from the log.
    pub fn note_oldest(&mut self, partition: PartitionId, offset: Offset, at: Millis) {
        self.tracks.entry(partition).or_default().asked = Some((offset, at));
    }

    /// Takes in what the brokers told.
    pub fn look(&mut self, at: Millis, bounds: &BTreeMap<PartitionId, Bounds>) {
        self.tracks.retain(|id, track| bounds.contains_key(id) || track.bounds.is_none());
        let (mut next, mut end, mut oldest) = (0, 0, 0);
        for (id, bounds) in bounds {
            let track = self.tracks.entry(*id).or_default();
            if track.bounds.is_some_and(|before| bounds.end < before.end) {
                // The log began again.
                (track.times, track.asked) = (TimeIndex::default(), None);
            }
            track.bounds = Some(*bounds);
            let time_lag = time_lag(track, bounds, at);
            track.looks.push(Look { at, next: bounds.next(), end: bounds.end, time_lag });
            next += bounds.next().0;
            end += bounds.end.0;
            oldest = oldest.max(time_lag);
        }
        self.total.push(Look { at, next: Offset(next), end: Offset(end), time_lag: oldest });
    }

    /// Returns the partitions whose first waiting record is older than any timestamp that is known.
    #[must_use]
    pub fn unknown_ages(&self) -> BTreeMap<PartitionId, Bounds> {
        let unknown = |(id, track): (&PartitionId, &Track)| {
            let bounds = track.bounds.filter(|bounds| bounds.lag() > 0)?;
            let known = track.times.at(bounds.next()).is_some() || is_behind_the_index(track, &bounds);
            let asked = track.asked.is_some_and(|(offset, _)| offset == bounds.next());
            (!known && !asked).then_some((*id, bounds))
        };
        self.tracks.iter().filter_map(unknown).collect()
    }

    /// The log began again.
    pub fn begin_again(&mut self) {
        *self = GroupProgress::default();
    }

    /// The partitions that the brokers told of.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.tracks.iter().filter(|(_, track)| track.bounds.is_some()).map(|(id, _)| *id)
    }

    /// Whether anything is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.total.last().is_some()
    }

    /// Whether the group has committed an offset.
    #[must_use]
    pub fn has_committed(&self) -> bool {
        self.tracks.values().any(|track| track.bounds.is_some_and(|bounds| bounds.committed.is_some()))
    }

    /// One partition as it is shown.
    #[must_use]
    pub fn show(&self, id: PartitionId, owned: bool) -> Option<Shown> {
        let track = self.tracks.get(&id)?;
        let bounds = track.bounds?;
        let looks = &track.looks;
        Some(Shown {
            committed: bounds.committed,
            start: bounds.start,
            end: bounds.end,
            lag: bounds.lag(),
            time_lag_ms: looks.last().map_or(0, |look| look.time_lag),
            arrivals: tenth(looks.arrivals()),
            processed: tenth(looks.processed()),
            trend: looks.trend(),
            eta: looks.eta().into(),
            verdict: looks.verdict(owned),
        })
    }

    /// How far another group is behind in time in the same topic; `None` if that isn't known. Only the group of the
    /// readers has the timestamps.
    #[must_use]
    pub fn time_lag_of(&self, other: &GroupProgress, now: Millis) -> Option<i64> {
        let mut oldest = 0;
        for id in other.partitions() {
            oldest = oldest.max(self.time_lag_in(other, id, now)?);
        }
        Some(oldest)
    }

    /// The same in one partition.
    #[must_use]
    pub fn time_lag_in(&self, other: &GroupProgress, id: PartitionId, now: Millis) -> Option<i64> {
        let bounds = other.tracks.get(&id)?.bounds?;
        if bounds.lag() == 0 {
            return Some(0);
        }
        let times = &self.tracks.get(&id)?.times;
        // Of what is older than any timestamp here, it is known to be that old.
        let older = times.first().filter(|(first, _)| bounds.next() < *first).map(|(_, at)| at);
        let at = times.at(bounds.next()).or(older)?;
        Some(now.since(at).max(0))
    }

    /// Records that a group commits a second in one partition, if it commits every few seconds.
    #[must_use]
    pub fn processed_slowly(&self, id: PartitionId) -> f64 {
        self.tracks.get(&id).map_or(0.0, |track| track.looks.processed_slowly())
    }

    /// What to think of another group that commits every few seconds, in the same topic: so short a standstill is none.
    #[must_use]
    pub fn verdict_of(&self, other: &GroupProgress, id: PartitionId, now: Millis) -> Verdict {
        match self.time_lag_in(other, id, now) {
            Some(behind) if behind > SLOW && other.processed_slowly(id) > 0.0 => Verdict::Behind,
            Some(behind) if behind > SLOW => Verdict::Stalled,
            _ => Verdict::Ok,
        }
    }

    /// All partitions together.
    #[must_use]
    pub fn total(&self) -> Total {
        let last = self.total.last();
        Total {
            lag: last.map_or(0, Look::lag),
            time_lag_ms: last.map_or(0, |look| look.time_lag),
            arrivals: tenth(self.total.arrivals()),
            processed: tenth(self.total.processed()),
            trend: self.total.trend(),
            eta: last_of(self.tracks.values().map(|track| track.looks.eta())).into(),
        }
    }
}

/// A group that commits every few seconds is slow when it is this far behind, in milliseconds.
const SLOW: i64 = 60_000;

/// How far back [`Bursts`] look, in milliseconds: two windows of a minute close in that time.
const BURSTS: i64 = 120_000;

/// Records that are written to a topic, or committed by a group, in bursts, by time.
#[derive(Debug, Default)]
pub struct Bursts(VecDeque<(Millis, i64)>);

impl Bursts {
    /// Notes how many records the topic has had; fewer than before: it was deleted and recreated.
    pub fn push(&mut self, at: Millis, records: i64) {
        if self.0.back().is_some_and(|(_, before)| records < *before) {
            self.0.clear();
        }
        self.0.push_back((at, records));
        while self.0.front().is_some_and(|(first, _)| at.since(*first) > BURSTS) {
            self.0.pop_front();
        }
    }

    /// Records a second over the last two minutes, or since the first look.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let (Some((first, before)), Some((last, after))) = (self.0.front(), self.0.back()) else {
            return 0.0;
        };
        let millis = last.since(*first);
        if millis <= 0 { 0.0 } else { (after - before) as f64 * 1000.0 / millis as f64 }
    }

    /// Whether there has been none for so long that a burst a minute would have been seen.
    #[must_use]
    pub fn stand(&self) -> bool {
        let (Some((first, before)), Some((last, after))) = (self.0.front(), self.0.back()) else {
            return false;
        };
        last.since(*first) >= BURSTS * 3 / 4 && before == after
    }
}

/// The age of the first waiting record; 0 if none waits.
fn time_lag(track: &Track, bounds: &Bounds, now: Millis) -> i64 {
    if bounds.lag() == 0 {
        return 0;
    }
    let next = bounds.next();
    if is_behind_the_index(track, bounds) {
        // It came after the last record that was read, and after the last look, if that didn't see it.
        let read = track.times.last().map(|(_, at)| at);
        let looked = track.looks.last().filter(|look| look.end <= next).map(|look| look.at);
        return read.max(looked).map_or(0, |at| now.since(at).max(0));
    }
    // Read a while ago: the first one that waits now is not older.
    let asked = track.asked.filter(|(offset, _)| *offset <= next).map(|(_, at)| at);
    let at = track.times.at(next).or(asked);
    at.map_or(0, |at| now.since(at).max(0))
}

/// Whether the first waiting record is newer than what the reader of the topic has seen: it has just arrived.
fn is_behind_the_index(track: &Track, bounds: &Bounds) -> bool {
    track.times.last().is_some_and(|(last, _)| bounds.next() > last)
}

/// Rounds to a tenth: more digits only make documents longer.
#[must_use]
pub fn tenth(number: f64) -> f64 {
    // No negative zero.
    (number * 10.0).round() / 10.0 + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: PartitionId = PartitionId(0);

    fn look(progress: &mut GroupProgress, second: i64, committed: i64, end: i64) {
        let bounds = Bounds { start: Offset(0), end: Offset(end), committed: Some(Offset(committed)) };
        progress.look(Millis(1_000_000 + second * 1000), &BTreeMap::from([(ID, bounds)]));
    }

    #[test]
    fn the_age_of_the_first_waiting_record_comes_from_the_records_that_were_read() {
        let mut progress = GroupProgress::default();
        for offset in 0..100 {
            progress.note_time(ID, Offset(offset), Millis(1_000_000 + offset * 100));
        }
        look(&mut progress, 10, 50, 100);
        assert_eq!(progress.show(ID, true).unwrap().time_lag_ms, 5000);
        look(&mut progress, 11, 100, 100);
        assert_eq!(progress.total().time_lag_ms, 0);
        look(&mut progress, 12, 100, 103);
        assert_eq!(progress.total().time_lag_ms, 1000, "it came since the last look, and isn't read yet");
        assert!(progress.unknown_ages().is_empty());
    }

    #[test]
    fn an_age_that_nobody_has_read_is_asked_for_once() {
        let mut progress = GroupProgress::default();
        progress.note_time(ID, Offset(90), Millis(999_000));
        look(&mut progress, 0, 10, 100);
        assert_eq!(progress.unknown_ages().keys().collect::<Vec<_>>(), [&ID]);
        progress.note_oldest(ID, Offset(10), Millis(900_000));
        assert!(progress.unknown_ages().is_empty());
        look(&mut progress, 1, 11, 100);
        assert_eq!(progress.show(ID, true).unwrap().time_lag_ms, 101_000, "about: one was processed since");
        assert_eq!(progress.unknown_ages().len(), 1);
    }

    #[test]
    fn a_group_is_the_sum_of_its_partitions_and_done_with_the_slowest() {
        let mut progress = GroupProgress::default();
        for second in 0..=10 {
            let bounds = |committed, end| Bounds {
                start: Offset(0),
                end: Offset(end),
                committed: Some(Offset(committed)),
            };
            let at = Millis(1_000_000 + second * 1000);
            let all =
                [(ID, bounds(100 * second, 100 * second)), (PartitionId(1), bounds(0, 500 + 100 * second))];
            progress.look(at, &all.into_iter().collect());
        }
        let total = progress.total();
        assert_eq!((total.lag, total.arrivals, total.processed), (1500, 200.0, 100.0));
        assert!(total.eta.eta_never, "partition 1 stands still");
    }

    #[test]
    fn another_group_is_as_far_behind_as_its_first_waiting_record_is_old() {
        let (mut readers, mut other) = (GroupProgress::default(), GroupProgress::default());
        for offset in 0..100 {
            readers.note_time(ID, Offset(offset), Millis(1_000_000 + offset * 100));
        }
        look(&mut other, 10, 40, 100);
        let now = Millis(1_010_000);
        assert_eq!(readers.time_lag_of(&other, now), Some(6000));
        look(&mut other, 11, 100, 100);
        assert_eq!(readers.time_lag_of(&other, now), Some(0));
        look(&mut other, 12, 100, 200);
        assert_eq!(readers.time_lag_of(&other, now), None, "nobody has read that yet");
    }

    #[test]
    fn a_group_that_commits_now_and_then_is_slow_after_a_minute() {
        let (mut readers, mut other) = (GroupProgress::default(), GroupProgress::default());
        for offset in 50..300 {
            readers.note_time(ID, Offset(offset), Millis(1_000_000 + offset * 1000));
        }
        let verdict =
            |other: &GroupProgress, now: i64| readers.verdict_of(other, ID, Millis(1_000_000 + now * 1000));
        for second in 295..=300 {
            look(&mut other, second, 290, 300);
        }
        assert_eq!(verdict(&other, 300), Verdict::Ok, "it commits every few seconds");
        assert_eq!(verdict(&other, 351), Verdict::Stalled);
        assert!((other.processed_slowly(ID) - 0.0).abs() < 1e-9);
        look(&mut other, 352, 291, 300);
        look(&mut other, 353, 292, 300);
        assert_eq!(verdict(&other, 353), Verdict::Behind);
        for second in 354..=400 {
            // Every five seconds, 50 at once.
            look(&mut other, second, 300 + second / 5 * 50, 100_000);
        }
        assert!((other.processed_slowly(ID) - 10.0).abs() < 1e-9, "{}", other.processed_slowly(ID));
        let mut old = GroupProgress::default();
        look(&mut old, 300, 3, 300);
        assert_eq!(readers.time_lag_of(&old, Millis(1_300_000)), Some(250_000), "at least");
        look(&mut old, 301, 300, 300);
        assert_eq!(verdict(&old, 301), Verdict::Ok);
    }

    #[test]
    fn bursts_have_a_rate_between_them() {
        let mut bursts = Bursts::default();
        let second = |second: i64| Millis(1_000_000 + second * 1000);
        assert!(bursts.rate().abs() < 1e-9);
        // 240 aggregates at the end of each minute.
        for now in (0..=600).step_by(2) {
            bursts.push(second(now), 240 * (now / 60));
            if now >= 120 {
                assert!((bursts.rate() - 4.0).abs() < 1e-9, "{now}: {}", bursts.rate());
            }
        }
        bursts.push(second(602), 10);
        assert!(bursts.rate().abs() < 1e-9, "another topic under the name");
    }

    #[test]
    fn an_eta_is_now_later_or_never() {
        let json = |eta: Eta| serde_json::to_string(&ShownEta::from(eta)).unwrap();
        assert_eq!(json(Eta::Now), r#"{"eta_seconds":0.0,"eta_never":false}"#);
        assert_eq!(json(Eta::Seconds(12.54)), r#"{"eta_seconds":12.5,"eta_never":false}"#);
        assert_eq!(json(Eta::Never), r#"{"eta_seconds":null,"eta_never":true}"#);
    }
}
