//! What the planner is told: rates and loads, measured over some time. Rates are per second, times are seconds.

/// Everything that was measured of one group and its topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    /// Each partition, in order of its number.
    pub partitions: Vec<PartitionLoad>,
    /// Each worker that is in the group, also those that hold nothing.
    pub workers: Vec<WorkerLoad>,
    /// How many generators are known, or 0 if that is unknown.
    pub generators: u64,
    /// The shares of all readings that the fullest generators have, largest first. May be empty.
    pub hottest: Vec<HotGenerator>,
    /// Rates that were attained with other numbers of workers, while there was a backlog: `(workers, rate)`.
    pub attained: Vec<(usize, f64)>,
    /// The keys of a sample of readings, one entry per generator. With them the fullest partition of another number of
    /// partitions is computed, not estimated. May be empty.
    pub keys: Vec<KeyShare>,
}

/// One partition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PartitionLoad {
    /// Readings produced to it, a second.
    pub arrival: f64,
    /// Readings committed of it, a second.
    pub done: f64,
    /// Readings behind the committed offset, at the end of the measurement.
    pub lag: f64,
    /// The index of the worker that holds it.
    pub worker: Option<usize>,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerLoad {
    /// Its name.
    pub name: String,
    /// The machine that it runs on; the workers of a machine share its cores.
    pub machine: String,
    /// Readings a second.
    pub rate: f64,
    /// The share of time in which its loop was at work, 0 to 1.
    pub loop_busy: f64,
    /// The share of its lanes' time in which work was under way, 0 to 1. 0 without work.
    pub lanes_busy: f64,
    /// Mean wall time of a reading's work, in seconds; 0 without work.
    pub work: f64,
    /// How many generators it handles at once; 0 without work: readings are evaluated on arrival.
    pub lanes: usize,
    /// Its limit of readings a second, if it has one.
    pub rate_limit: Option<f64>,
    /// Cores that its process used.
    pub cpu: f64,
    /// Cores that its process could have used: its own, and those that were idle.
    pub cores: f64,
    /// The share of time in which a commit was under way, 0 to 1.
    pub committing: f64,
    /// The share of time in which it waited for room, because effects weren't committed yet, 0 to 1.
    pub full: f64,
    /// The share of time for which a quota of the broker delayed its fetches, 0 to 1.
    pub fetch_throttled: f64,
    /// The same of what it produces.
    pub produce_throttled: f64,
}

/// A generator with a large share.
#[derive(Clone, Debug, PartialEq)]
pub struct HotGenerator {
    /// Its name.
    pub generator: String,
    /// Its share of all readings, 0 to 1.
    pub share: f64,
}

/// A key of the sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyShare {
    /// Its hash, by [`crate::partitioner`].
    pub hash: u32,
    /// Its share of the sample, 0 to 1.
    pub share: f64,
}
