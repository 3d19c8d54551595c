//! When each held partition entered its phase, and when partitions were given up.

use std::collections::{BTreeMap, VecDeque};

use super::{Held, HeldPhase, Released};
use crate::ranges;
use crate::types::{Millis, Offset, PartitionId, TopicPartition};

/// How long the times of a hand-over are mentioned, in milliseconds: a reader that misses some reports still learns them.
const MENTIONED: i64 = 60_000;

/// A partition that is held now, as its holder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The partition; topic 0 is the main one.
    pub place: TopicPartition,
    /// What happens to it.
    pub phase: HeldPhase,
    /// The committed offset.
    pub position: Option<Offset>,
}

/// The partitions of a worker, with times.
#[derive(Clone, Debug, Default)]
pub struct PhaseLog {
    held: BTreeMap<TopicPartition, Entry>,
    released: VecDeque<(TopicPartition, Millis)>,
}

#[derive(Clone, Debug)]
struct Entry {
    phase: HeldPhase,
    position: Option<Offset>,
    since: Millis,
    /// When it came, if it had to be restored.
    assigned: Option<Millis>,
}

impl PhaseLog {
    /// Follows to what is held now.
    pub fn follow(&mut self, now: Millis, holdings: impl IntoIterator<Item = Holding>) {
        let mut former = std::mem::take(&mut self.held);
        for Holding { place, phase, position } in holdings {
            let entry = match former.remove(&place) {
                Some(entry) if entry.phase == phase => {
                    let is_news = now.since(entry.since) <= MENTIONED;
                    Entry { position, assigned: entry.assigned.filter(|_| is_news), ..entry }
                }
                Some(entry) => {
                    let assigned = match (entry.phase, phase) {
                        (HeldPhase::Restoring, HeldPhase::Active) => Some(entry.since),
                        _ => entry.assigned,
                    };
                    Entry { phase, position, since: now, assigned }
                }
                None => Entry { phase, position, since: now, assigned: None },
            };
            self.held.insert(place, entry);
        }
        self.released.extend(former.into_keys().map(|place| (place, now)));
        while self.released.front().is_some_and(|(_, at)| now.since(*at) > MENTIONED) {
            self.released.pop_front();
        }
    }

    /// Returns what is held; `topics` names the topics by number.
    #[must_use]
    pub fn held(&self, topics: &[String]) -> Vec<Held> {
        let held = |(place, entry): (&TopicPartition, &Entry)| Held {
            topic: other_topic(*place, topics),
            partition: place.partition,
            phase: entry.phase,
            position: entry.position,
            since: entry.since,
            assigned: entry.assigned,
        };
        self.held.iter().map(held).collect()
    }

    /// Returns what was given up in the last minute and isn't held again, oldest first.
    #[must_use]
    pub fn released(&self, topics: &[String]) -> Vec<Released> {
        let gone = self.released.iter().filter(|(place, _)| !self.held.contains_key(place));
        gone.map(|(place, at)| Released {
            topic: other_topic(*place, topics),
            partition: place.partition,
            at: *at,
        })
        .collect()
    }

    /// Returns the held partitions of the main topic as ranges: `0-3,7`.
    #[must_use]
    pub fn ranges(&self) -> String {
        let of_main: Vec<PartitionId> =
            self.held.keys().filter(|place| place.topic == 0).map(|place| place.partition).collect();
        ranges::compact(&of_main)
    }
}

/// The main topic needs no name.
fn other_topic(place: TopicPartition, topics: &[String]) -> Option<String> {
    if place.topic == 0 { None } else { topics.get(place.topic).cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(partition: i32, phase: HeldPhase) -> Holding {
        let place = TopicPartition { topic: 0, partition: PartitionId(partition) };
        Holding { place, phase, position: None }
    }

    #[test]
    fn a_hand_over_has_its_times() {
        let (mut log, topics) = (PhaseLog::default(), vec!["t".to_owned()]);
        log.follow(Millis(100), [holding(3, HeldPhase::Restoring)]);
        log.follow(Millis(200), [holding(3, HeldPhase::Restoring)]);
        log.follow(Millis(900), [holding(3, HeldPhase::Active)]);
        log.follow(Millis(5000), [holding(3, HeldPhase::Active)]);
        let held = log.held(&topics);
        assert_eq!((held[0].since, held[0].assigned), (Millis(900), Some(Millis(100))));
        log.follow(Millis(65_000), [holding(3, HeldPhase::Active)]);
        assert_eq!(log.held(&topics)[0].assigned, None, "old news");
        log.follow(Millis(66_000), [holding(3, HeldPhase::Draining)]);
        log.follow(Millis(66_300), []);
        assert_eq!(
            log.released(&topics),
            [Released { topic: None, partition: PartitionId(3), at: Millis(66_300) }]
        );
        log.follow(Millis(67_000), [holding(3, HeldPhase::Restoring)]);
        assert_eq!(log.released(&topics), [], "it is held again");
        log.follow(Millis(100_000), []);
        log.follow(Millis(161_000), []);
        assert_eq!(log.released(&topics), [], "a minute is over");
    }

    #[test]
    fn ranges_are_of_the_main_topic() {
        let mut log = PhaseLog::default();
        let other = TopicPartition { topic: 1, partition: PartitionId(9) };
        let own = [0, 1, 2, 5].map(|id| holding(id, HeldPhase::Active));
        let other = Holding { place: other, phase: HeldPhase::Active, position: None };
        log.follow(Millis(1), own.into_iter().chain([other]));
        assert_eq!(log.ranges(), "0-2,5");
        let topics = ["t".to_owned(), "t_alerts".to_owned()];
        assert_eq!(log.held(&topics)[4].topic.as_deref(), Some("t_alerts"));
    }
}
