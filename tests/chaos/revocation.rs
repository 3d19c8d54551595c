//! A worker stopped at the worst moment: a revocation has been handed to it, and it hasn't answered yet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::faults::{WORKERS, World};
use crate::reaper::pause;
use crate::schedule::Fault;

/// How long a join may take to reach another worker.
const REBALANCE: Duration = Duration::from_secs(10);
/// How long a new worker takes to join, at least. What drains slowly is to be in work by then.
const JOIN: Duration = Duration::from_millis(700);
/// A bit less than the work of what drains slowly.
const DRAG_EVERY: Duration = Duration::from_millis(2500);

/// The worker that was stopped.
struct Caught {
    number: usize,
    /// Readings that were being worked.
    in_flight: u64,
    /// From the join of the new worker.
    after: Duration,
}

/// Lets another worker join, and stops one that has to give partitions back for it, while it drains, beyond its session. In
/// each partition work goes on that takes some seconds, so the drain does.
pub fn stop_while_revoking(world: &mut World, fault: &Fault) -> String {
    world.workers.wait_until_quiet();
    let before = world.workers.rebalances();
    let mut caught = None;
    // A static member that takes the name of one that has just left moves nothing: then there's another.
    for _ in 0..2 {
        if caught.is_none() {
            world.workers.start();
            caught = stop_at_revocation(world, &before);
        }
    }
    world.revocations.tried += 1;
    let told = match caught {
        None => "no worker had anything to give back".to_owned(),
        Some(Caught { number, in_flight, after }) => {
            world.revocations.met += 1;
            let time = fault.between(7.5, 12.0);
            pause(time);
            world.workers.resume(number);
            let name = world.workers.describe(number);
            format!("{name} for {time:.1?}, {after:.1?} after the join, {in_flight} readings in work")
        }
    };
    while world.workers.len() > *WORKERS.end() {
        let newest = world.workers.newest();
        world.workers.stop(newest);
    }
    told
}

fn stop_at_revocation(world: &mut World, before: &BTreeMap<usize, u64>) -> Option<Caught> {
    let begun = Instant::now();
    let mut dragged: Option<Instant> = None;
    while begun.elapsed() < REBALANCE {
        if begun.elapsed() > JOIN && dragged.is_none_or(|at| at.elapsed() > DRAG_EVERY) {
            world.feed.report_drags();
            dragged = Some(Instant::now());
        }
        for (number, before) in before {
            let Some((rebalances, in_flight)) = world.workers.rebalances_and_in_flight(*number) else {
                continue;
            };
            // Who was there before and has heard something of the group has had something taken away.
            if rebalances > *before && in_flight > 0 {
                world.workers.pause(*number);
                return Some(Caught { number: *number, in_flight, after: begun.elapsed() });
            }
        }
        pause(Duration::from_millis(5));
    }
    None
}
