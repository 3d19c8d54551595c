//! Liveness and readiness of a service, for probes. Written by its own threads, read by HTTP.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a start may take until the loop's first turn: a broker may have died just before.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// A loop without a heartbeat for this long counts as dead.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);
/// The reason before a service has registered its conditions.
const STARTING: &str = "starting";

/// The health of a process.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// Milliseconds from `started` to the last heartbeat.
    last_heartbeat: AtomicU64,
    /// Reasons not to be ready, in the order of registration.
    conditions: Mutex<Vec<Arc<Flag>>>,
}

/// One reason not to be ready.
#[derive(Clone, Debug)]
pub struct NotReady(Arc<Flag>);

#[derive(Debug)]
struct Flag {
    reason: &'static str,
    holds: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        let (last_heartbeat, conditions) = (AtomicU64::new(0), Mutex::default());
        Health { started: Instant::now(), last_heartbeat, conditions }
    }
}

impl Health {
    /// Registers a reason not to be ready, and whether it holds now. If several hold, `/readyz` names the one
    /// registered first: a service registers the most telling first.
    #[must_use]
    pub fn register(&self, reason: &'static str, holds: bool) -> NotReady {
        let flag = Arc::new(Flag { reason, holds: AtomicBool::new(holds) });
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&flag));
        NotReady(flag)
    }

    /// Notes a turn of the service's loop.
    pub fn heartbeat(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_heartbeat.store(millis.max(1), Ordering::Relaxed);
    }

    /// Whether the loop moves.
    ///
    /// # Errors
    /// With the reason.
    pub fn live(&self) -> Result<(), String> {
        self.live_after(self.started.elapsed())
    }

    fn live_after(&self, elapsed: Duration) -> Result<(), String> {
        let last = Duration::from_millis(self.last_heartbeat.load(Ordering::Relaxed));
        let timeout = if last.is_zero() { START_TIMEOUT } else { HEARTBEAT_TIMEOUT };
        match elapsed.saturating_sub(last) {
            still if still > timeout => Err(format!("the poll loop has not moved for {} s", still.as_secs())),
            _ => Ok(()),
        }
    }

    /// Whether the service does its work.
    ///
    /// # Errors
    /// With the reason.
    pub fn ready(&self) -> Result<(), String> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        if conditions.is_empty() {
            return Err(STARTING.to_owned());
        }
        match conditions.iter().find(|flag| flag.holds.load(Ordering::Relaxed)) {
            Some(flag) => Err(flag.reason.to_owned()),
            None => self.live(),
        }
    }
}

impl NotReady {
    /// Sets whether this reason holds.
    pub fn set(&self, holds: bool) {
        self.0.holds.store(holds, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_may_take_its_time_and_a_turn_may_not() {
        let health = Health::default();
        assert_eq!(health.live_after(Duration::from_secs(70)), Ok(()));
        assert!(health.live_after(Duration::from_secs(130)).is_err());
        health.heartbeat();
        assert_eq!(health.live_after(Duration::from_secs(10)), Ok(()));
        assert!(health.live_after(Duration::from_secs(20)).is_err());
    }

    #[test]
    fn a_service_is_ready_when_nothing_that_it_registered_is_in_the_way() {
        let health = Health::default();
        assert_eq!(health.ready(), Err("starting".to_owned()));
        let draining = health.register("draining", false);
        let joining = health.register("not joined the group yet", true);
        assert_eq!(health.ready(), Err("not joined the group yet".to_owned()));
        draining.set(true);
        assert_eq!(health.ready(), Err("draining".to_owned()), "the first says most");
        draining.set(false);
        joining.set(false);
        health.heartbeat();
        assert_eq!(health.ready(), Ok(()));
    }
}
