//! How the rate that a group holds grows with the number of its workers.
//!
//! Theodolite's definitions: the *capacity* of n workers is the highest rate at which the lag doesn't grow (the slope
//! of a straight line through it, after a warm-up, stays flat); the *demand* of a rate is the fewest workers that hold
//! it. (Henning and Hasselbring, Empirical Software Engineering 27, 2022, doi:10.1007/s10664-022-10162-1.)
//!
//! Workers are added to one running group, as in production, to show what each membership change costs. Keys don't
//! spread evenly over partitions, nor partitions over workers: no system can exceed the *skew bound*, which follows
//! from the keys and the assignment.
//!
//! While the first rate of each size is tried, which is more than the group holds, the advisor measures it. What it says
//! one size brings is shown beside what the next size then holds.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use genwatch_core::plan::seen::Seen;
use genwatch_core::plan::{self, Measurements, Plan};
use genwatch_core::simulator::{Faults, Fleet};
use genwatch_core::types::{Offset, PartitionId};
use genwatch_kafka::config::Connection;
use genwatch_kafka::group::Group;
use genwatch_kafka::topic_reader::StartAt;
use serde_json::json;

use super::contender::{Contender, ContenderJob, Running};
use super::membership::{is_taken, owners};
use super::report::{Report, rounded, row};
use super::scratch_topics::ScratchTopics;
use super::statistics::slope;
use super::verify::{AlertsReader, expected};
use super::{BenchError, Tell, go_on, lag};

/// A lag slope up to this share of the rate counts as flat: the rest is noise of the commits.
const FLAT: f64 = 0.02;
/// Step between rates in the search, as a share.
const STEP: f64 = 0.04;
/// The most rates tried for one number of workers.
const TRIES: usize = 6;
/// How often to look at the lag.
const LOOK: Duration = Duration::from_millis(250);
/// The time limit for a membership change, or for the rest of the log.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// What to try.
#[derive(Clone, Debug)]
pub struct ScaleConfig {
    /// The cluster.
    pub connection: Connection,
    /// One worker.
    pub worker: Contender,
    /// Numbers of workers, ascending.
    pub replicas: Vec<usize>,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Generators that report.
    pub generators: u32,
    /// Work per reading.
    pub work: Duration,
    /// The first rate, in readings a second; more than one worker holds.
    pub rate: f64,
    /// How long each rate is tried.
    pub duration: Duration,
    /// Warm-up before that, not counted.
    pub warm_up: Duration,
    /// Seed of the fleet.
    pub seed: u64,
}

/// Runs the benchmark.
///
/// # Errors
/// When a worker fails, an alert is wrong, the cluster fails, or when stopped.
pub fn run(config: &ScaleConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "scale",
        json!({
            "replicas": config.replicas, "partitions": config.partitions, "generators": config.generators,
            "work_ms": config.work.as_secs_f64() * 1e3, "duration_s": config.duration.as_secs_f64(),
            "warm_up_s": config.warm_up.as_secs_f64(), "seed": config.seed,
        }),
    );
    let arena = ScratchTopics::new(&config.connection, config.partitions)?;
    let alerts = AlertsReader::new(arena.source(), StartAt::Now)?;
    let group_name = arena.new_group();
    let mut bench = Bench {
        config,
        arena: &arena,
        group: Group::new(&config.connection, &arena.cluster, &group_name, &arena.topic)?,
        group_name: group_name.clone(),
        fleet: Fleet::new(config.seed, config.generators, Faults::None),
        replicas: Vec::new(),
        stop,
    };
    let mut single = 0.0;
    let mut attained: Vec<(usize, f64)> = Vec::new();
    // What the advisor says of this many workers.
    let mut predicted: Option<(usize, f64)> = None;
    let steps = config.replicas.len() as u64 + 1;
    for (done, count) in (0..).zip(&config.replicas) {
        tell(&format!("{count} workers: joining"), done, steps);
        let pause = bench.grow_to(*count)?;
        let guess = if single == 0.0 { config.rate } else { single * *count as f64 * 1.1 };
        let (capacity, tried, seen) = bench.capacity(guess, |rate| {
            tell(&format!("{count} workers: trying {rate:.0} readings a second"), done, steps);
        })?;
        if single == 0.0 {
            single = capacity / *count as f64;
        }
        attained.push((*count, capacity));
        // Where nothing was processed there is no plan, and nothing to compare.
        let plan = plan::plan(&Measurements { attained: attained.clone(), ..seen.measurements() }, None).ok();
        let expected_here =
            std::mem::replace(&mut predicted, plan.as_ref().map(|plan| (*count + 1, with_one_more(plan))));
        let expected_here = expected_here.filter(|(of, _)| of == count).map(|(_, capacity)| capacity.round());
        let bound = bench.skew_bound()?;
        for (rate, slope) in tried {
            report.runs.push(row(json!({
                "replicas": count, "rate": rate.round(), "lag_slope": rounded(slope),
                "held": slope <= FLAT * rate,
            })));
        }
        let ideal = single * *count as f64;
        report.results.push(row(json!({
            "replicas": count,
            "capacity_per_s": capacity.round(),
            "times_one": rounded(capacity / single),
            "skew_bound": rounded(bound),
            "efficiency": rounded(capacity / (ideal * bound)),
            "predicted_per_s": expected_here,
            "limit": plan.map(|plan| plan.binding.limit.as_str()),
            "pause_s": pause.map(|pause| rounded(pause.as_secs_f64())),
        })));
    }
    tell("the rest of the log", steps - 1, steps);
    bench.wait_until_worked()?;
    for running in bench.replicas.drain(..) {
        running.stop(stop)?;
    }
    tell("comparing the alerts with a serial evaluation", steps - 1, steps);
    let expected = expected(&arena.source(), stop)?;
    alerts.check(&config.worker.name, &expected, stop)?;
    Ok(report)
}

