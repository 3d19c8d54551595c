//! The advisor: how many partitions, how many workers, and which limit binds.
//!
//! [`plan`] is a pure function: [`Measurements`] in, a [`Plan`] out; no clock, no I/O. Its method is in
//! `docs/planning.md`. In short: every limit bounds the rate of the whole group; the capacity is the least bound, and
//! the limit that has it binds.
//!
//! * [`seen`], [`measurements`]: what is measured. `model`: rates and costs made of it.
//! * `deal`: which share of the readings the fullest worker has. `limits`: the bounds, and which one binds.
//! * `scaling`: what other sizes of the group have attained. `recommend`: partitions and workers for a rate.
//! * `words`: what people read. [`top_keys`]: which generators have most of a worker's readings.

mod deal;
mod limits;
pub mod measurements;
mod model;
mod recommend;
mod scaling;
pub mod seen;
#[cfg(test)]
mod tests;
pub mod top_keys;
mod words;

use serde::{Deserialize, Serialize};

pub use limits::{Bound, Limit};
pub use measurements::Measurements;

use limits::Dealt;
use model::Model;

/// A step that brings less than this part of the present capacity isn't worthwhile.
pub const LEAST_GAIN: f64 = 0.1;

/// The part of its capacity that a group is used at by what arrives, before some limit is said to bind.
pub const USED: f64 = 0.7;

/// A recommendation has room for this multiple of the rate: a group that is used up never catches up.
pub const ROOM: f64 = 1.2;

/// What the group can do, what binds it, and what to do about it. Its JSON is the contract's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Readings a second that the recommendation is for: the rate that was asked for, or the one that arrives.
    pub target_rate: f64,
    /// What was measured.
    pub measured: Measured,
    /// The limit that binds.
    pub binding: Binding,
    /// The limit that binds once that is lifted; `None` if nothing that is known would.
    pub next: Option<Binding>,
    /// What each limit by itself would allow the group as it is, the least first. The deal of partitions among workers
    /// isn't always even, so the binding one can be lower.
    #[serde(default)]
    pub limits: Vec<Bound>,
    /// What to run.
    pub recommend: Recommendation,
    /// What one more worker would bring.
    pub one_more_replica: OneMore,
    /// Until the lag is worked off, in seconds; `None`: never, more arrives than can be processed.
    pub drain_seconds: Option<f64>,
    /// The partition that is last to be worked off, or that never is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drain_partition: Option<usize>,
}

/// What was measured, in readings a second, and readings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Processed.
    pub rate: f64,
    /// What the group could process, as it is.
    pub capacity: f64,
    /// Produced.
    pub arrival: f64,
    /// Waiting.
    pub lag: f64,
    /// Workers in the group.
    pub replicas: usize,
    /// Partitions of the topic.
    pub partitions: usize,
}

/// A limit and the rate of the whole group that it allows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// Which.
    pub limit: Limit,
    /// Readings a second.
    pub capacity: f64,
    /// Why, in words.
    pub why: String,
}

/// What to run for the target rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Partitions of the topic: never fewer than it has.
    pub partitions: usize,
    /// Workers.
    pub replicas: usize,
    /// Generators that a worker handles at once, as now; 0 without work.
    pub concurrency: usize,
    /// What that can process, in readings a second.
    pub capacity: f64,
    /// Whether that is enough: otherwise a limit binds that neither workers nor partitions lift.
    pub is_enough: bool,
}

/// What one more worker would bring.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OneMore {
    /// The part by which the capacity grows.
    pub gain: f64,
    /// Whether to start it.
    pub worth_it: bool,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is nobody.
    #[error("the group has no workers that say what they do")]
    NoWorkers,
    /// There is nothing to process.
    #[error("the topic has no partitions")]
    NoPartitions,
    /// Nothing was processed while it was measured.
    #[error("no reading was processed while it was measured")]
    NothingProcessed,
    /// A quota held everything back while it was measured.
    #[error(
        "no reading was processed while it was measured, as a quota of the broker held the workers back: it binds; measure for longer to know the rate"
    )]
    Throttled,
}

