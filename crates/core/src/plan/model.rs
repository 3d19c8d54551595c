//! Rates and costs, made of what was measured.
//!
//! A worker's true rate is what it processes divided by the share of time in which it is busy (V. Kalavri et al.,
//! "Three steps is all you need: fast, accurate, automatic scaling decisions for distributed streaming dataflows",
//! OSDI 2018). Here it is taken of all workers together, so that an idle one doesn't distort it.

use super::PlanError;
use super::deal::{self, Deals};
use super::limits::Limit;
use super::measurements::{HotGenerator, Measurements, WorkerLoad};

/// A worker that is less busy than this says little about its true rate.
const LEAST_BUSY: f64 = 0.02;

/// A machine with less than this part of its cores idle is full.
const LEAST_IDLE: f64 = 0.08;

/// A worker that waits for others is busy for less than this share of time.
const WAITS: f64 = 0.5;

/// A lag of more seconds than this isn't what is under way.
const WAITING_LAG: f64 = 2.0;

/// What bounds the group. Rates are readings a second; infinite where nothing bounds.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) workers: usize,
    /// Processed.
    pub(super) rate: f64,
    /// Produced.
    pub(super) arrival: f64,
    /// Readings that wait.
    pub(super) lag: f64,
    /// The partitions, with their shares of the readings.
    pub(super) deals: Deals,
    /// The share of the worker that has most, as partitions are held now.
    pub(super) fullest_worker: f64,
    /// What the lanes, or the rate limit, of one worker allow.
    pub(super) handler: f64,
    /// What the loop of one worker allows.
    pub(super) serial: f64,
    /// CPU seconds a reading.
    pub(super) cpu: f64,
    /// Cores that all workers together have.
    pub(super) cores: f64,
    /// On how many machines.
    pub(super) machines: usize,
    /// All these cores are busy.
    pub(super) is_full: bool,
    /// Wall time of a reading's work, in seconds.
    pub(super) work: f64,
    /// Lanes of a worker.
    pub(super) lanes: usize,
    pub(super) hottest: Option<HotGenerator>,
    /// A limit outside of the workers, seen by its effect: they wait.
    pub(super) external: Option<Limit>,
    /// `(workers, rate)` of other sizes.
    pub(super) attained: Vec<(usize, f64)>,
}

impl Model {
    pub(super) fn of(measurements: &Measurements) -> Result<Model, PlanError> {
        let Measurements { partitions, workers, hottest, attained, .. } = measurements;
        if workers.is_empty() {
            return Err(PlanError::NoWorkers);
        }
        if partitions.is_empty() {
            return Err(PlanError::NoPartitions);
        }
        let sum = |value: fn(&WorkerLoad) -> f64| -> f64 { workers.iter().map(value).sum() };
        let rate = sum(|worker| worker.rate);
        if rate <= 0.0 {
            let throttled = sum(|worker| worker.fetch_throttled.max(worker.produce_throttled));
            let is_held_back = throttled > WAITS * workers.len() as f64;
            return Err(if is_held_back { PlanError::Throttled } else { PlanError::NothingProcessed });
        }
        // Only those who work say what work costs.
        let working = || workers.iter().filter(|worker| worker.rate > 0.0);
        let busy = |share: fn(&WorkerLoad) -> f64| -> f64 { working().map(share).sum() };
        let lanes_busy = busy(|worker| worker.lanes_busy);
        let loop_busy = busy(|worker| worker.loop_busy);
        let count = working().count() as f64;
        let true_rate = |busy: f64| if busy >= LEAST_BUSY * count { rate / busy } else { f64::INFINITY };
        let work = working().map(|worker| worker.work * worker.rate).sum::<f64>() / rate;
        let lanes = working().map(|worker| worker.lanes).max().unwrap_or(0);
        let by_lanes = match (work > 0.0, true_rate(lanes_busy)) {
            (true, rate) if rate.is_finite() => rate,
            (true, _) => lanes as f64 / work,
            (false, _) => f64::INFINITY,
        };
        let limit = working().filter_map(|worker| worker.rate_limit).fold(f64::INFINITY, f64::min);
        let (cores, machines) = cores(workers);
        let used = sum(|worker| worker.cpu);
        let arrival = partitions.iter().map(|load| load.arrival).sum();
        let lag = partitions.iter().map(|load| load.lag).sum();
        let deals = Deals::of(deal::shares(partitions));
        let mut model = Model {
            workers: workers.len(),
            rate,
            arrival,
            lag,
            fullest_worker: deals.fullest_now(partitions, workers.len()),
            deals,
            handler: by_lanes.min(limit),
            serial: true_rate(loop_busy),
            cpu: used / rate,
            cores,
            machines,
            is_full: used > 0.0 && cores - used < LEAST_IDLE * cores,
            work,
            lanes,
            hottest: hottest.first().cloned(),
            external: None,
            attained: attained.clone(),
        };
        model.external = external(&model, workers);
        Ok(model)
    }