/// Returns the fewest workers, of those tried, whose capacity holds `rate`.
#[must_use]
pub fn demand(report: &Report, rate: f64) -> Option<u64> {
    let holds = |row: &&serde_json::Map<String, serde_json::Value>| {
        row["capacity_per_s"].as_f64().is_some_and(|capacity| capacity >= rate)
    };
    report.results.iter().find(holds).and_then(|row| row["replicas"].as_u64())
}

/// What the advisor says that one more worker brings the group to.
fn with_one_more(plan: &Plan) -> f64 {
    plan.measured.capacity * (1.0 + plan.one_more_replica.gain)
}

/// A rate that was tried, and the slope of the lag.
type Tried = (f64, f64);

struct Bench<'a> {
    config: &'a ScaleConfig,
    arena: &'a ScratchTopics,
    group: Group<'a>,
    group_name: String,
    fleet: Fleet,
    replicas: Vec<Running>,
    stop: &'a AtomicBool,
}

impl Bench<'_> {
    /// Adds workers while readings come in; returns the longest standstill of a partition meanwhile. The first workers
    /// interrupt none.
    fn grow_to(&mut self, count: usize) -> Result<Option<Duration>, BenchError> {
        let first = self.replicas.is_empty();
        let job = ContenderJob { work: self.config.work, count: None };
        let rate = if first { 1.0 } else { self.config.rate * self.replicas.len() as f64 * 0.3 };
        let begun = Instant::now();
        while self.replicas.len() < count {
            self.replicas.push(self.config.worker.start(self.arena, &self.group_name, &job)?);
        }
        let Bench { arena, group, fleet, replicas, stop, .. } = self;
        let pause = arena.while_producing(fleet, rate, || watch_change(group, replicas, begun, stop))?;
        Ok((!first).then_some(pause))
    }

    /// Returns the highest rate tried that is held, all rates tried with the slope of their lag, and what the advisor
    /// saw during the first one.
    fn capacity(&mut self, guess: f64, tell: impl Fn(f64)) -> Result<(f64, Vec<Tried>, Seen), BenchError> {
        let mut tried = Vec::new();
        tell(guess);
        // Beyond its capacity a group processes as fast as it can: the search starts from that rate.
        let (slope, worked, seen) = self.try_rate(guess, true)?;
        tried.push((guess, slope));
        let mut rate = if slope <= FLAT * guess { guess * (1.0 + STEP) } else { worked };
        let mut held = if slope <= FLAT * guess { guess } else { 0.0 };
        while tried.len() < TRIES {
            tell(rate);
            let (slope, ..) = self.try_rate(rate, false)?;
            tried.push((rate, slope));
            if slope > FLAT * rate {
                if held > 0.0 {
                    break;
                }
                rate *= 1.0 - STEP;
            } else {
                held = rate;
                // Higher rates were tried already.
                if tried.iter().any(|(other, slope)| *slope > FLAT * other && *other <= rate * (1.0 + STEP)) {
                    break;
                }
                rate *= 1.0 + STEP;
            }
        }
        Ok((held, tried, seen))
    }

    /// Produces at `rate`; returns the slope of the lag, the readings processed a second, and what the advisor saw, if
    /// it is to look.
    fn try_rate(&mut self, rate: f64, is_watched: bool) -> Result<(f64, f64, Seen), BenchError> {
        self.wait_until_worked()?;
        let (warm_up, whole) = (self.config.warm_up, self.config.warm_up + self.config.duration);
        let Bench { arena, group, group_name, fleet, stop, .. } = self;
        let watch = || {
            std::thread::sleep(warm_up);
            arena.measure(group_name, whole - warm_up, |_| go_on(stop).is_ok())
        };
        let look = || -> Result<(f64, f64), BenchError> {
            let begun = Instant::now();
            let mut lags = Vec::new();
            let mut worked = Vec::new();
            while begun.elapsed() < whole {
                std::thread::sleep(LOOK);
                go_on(stop)?;
                let progress = group.progress()?;
                let at = begun.elapsed();
                if at < warm_up {
                    continue;
                }
                lags.push((at.as_secs_f64(), lag(&progress) as f64));
                let done: i64 = progress.values().map(|p| p.next().0 - p.start.0).sum();
                worked.push((at.as_secs_f64(), done as f64));
            }
            Ok((slope(&lags), slope(&worked)))
        };
        arena.while_producing(fleet, rate, || {
            std::thread::scope(|scope| {
                let watching = is_watched.then(|| scope.spawn(watch));
                let (slope, worked) = look()?;
                let seen = watching.map(|watching| watching.join().unwrap_or_else(|_| Ok(Seen::default())));
                Ok((slope, worked, seen.transpose()?.unwrap_or_default()))
            })
        })
    }

    fn wait_until_worked(&self) -> Result<(), BenchError> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        while lag(&self.group.progress()?) > 0 {
            go_on(self.stop)?;
            if Instant::now() > deadline {
                let what = format!("has not drained its backlog within {STEP_TIMEOUT:?}");
                return Err(BenchError::Wrong { name: self.config.worker.name.clone(), what });
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Returns the share of the ideal that is left if the worker with the most readings is the bottleneck.
    fn skew_bound(&self) -> Result<f64, BenchError> {
        let owners = owners(&self.group)?;
        let mut loads: BTreeMap<&str, f64> = BTreeMap::new();
        let mut all = 0.0;
        for (partition, progress) in self.group.progress()? {
            let load = (progress.end.0 - progress.start.0) as f64;
            all += load;
            if let Some(owner) = owners.get(&partition) {
                *loads.entry(owner).or_default() += load;
            }
        }
        let most = loads.values().copied().fold(0.0, f64::max);
        Ok(if most > 0.0 { (all / most / self.replicas.len() as f64).min(1.0) } else { 1.0 })
    }
}

/// Watches until every worker has partitions and the group is stable; returns the longest standstill of a partition.
fn watch_change(
    group: &Group<'_>,
    replicas: &[Running],
    begun: Instant,
    stop: &AtomicBool,
) -> Result<Duration, BenchError> {
    let mut moved: BTreeMap<PartitionId, (Offset, Instant)> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    let mut settled: Option<Instant> = None;
    loop {
        go_on(stop)?;
        let now = Instant::now();
        for (id, progress) in group.progress()? {
            let (next, since) = moved.entry(id).or_insert((progress.next(), now));
            if progress.next() > *next || progress.lag() == 0 {
                (*next, *since) = (progress.next(), now);
            }
            longest = longest.max(now - *since);
        }
        let working = is_taken(group, replicas.len())?;
        // Stable means no change for as long as the next one would take to come.
        let quiet = working && begun.elapsed() > Duration::from_secs(6);
        settled = if quiet { settled.or(Some(now)) } else { None };
        if settled.is_some_and(|since| since.elapsed() > Duration::from_secs(4)) {
            return Ok(longest);
        }
        if begun.elapsed() > STEP_TIMEOUT {
            let what = format!("has workers without a partition after {STEP_TIMEOUT:?}");
            return Err(BenchError::Wrong { name: "the group".to_owned(), what });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