/// Plans for `target_rate` readings a second; for the rate that arrives if there is none.
///
/// # Errors
/// When the measurements say nothing.
pub fn plan(measurements: &Measurements, target_rate: Option<f64>) -> Result<Plan, PlanError> {
    let model = Model::of(measurements)?;
    let workers = model.workers;
    let arrival = model.arrival;
    let target_rate = target_rate.unwrap_or(arrival).max(0.0);
    let present = Dealt::among(workers, &model);
    let bound = limits::binding(&model, present, None);
    let capacity = bound.capacity;
    let drain = drain(&model, measurements, bound);
    let demand = arrival.max(target_rate);
    // Less arrives than could be processed, and what waits gets less.
    let is_free = demand < USED * capacity && drain.seconds.is_some() && model.external.is_none();
    let gain = scaling::gain(&model, capacity);
    let (binding, next) = if is_free {
        let none =
            Binding { limit: Limit::None, capacity, why: words::nothing_binds(demand, workers, capacity) };
        (none, Some(words::binding(&model, measurements, bound)))
    } else {
        let next = limits::binding(&model, present, Some(bound.limit));
        let next = next.capacity.is_finite().then(|| words::binding(&model, measurements, next));
        (words::binding(&model, measurements, bound), next)
    };
    Ok(Plan {
        target_rate,
        measured: Measured {
            rate: model.rate,
            capacity,
            arrival,
            lag: model.lag,
            replicas: workers,
            partitions: model.deals.partitions(),
        },
        binding,
        next,
        limits: limits::all(&model),
        recommend: recommend::recommend(&model, measurements, target_rate),
        one_more_replica: OneMore { gain, worth_it: gain >= LEAST_GAIN && !is_free },
        drain_seconds: drain.seconds,
        drain_partition: drain.partition,
    })
}

struct Drain {
    seconds: Option<f64>,
    partition: Option<usize>,
}

/// Less than this many seconds of arriving readings isn't a lag: it is what is under way.
const UNDER_WAY: f64 = 1.0;

/// With less than this part of what arrives to spare, what waits never gets less: measurements aren't that exact.
const LEAST_SPARE: f64 = 0.01;

/// When the last partition is worked off. Each worker shares its capacity out among its partitions, and no more than
/// the group's capacity is there for all. A hot generator's partition goes on as it does, whatever the others leave.
fn drain(model: &Model, measurements: &Measurements, bound: Bound) -> Drain {
    let of_worker = model.of_worker();
    let mut last = Drain { seconds: Some(0.0), partition: None };
    let mut take = |lag: f64, arrival: f64, capacity: f64, partition: Option<usize>| {
        if lag <= UNDER_WAY * arrival.max(1.0) {
            return;
        }
        let spare = capacity - arrival;
        let seconds = (spare > LEAST_SPARE * arrival).then(|| lag / spare);
        let is_later = match (seconds, last.seconds) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(seconds), Some(latest)) => seconds > latest,
        };
        if is_later {
            last = Drain { seconds, partition: partition.or(last.partition) };
        }
    };
    for worker in 0..model.workers {
        let held =
            || measurements.partitions.iter().enumerate().filter(|(_, load)| load.worker == Some(worker));
        let lag: f64 = held().map(|(_, load)| load.lag).sum();
        let arrival: f64 = held().map(|(_, load)| load.arrival).sum();
        let fullest = held().max_by(|(_, one), (_, other)| one.lag.total_cmp(&other.lag));
        take(lag, arrival, of_worker, fullest.map(|(partition, _)| partition));
    }
    if bound.limit == Limit::HotGenerator {
        for (partition, load) in measurements.partitions.iter().enumerate() {
            take(load.lag, load.arrival, load.done, Some(partition));
        }
    }
    take(model.lag, model.arrival, bound.capacity, None);
    last
}
