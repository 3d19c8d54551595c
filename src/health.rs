//! Whether the worker, or a sink, lives and is ready, as probes ask. Written by its threads, read by HTTP.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A poll loop that hasn't moved for this long is taken for dead.
const STALE: Duration = Duration::from_secs(15);

/// The health of a worker or a sink.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// Milliseconds from `started` to the last turn of the loop.
    last_turn: AtomicU64,
    joined: AtomicBool,
    restoring: AtomicBool,
    draining: AtomicBool,
    blocked: AtomicBool,
    database_away: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            started: Instant::now(),
            last_turn: AtomicU64::new(0),
            joined: AtomicBool::new(false),
            restoring: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            database_away: AtomicBool::new(false),
        }
    }
}

impl Health {
    /// The poll loop has made a turn.
    pub fn turned(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_turn.store(millis, Ordering::Relaxed);
    }

    /// The group has given an assignment, if only an empty one; or taken it all back.
    pub fn set_joined(&self, joined: bool) {
        self.joined.store(joined, Ordering::Relaxed);
    }

    /// Some partition waits for its state.
    pub fn set_restoring(&self, restoring: bool) {
        self.restoring.store(restoring, Ordering::Relaxed);
    }

    /// The worker is on its way out.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Commits don't succeed at the moment.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// The database that a sink writes to takes nothing at the moment.
    pub fn set_database_away(&self, away: bool) {
        self.database_away.store(away, Ordering::Relaxed);
    }

    /// Whether the poll loop moves; else what is wrong.
    ///
    /// # Errors
    /// With the reason in words.
    pub fn live(&self) -> Result<(), String> {
        let last = Duration::from_millis(self.last_turn.load(Ordering::Relaxed));
        match self.started.elapsed().saturating_sub(last) {
            still if still > STALE => Err(format!("the poll loop has not moved for {} s", still.as_secs())),
            _ => Ok(()),
        }
    }

    /// Whether readings are being worked; else what is in the way.
    ///
    /// # Errors
    /// With the reason in words.
    pub fn ready(&self) -> Result<(), String> {
        let reasons = [
            (self.draining.load(Ordering::Relaxed), "draining"),
            (!self.joined.load(Ordering::Relaxed), "not joined the group yet"),
            (self.restoring.load(Ordering::Relaxed), "restoring alarm states"),
            (self.blocked.load(Ordering::Relaxed), "commits wait for the cluster"),
            (self.database_away.load(Ordering::Relaxed), "writes wait for the database"),
        ];
        match reasons.iter().find(|(holds, _)| *holds) {
            Some((_, reason)) => Err((*reason).to_owned()),
            None => self.live(),
        }
    }
}
