//! What follows a fault: all processing resumes. And calm stretches, in which nothing fails.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::delays::Stretch;
use crate::faults::World;
use crate::fleet::{self, SLOW_PARTITION, SLOW_WORK};
use crate::reaper::pause;

/// This long after any fault, everything works again.
const DEADLINE: Duration = Duration::from_secs(90);
/// The slow generator may have several readings to process first; each of them is progress.
const SLOW_BACKLOG: Duration = Duration::from_secs(300);
/// Before the slow generator reports: how long alerts take anyway.
const BEFORE: Duration = Duration::from_secs(3);
/// After it has reported.
const AFTER: Duration = SLOW_WORK.saturating_add(Duration::from_secs(2));
/// How often a calm stretch is restarted because the group was still moving partitions.
const TRIES: usize = 5;

/// Waits until both groups have committed everything produced by now, except the slow generator's partition, whose
/// offset waits for it; and until each worker is ready, so that members thrown out of the group have rejoined. Returns
/// when the former was so.
pub fn recover(world: &mut World) -> Instant {
    let mut ends = world.monitor.ends();
    ends.remove(&SLOW_PARTITION);
    let deadline = Instant::now() + DEADLINE;
    let committed = wait_until_committed(world, &ends, DEADLINE);
    loop {
        world.workers.replace_ended();
        let unready = world.workers.unready();
        if unready.is_empty() {
            return committed;
        }
        if Instant::now() >= deadline {
            world.workers.examine();
            panic!(
                "{} s after the fault workers are still not ready: {}",
                DEADLINE.as_secs(),
                unready.join(", ")
            );
        }
        pause(Duration::from_millis(100));
    }
}

/// Waits until both groups have committed everything, including the slow generator's partition.
pub fn drain(world: &mut World) {
    let ends = world.monitor.ends();
    wait_until_committed(world, &ends, SLOW_BACKLOG);
}

fn wait_until_committed(world: &mut World, ends: &BTreeMap<i32, i64>, patience: Duration) -> Instant {
    let begun = Instant::now();
    loop {
        world.workers.replace_ended();
        let (mut behind, mut stands) = (Vec::new(), None);
        for (group, monitor) in [("alarms", &world.monitor), ("aggregates", &world.aggregates)] {
            monitor.check();
            let partitions = monitor.behind(ends);
            if !partitions.is_empty() {
                behind.push((group, partitions));
                stands = stands.or(monitor.standing().into_iter().find(|(_, time)| *time > DEADLINE));
            }
        }
        if behind.is_empty() {
            return Instant::now();
        }
        if begun.elapsed() >= patience || stands.is_some() {
            world.workers.examine();
            panic!(
                "{} s after the fault partitions are still behind, by these records: {behind:?}{}",
                begun.elapsed().as_secs(),
                stands.map_or(String::new(), |(id, time)| format!(
                    "; partition {id} has stood still for {} s",
                    time.as_secs()
                ))
            );
        }
        pause(Duration::from_millis(50));
    }
}

/// Waits until every generator has a visible alert that was called for since then: a killed worker may have left a
/// transaction open, which hides the alerts of all others in its partitions until it has timed out.
fn wait_until_visible(world: &World, since: Duration) {
    let deadline = Instant::now() + DEADLINE;
    let delivered = &world.feed.delivered;
    loop {
        let last = world.observer.last();
        let is_old = |place| delivered.produced_at(place).is_none_or(|produced| produced < since);
        let hidden: Vec<&String> = last
            .iter()
            .filter(|(generator, place)| !fleet::is_slow(generator) && is_old(**place))
            .map(|(generator, _)| generator)
            .collect();
        if hidden.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} s after all was committed no alert is visible of {hidden:?}",
            DEADLINE.as_secs()
        );
        pause(Duration::from_millis(100));
    }
}

/// A stretch in which nothing fails, no partition moves, and the slow generator's work goes on; `None` if the group
/// doesn't come to rest.
pub fn calm(world: &mut World, begun: Instant) -> Option<Stretch> {
    recover(world);
    for _ in 0..TRIES {
        drain(world);
        wait_until_visible(world, begun.elapsed());
        let before = world.workers.wait_until_quiet();
        let start = begun.elapsed();
        pause(BEFORE);
        world.feed.report_slow();
        pause(AFTER);
        if world.workers.rebalances() == before {
            return Some(start..begun.elapsed());
        }
    }
    None
}
