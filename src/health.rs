//! Whether a worker, a bridge or a sink lives and is ready, as probes ask. Written by its own thread, read by HTTP.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Until the poll loop has begun to turn a start may take so long: a broker may have died just before.
const START: Duration = Duration::from_secs(120);
/// A poll loop that hasn't moved for this long is taken for dead.
const STALE: Duration = Duration::from_secs(15);

/// What is in the way of being ready. The one that says most comes first: a process has several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It is on its way out.
    Draining,
    /// The group has given no assignment, or taken it all back.
    NotJoined,
    /// The MQTT broker isn't there.
    NotConnected,
    /// Some partition waits for its state.
    Restoring,
    /// Some partition can't be worked.
    Refused,
    /// A topic was deleted.
    TopicMissing,
    /// The leader of some partition doesn't answer.
    LeaderAway,
    /// Commits don't succeed at the moment.
    CommitsWait,
    /// Kafka takes no records at the moment.
    KafkaAway,
    /// The database takes no points at the moment.
    DatabaseAway,
    /// No broker of Kafka answers.
    BrokersAway,
}

impl Obstacle {
    const ALL: [Obstacle; 11] = [
        Obstacle::Draining,
        Obstacle::NotJoined,
        Obstacle::NotConnected,
        Obstacle::TopicMissing,
        Obstacle::Refused,
        Obstacle::Restoring,
        Obstacle::LeaderAway,
        Obstacle::CommitsWait,
        Obstacle::KafkaAway,
        Obstacle::DatabaseAway,
        Obstacle::BrokersAway,
    ];

    fn in_words(self) -> &'static str {
        match self {
            Obstacle::Draining => "draining",
            Obstacle::NotJoined => "not joined the group yet",
            Obstacle::NotConnected => "not connected to the MQTT broker",
            Obstacle::Restoring => "restoring alarm states",
            Obstacle::Refused => "a partition can't be worked: see the log",
            Obstacle::TopicMissing => "a topic does not exist any more: see the log",
            Obstacle::LeaderAway => "the leader of a partition doesn't answer: see the log",
            Obstacle::CommitsWait => "commits wait for the cluster",
            Obstacle::KafkaAway => "Kafka takes no records",
            Obstacle::DatabaseAway => "writes wait for the database",
            Obstacle::BrokersAway => "no broker of Kafka answers",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// The health of a process.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// Milliseconds from `started` to the last turn of the loop.
    last_turn: AtomicU64,
    /// A bit for each obstacle.
    obstacles: AtomicU16,
}

impl Health {
    /// Of a process that begins with this in its way.
    #[must_use]
    pub fn new(first: Obstacle) -> Health {
        Health {
            started: Instant::now(),
            last_turn: AtomicU64::new(0),
            obstacles: AtomicU16::new(first.bit()),
        }
    }

    /// The poll loop has made a turn.
    pub fn turned(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_turn.store(millis.max(1), Ordering::Relaxed);
    }

    /// This is in the way, or isn't any more.
    pub fn set(&self, obstacle: Obstacle, there: bool) {
        if there {
            self.obstacles.fetch_or(obstacle.bit(), Ordering::Relaxed);
        } else {
            self.obstacles.fetch_and(!obstacle.bit(), Ordering::Relaxed);
        }
    }

    /// Whether the poll loop moves; else what is wrong.
    ///
    /// # Errors
    /// With the reason in words.
    pub fn live(&self) -> Result<(), String> {
        self.live_after(self.started.elapsed())
    }

    fn live_after(&self, elapsed: Duration) -> Result<(), String> {
        let last = Duration::from_millis(self.last_turn.load(Ordering::Relaxed));
        let patience = if last.is_zero() { START } else { STALE };
        match elapsed.saturating_sub(last) {
            still if still > patience => {
                Err(format!("the poll loop has not moved for {} s", still.as_secs()))
            }
            _ => Ok(()),
        }
    }

    /// Whether readings are being worked; else what is in the way.
    ///
    /// # Errors
    /// With the reason in words.
    pub fn ready(&self) -> Result<(), String> {
        let there = self.obstacles.load(Ordering::Relaxed);
        match Obstacle::ALL.into_iter().find(|obstacle| there & obstacle.bit() != 0) {
            Some(obstacle) => Err(obstacle.in_words().to_owned()),
            None => self.live(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_starts_may_take_its_time_and_who_turns_may_not() {
        let health = Health::new(Obstacle::NotJoined);
        assert_eq!(health.live_after(Duration::from_secs(70)), Ok(()));
        assert!(health.live_after(Duration::from_secs(130)).is_err());
        health.turned();
        assert_eq!(health.live_after(Duration::from_secs(10)), Ok(()));
        assert!(health.live_after(Duration::from_secs(20)).is_err());
    }

    #[test]
    fn ready_is_who_has_nothing_in_the_way() {
        let health = Health::new(Obstacle::NotJoined);
        assert_eq!(health.ready(), Err("not joined the group yet".to_owned()));
        health.set(Obstacle::Restoring, true);
        health.set(Obstacle::NotJoined, false);
        assert_eq!(health.ready(), Err("restoring alarm states".to_owned()));
        health.set(Obstacle::Draining, true);
        assert_eq!(health.ready(), Err("draining".to_owned()), "which is why all else is as it is");
        health.set(Obstacle::Draining, false);
        health.set(Obstacle::Restoring, false);
        health.turned();
        assert_eq!(health.ready(), Ok(()));
    }
}