    /// What the CPU allows so many workers: on one machine there are no more cores for more of them.
    pub(super) fn by_cpu(&self, workers: usize) -> f64 {
        let part = if self.machines > 1 { workers as f64 / self.workers as f64 } else { 1.0 };
        if self.cpu > 0.0 { self.cores * part / self.cpu } else { f64::INFINITY }
    }

    /// What the hottest generator allows: its readings are worked one after the other.
    pub(super) fn by_hottest(&self) -> f64 {
        let hot = self.hottest.as_ref().filter(|_| self.work > 0.0);
        hot.map_or(f64::INFINITY, |hot| 1.0 / (self.work * hot.share))
    }

    /// What one worker could do if it had nothing but readings.
    pub(super) fn of_worker(&self) -> f64 {
        self.handler.min(self.serial)
    }
}

/// All cores that are there for the workers, and the number of machines. What is idle on a machine is there once,
/// however many workers see it.
fn cores(workers: &[WorkerLoad]) -> (f64, usize) {
    let mut names: Vec<&str> = workers.iter().map(|worker| worker.machine.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let of_machine = |name: &&str| -> f64 {
        let here = || workers.iter().filter(|worker| worker.machine == **name);
        let used: f64 = here().map(|worker| worker.cpu).sum();
        used + here().map(|worker| (worker.cores - worker.cpu).max(0.0)).fold(0.0, f64::max)
    };
    (names.iter().map(of_machine).sum(), names.len())
}

/// Readings wait, and so do the workers: for the broker, or for what they produce.
fn external(model: &Model, workers: &[WorkerLoad]) -> Option<Limit> {
    if model.lag < WAITING_LAG * model.rate || model.is_full {
        return None;
    }
    let working = || workers.iter().filter(|worker| worker.rate > 0.0);
    let count = working().count().max(1) as f64;
    let mean = |share: fn(&WorkerLoad) -> f64| working().map(share).sum::<f64>() / count;
    let by_limit = |worker: &WorkerLoad| worker.rate_limit.map_or(0.0, |limit| worker.rate / limit);
    let busiest = working().map(|worker| worker.loop_busy.max(worker.lanes_busy).max(by_limit(worker)));
    let hot = model.hottest.as_ref().map_or(0.0, |hot| hot.share * model.work * model.rate);
    // A worker that is busy, or a lane that is, explains the lag by itself.
    if busiest.fold(0.0, f64::max) > WAITS || hot > WAITS {
        return None;
    }
    let fetch = mean(|worker| worker.fetch_throttled);
    let produce = mean(|worker| worker.produce_throttled);
    let waits_for_commits = mean(|worker| worker.committing) > WAITS || mean(|worker| worker.full) > WAITS;
    Some(if produce > fetch || (waits_for_commits && fetch < 0.1) { Limit::Produce } else { Limit::Broker })
}
