//! A worker stopped at the worst moment: after it has received a revocation and before it has answered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::faults::World;
use crate::reaper::pause;
use crate::schedule::Fault;
use crate::workers::Job;

/// How long a join may take to reach another worker.
const REBALANCE: Duration = Duration::from_secs(10);
/// How long a new worker takes to join, at least. By then the slow drain must have started its work.
const JOIN: Duration = Duration::from_millis(700);
/// A bit less than the work of the slow drain.
const DRAG_EVERY: Duration = Duration::from_millis(2500);

/// The worker that was stopped.
struct Caught {
    number: usize,
    /// Readings in progress.
    in_flight: u64,
    /// Time since the new worker's join.
    after: Duration,
}

/// Lets another worker join, and stops one that has to give partitions back for it, while it drains, for longer than
/// its session. In each partition work is in progress that takes some seconds, and so does the drain. Aggregates have
/// no such work: there the drain is one commit, and the stop may come just before or after its end.
pub fn stop_while_revoking(world: &mut World, fault: &Fault) -> String {
    world.workers.wait_until_quiet();
    let job = world.any_job(fault);
    let mut before = world.workers.rebalances();
    before.retain(|number, _| world.workers.job(*number) == job);
    let mut caught = None;
    // A static member that takes the name of one that has just left moves nothing: then start another.
    for _ in 0..2 {
        if caught.is_none() {
            world.workers.start(job);
            caught = stop_at_revocation(world, job, &before);
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
    while world.workers.len(job) > *job.workers().end() {
        let newest = world.workers.newest(job);
        world.workers.stop(newest);
    }
    told
}

fn stop_at_revocation(world: &mut World, job: Job, before: &BTreeMap<usize, u64>) -> Option<Caught> {
    let begun = Instant::now();
    let mut dragged: Option<Instant> = None;
    while begun.elapsed() < REBALANCE {
        if job == Job::Alarms && begun.elapsed() > JOIN && dragged.is_none_or(|at| at.elapsed() > DRAG_EVERY)
        {
            world.feed.report_drags();
            dragged = Some(Instant::now());
        }
        for (number, before) in before {
            let Some((rebalances, in_flight)) = world.workers.rebalances_and_in_flight(*number) else {
                continue;
            };
            // A worker from before whose rebalance count changed has lost partitions.
            if rebalances > *before && (in_flight > 0 || job == Job::Aggregates) {
                world.workers.pause(*number);
                return Some(Caught { number: *number, in_flight, after: begun.elapsed() });
            }
        }
        pause(Duration::from_millis(5));
    }
    None
}
