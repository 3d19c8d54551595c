//! The bounds on the rate of the whole group, and which one binds.

use serde::{Deserialize, Serialize};

use super::deal::Deals;
use super::model::Model;

/// A fullest worker with up to this multiple of its fair share is as good as can be had.
const FAIR: f64 = 1.15;

/// With as many workers as partitions, a fullest partition of up to this multiple of the mean is chance.
const CHANCE: f64 = 1.5;

/// The part of the fullest worker's share from which on a single partition explains it.
const EXPLAINS: f64 = 0.75;

/// On a full machine everything takes longer, so other bounds look as low as the CPU's, up to this multiple.
const BLURRED: f64 = 1.25;

/// What bounds the rate of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The work: all lanes are busy, or the rate limit is reached.
    Handler,
    /// The CPU.
    Cpu,
    /// A worker's loop, which takes readings in one after the other.
    Serial,
    /// One partition has so large a share that the one worker that can hold it can't do more.
    FullestPartition,
    /// One generator sends so large a share that its readings, one after the other, take all the time.
    HotGenerator,
    /// There is a worker for each partition.
    PartitionsExhausted,
    /// Some workers hold a partition more than others.
    Uneven,
    /// The broker, or the way to it: workers wait for readings that are there.
    Broker,
    /// What is produced: workers wait for commits.
    Produce,
    /// Nothing: less arrives than can be processed.
    None,
}

impl Limit {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Handler => "handler",
            Limit::Cpu => "cpu",
            Limit::Serial => "serial",
            Limit::FullestPartition => "fullest_partition",
            Limit::HotGenerator => "hot_generator",
            Limit::PartitionsExhausted => "partitions_exhausted",
            Limit::Uneven => "uneven",
            Limit::Broker => "broker",
            Limit::Produce => "produce",
            Limit::None => "none",
        }
    }
}

/// A limit and the rate of the group that it allows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Which.
    pub limit: Limit,
    /// Readings a second.
    pub capacity: f64,
}

/// What each limit by itself allows the group as it is, the least first.
pub(super) fn all(model: &Model) -> Vec<Bound> {
    let workers = model.workers;
    let each = model.of_worker();
    let partitions = model.deals.partitions();
    let (_, fullest) = model.deals.fullest_partition();
    let is_uneven = model.fullest_worker * workers as f64 > 1.01 && workers < partitions;
    let bounds = [
        (Limit::Handler, model.handler * workers as f64),
        (Limit::Serial, model.serial * workers as f64),
        (Limit::Cpu, model.by_cpu(workers)),
        (Limit::FullestPartition, each / fullest),
        (Limit::HotGenerator, model.by_hottest()),
        (Limit::PartitionsExhausted, each * partitions as f64),
        (Limit::Uneven, if is_uneven { each / model.fullest_worker } else { f64::INFINITY }),
    ];
    let external = model.external.map(|limit| (limit, model.rate));
    let known = bounds.into_iter().chain(external).filter(|(_, capacity)| capacity.is_finite());
    let mut bounds: Vec<Bound> = known.map(|(limit, capacity)| Bound { limit, capacity }).collect();
    bounds.sort_by(|one, other| one.capacity.total_cmp(&other.capacity));
    bounds
}

/// Workers, and the partitions that are dealt out among them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dealt<'d> {
    workers: usize,
    deals: &'d Deals,
    /// The share of the worker that has most.
    fullest_worker: f64,
}

impl<'d> Dealt<'d> {
    /// The group's partitions among so many workers; the present ones hold what they hold.
    pub(super) fn among(workers: usize, model: &'d Model) -> Dealt<'d> {
        let Model { deals, fullest_worker, .. } = model;
        if workers == model.workers {
            Dealt { workers, deals, fullest_worker: *fullest_worker }
        } else {
            Dealt::of(workers, deals)
        }
    }

    /// Any partitions, dealt out anew.
    pub(super) fn of(workers: usize, deals: &'d Deals) -> Dealt<'d> {
        Dealt { workers, deals, fullest_worker: deals.fullest_worker(workers) }
    }
}

/// The bound that binds; `lifted` doesn't count.
pub(super) fn binding(model: &Model, dealt: Dealt<'_>, lifted: Option<Limit>) -> Bound {
    let mut least = by_workers(model, dealt, lifted);
    let others =
        [Some((Limit::HotGenerator, model.by_hottest())), model.external.map(|limit| (limit, model.rate))];
    for (limit, capacity) in others.into_iter().flatten() {
        if lifted != Some(limit) && capacity < least.capacity {
            least = Bound { limit, capacity };
        }
    }
    let cpu = model.by_cpu(dealt.workers);
    let is_blurred = model.is_full && cpu < BLURRED * least.capacity;
    if lifted != Some(Limit::Cpu) && (cpu < least.capacity || is_blurred) {
        least = Bound { limit: Limit::Cpu, capacity: cpu.min(least.capacity) };
    }
    least
}

/// What the workers themselves allow: each what its loop and its lanes can do, of the share that it has.
fn by_workers(model: &Model, dealt: Dealt<'_>, lifted: Option<Limit>) -> Bound {
    let Dealt { workers, deals, fullest_worker } = dealt;
    let handler = if lifted == Some(Limit::Handler) { f64::INFINITY } else { model.handler };
    let serial = if lifted == Some(Limit::Serial) { f64::INFINITY } else { model.serial };
    let (resource, each) =
        if handler <= serial { (Limit::Handler, handler) } else { (Limit::Serial, serial) };
    let partitions = deals.partitions();
    let is_level = lifted == Some(Limit::FullestPartition);
    let fullest = if is_level { 1.0 / partitions as f64 } else { deals.fullest_partition().1 };
    let is_exhausted = workers >= partitions;
    let share = match lifted {
        Some(Limit::FullestPartition) => most_of(partitions, workers),
        Some(Limit::Uneven) => fullest.max(1.0 / workers as f64),
        // Twice as many.
        Some(Limit::PartitionsExhausted) if is_exhausted => fullest.min(1.0 / workers as f64),
        _ => fullest_worker,
    };
    let capacity = each / share;
    let limit = if is_exhausted && lifted != Some(Limit::PartitionsExhausted) {
        let is_chance = fullest * partitions as f64 <= CHANCE;
        if is_chance { Limit::PartitionsExhausted } else { Limit::FullestPartition }
    } else if share * workers as f64 <= FAIR {
        resource
    } else if fullest >= EXPLAINS * share {
        Limit::FullestPartition
    } else if most_of(partitions, workers) * workers as f64 > FAIR {
        Limit::Uneven
    } else {
        resource
    };
    Bound { limit, capacity }
}

/// The share of a worker that holds as many of these equal partitions as any other.
fn most_of(partitions: usize, workers: usize) -> f64 {
    partitions.div_ceil(workers.max(1)) as f64 / partitions as f64
}
