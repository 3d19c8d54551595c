//! How long partitions stand still when workers come, go, crash and are restarted one after the other.
//!
//! Seen from outside: readings come open-loop, one after the other to each partition, and each has its alert (see
//! `numbered.rs`). A partition's *standstill* at an event is the longest time that one of its readings waited for a
//! reader of committed records to see its alert. So it has everything in it: noticing, the group's rounds, draining,
//! restoring, and catching up.
//!
//! Partitions that change hands and partitions that stay are told apart by what the coordinator says before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genwatch_core::partitioner::partition_of;
use genwatch_core::types::PartitionId;
use genwatch_kafka::config::Connection;
use genwatch_kafka::group::Group;
use genwatch_kafka::producer::ReadingProducer;
use genwatch_kafka::topic_reader::{StartAt, TopicReader};
use serde_json::{Map, Value, json};

use super::contender::{Contender, ContenderJob, Running};
use super::membership::{owners, sharing};
use super::numbered::{self, Schedule};
use super::report::{Report, rounded, row};
use super::scratch_topics::ScratchTopics;
use super::{BenchError, Tell, go_on};

/// How long nothing happens between two events.
const QUIET: Duration = Duration::from_millis(1500);
/// How often to ask who owns what.
const LOOK: Duration = Duration::from_millis(50);
/// The time limit of a membership change, and of the last alerts.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Generators of each partition.
const GENERATORS_EACH: usize = 20;

/// What happens to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A worker joins two others, and leaves again in order.
    JoinAndLeave,
    /// One of three workers is killed; later another takes its place.
    Kill,
    /// Each of six workers in turn is stopped in order, and another started when it has ended.
    RollingRestart,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 3] = [Scenario::JoinAndLeave, Scenario::Kill, Scenario::RollingRestart];

    /// Its name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scenario::JoinAndLeave => "join-leave",
            Scenario::Kill => "kill",
            Scenario::RollingRestart => "rolling-restart",
        }
    }

    fn workers(self) -> usize {
        match self {
            Scenario::JoinAndLeave => 2,
            Scenario::Kill => 3,
            Scenario::RollingRestart => 6,
        }
    }
}

/// What to measure, and of which contenders.
#[derive(Clone, Debug)]
pub struct RebalanceConfig {
    /// The cluster.
    pub connection: Connection,
    /// The contenders; each process is one member.
    pub contenders: Vec<Contender>,
    /// What happens.
    pub scenarios: Vec<Scenario>,
    /// How many events of each kind.
    pub events: u32,
    /// Readings a second, over all partitions.
    pub rate: u32,
    /// Partitions of the topic.
    pub partitions: u32,
}

/// Something that happened to the group.
#[derive(Debug)]
struct Event {
    kind: &'static str,
    at: Instant,
    /// The partitions that have another owner after it.
    moved: BTreeSet<PartitionId>,
}

/// Runs the benchmark.
///
/// # Errors
/// When an alert is missing or doubled, a program fails, the cluster fails, or when stopped.
pub fn run(config: &RebalanceConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "rebalance",
        json!({
            "events": config.events, "rate": config.rate, "partitions": config.partitions,
            "scenarios": config.scenarios.iter().map(|scenario| scenario.as_str()).collect::<Vec<_>>(),
        }),
    );
    let steps = (config.contenders.len() * config.scenarios.len()) as u64;
    let mut done = 0;
    for scenario in &config.scenarios {
        for contender in &config.contenders {
            tell(&format!("{}: {}", contender.name, scenario.as_str()), done, steps);
            let bench = Bench::new(config, contender, *scenario, stop)?;
            let (kinds, runs) = bench.run()?;
            for kind in kinds {
                let of = |column: &str| {
                    let rows = runs.iter().filter(|row| row["event"] == kind);
                    rows.filter_map(|row| row[column].as_f64()).collect::<Vec<_>>()
                };
                let mut cells = row(json!({ "contender": contender.name, "event": kind }));
                cells.extend(summary(of("moved_ms"), of("stayed_ms")));
                report.results.push(cells);
            }
            report.runs.extend(runs);
            done += 1;
        }
    }
    Ok(report)
}

/// What the worst partitions of all events come to.
fn summary(mut moved: Vec<f64>, mut stayed: Vec<f64>) -> Map<String, Value> {
    moved.sort_by(f64::total_cmp);
    stayed.sort_by(f64::total_cmp);
    row(json!({
        "events": moved.len().max(stayed.len()),
        "moved_p50_ms": nearest_rank(&moved, 0.5), "moved_p99_ms": nearest_rank(&moved, 0.99),
        "moved_max_ms": nearest_rank(&moved, 1.0),
        "stayed_p50_ms": nearest_rank(&stayed, 0.5), "stayed_p99_ms": nearest_rank(&stayed, 0.99),
    }))
}

/// The smallest value that so large a share of the values doesn't exceed.
fn nearest_rank(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().map(rounded)
}

/// When each reading's alert was seen.
type Seen = Vec<Option<Instant>>;

/// The kinds of events that happened, and a row for each event.
type Measured = (Vec<&'static str>, Vec<Map<String, Value>>);

struct Bench<'a> {
    config: &'a RebalanceConfig,
    contender: &'a Contender,
    scenario: Scenario,
    stop: &'a AtomicBool,
    arena: ScratchTopics,
    group_name: String,
    generators: Vec<String>,
}

impl<'a> Bench<'a> {
    fn new(
        config: &'a RebalanceConfig,
        contender: &'a Contender,
        scenario: Scenario,
        stop: &'a AtomicBool,
    ) -> Result<Bench<'a>, BenchError> {
        let partitions = i32::try_from(config.partitions).unwrap_or(i32::MAX);
        let arena = ScratchTopics::new(&config.connection, partitions)?;
        let group_name = arena.new_group();
        let generators = generators(config.partitions);
        Ok(Bench { config, contender, scenario, stop, arena, group_name, generators })
    }

    /// Returns the kinds of events, and each event with the standstill of its worst partitions.
    fn run(&self) -> Result<Measured, BenchError> {
        let mut members = Members::new(self)?;
        members.grow_to(self.scenario.workers())?;
        members.settle()?;
        let schedule = Schedule::new(Instant::now() + Duration::from_millis(500), self.config.rate);
        let producer = ReadingProducer::without_linger(&self.arena.connection, &self.arena.topic)?;
        let (over, failed) = (AtomicBool::new(false), AtomicBool::new(false));
        let (events, seen) = std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let seen = self.watch(schedule, &over);
                failed.store(seen.is_err(), Ordering::Relaxed);
                seen
            });
            let producing = scope.spawn(|| {
                numbered::produce(&producer, &self.generators, schedule, |_| over.load(Ordering::Relaxed))
            });
            std::thread::sleep(QUIET);
            let events = self.happen(&mut members, &failed);
            over.store(true, Ordering::Relaxed);
            let produced = producing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let seen = watching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // What the watcher has found wrong explains the rest.
            let seen = seen?;
            produced?;
            Ok::<_, BenchError>((events?, seen))
        })?;
        members.end()?;
        let mut kinds: Vec<&'static str> = Vec::new();
        for event in &events {
            if !event.kind.is_empty() && !kinds.contains(&event.kind) {
                kinds.push(event.kind);
            }
        }
        Ok((kinds, self.rows(&events, schedule, &seen)))
    }

    /// Lets all events happen; the last one has no partitions, and ends the window of the one before.
    fn happen(&self, members: &mut Members<'_>, failed: &AtomicBool) -> Result<Vec<Event>, BenchError> {
        let mut events = Vec::new();
        for _ in 0..self.config.events {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            match self.scenario {
                Scenario::JoinAndLeave => {
                    events.push(members.during("join", |members| members.grow_to(3))?);
                    events.push(members.during("leave", |members| {
                        members.stop(2)?;
                        members.taken(2)
                    })?);
                }
                Scenario::Kill => {
                    events.push(members.during("kill", |members| {
                        members.kill_first();
                        members.taken(2)
                    })?);
                    // Its replacement joins, which isn't what is measured here.
                    events.push(members.during("", |members| members.grow_to(3))?);
                }
                Scenario::RollingRestart => {
                    events.push(members.during("restart", |members| {
                        members.stop(0)?;
                        members.grow_to(6)
                    })?);
                }
            }
        }
        events.push(Event { kind: "", at: Instant::now(), moved: BTreeSet::new() });
        Ok(events)
    }

    /// A row for each event: the longest standstill of the partitions that it moved, and of those that stayed.
    fn rows(&self, events: &[Event], schedule: Schedule, seen: &Seen) -> Vec<Map<String, Value>> {
        let partitions = u64::from(self.config.partitions);
        let mut rows = Vec::new();
        for (event, next) in events.iter().zip(events.iter().skip(1)) {
            if event.kind.is_empty() {
                continue;
            }
            let (mut moved, mut stayed) = (None, None);
            for (number, at) in (0..).zip(seen) {
                let due = schedule.due(number);
                // A reading that came just before may wait, too.
                let from = event.at.checked_sub(QUIET / 3).unwrap_or(event.at);
                let until = next.at.checked_sub(QUIET / 3).unwrap_or(next.at);
                let Some(at) = at.filter(|_| (from..until).contains(&due)) else { continue };
                let partition = PartitionId(i32::try_from(number % partitions).unwrap_or(0));
                let worst = if event.moved.contains(&partition) { &mut moved } else { &mut stayed };
                *worst = (*worst).max(Some(at.saturating_duration_since(due)));
            }
            let ms = |worst: Option<Duration>| worst.map(|worst| rounded(worst.as_secs_f64() * 1e3));
            rows.push(row(json!({
                "contender": self.contender.name, "event": event.kind, "moved": event.moved.len(),
                "moved_ms": ms(moved), "stayed_ms": ms(stayed),
            })));
        }
        rows
    }

    /// Sees each alert once, until `over` and those of all readings that were due by then are there.
    fn watch(&self, schedule: Schedule, over: &AtomicBool) -> Result<Seen, BenchError> {
        let wrong = |what: String| BenchError::Wrong { name: self.contender.name.clone(), what };
        let ScratchTopics { connection, cluster, .. } = &self.arena;
        let mut tail = TopicReader::new(connection, cluster, self.arena.source().alerts, StartAt::Now)?;
        let mut seen = Seen::new();
        let mut ended: Option<(Instant, usize)> = None;
        let missing = |seen: &Seen| seen.iter().filter(|at| at.is_none()).count();
        loop {
            go_on(self.stop)?;
            tail.read(Duration::from_millis(20), |record| {
                let at = Instant::now();
                let number = numbered::number_of(record.value.unwrap_or_default())
                    .map_err(|error| wrong(format!("this is not an alert: {error}")))?;
                let place = usize::try_from(number).unwrap_or(usize::MAX);
                if schedule.due(number) > at {
                    return Err(wrong(format!("no reading {number} was sent")));
                }
                if seen.len() <= place {
                    seen.resize(place + 1, None);
                }
                if seen[place].replace(at).is_some() {
                    return Err(wrong(format!("the alert of reading {number} came twice")));
                }
                Ok::<(), BenchError>(())
            })?;
            if !over.load(Ordering::Relaxed) {
                continue;
            }
            // The newest alert's reading isn't the last one that was sent: some more may come.
            let (since, count) = ended.get_or_insert((Instant::now(), seen.len()));
            if seen.len() > *count {
                (*since, *count) = (Instant::now(), seen.len());
            }
            if missing(&seen) == 0 && since.elapsed() > QUIET {
                return Ok(seen);
            }
            if since.elapsed() > TIMEOUT {
                return Err(wrong(format!("{} of {} alerts are missing", missing(&seen), seen.len())));
            }
        }
    }
}

/// The same number of generators for each partition; one after the other is of the next partition.
fn generators(partitions: u32) -> Vec<String> {
    let mut of: BTreeMap<PartitionId, Vec<String>> = BTreeMap::new();
    let mut number = 0_u64;
    while of.len() < partitions as usize || of.values().any(|some| some.len() < GENERATORS_EACH) {
        let id = format!("generator{number}");
        of.entry(partition_of(id.as_bytes(), partitions)).or_default().push(id);
        number += 1;
    }
    let round = |place: usize| of.values().map(move |some| some[place].clone());
    (0..GENERATORS_EACH).flat_map(round).collect()
}

/// The processes of the group.
struct Members<'a> {
    bench: &'a Bench<'a>,
    group: Group<'a>,
    /// The oldest first.
    running: Vec<Running>,
}

impl<'a> Members<'a> {
    fn new(bench: &'a Bench<'a>) -> Result<Members<'a>, BenchError> {
        let ScratchTopics { connection, cluster, topic, .. } = &bench.arena;
        let group = Group::new(connection, cluster, &bench.group_name, topic)?;
        Ok(Members { bench, group, running: Vec::new() })
    }

    fn owners(&self) -> Result<BTreeMap<PartitionId, String>, BenchError> {
        owners(&self.group)
    }

    /// Lets something happen and things settle.
    fn during(
        &mut self,
        kind: &'static str,
        happens: impl FnOnce(&mut Self) -> Result<(), BenchError>,
    ) -> Result<Event, BenchError> {
        let before = self.owners()?;
        let at = Instant::now();
        happens(self)?;
        self.settle()?;
        let after = self.owners()?;
        let has_moved = |(id, owner): (&PartitionId, &String)| (before.get(id) != Some(owner)).then_some(*id);
        Ok(Event { kind, at, moved: after.iter().filter_map(has_moved).collect() })
    }

    /// Starts processes until there are so many, and waits until each has partitions.
    fn grow_to(&mut self, count: usize) -> Result<(), BenchError> {
        let job = ContenderJob { work: Duration::ZERO, count: None };
        let Bench { contender, arena, group_name, .. } = self.bench;
        while self.running.len() < count {
            self.running.push(contender.start(arena, group_name, &job)?);
        }
        self.taken(count)
    }

    /// Waits until every partition is taken, by so many members.
    fn taken(&self, members: usize) -> Result<(), BenchError> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            go_on(self.bench.stop)?;
            if let Some(ended) = self.running.iter().find(|running| running.has_ended()) {
                return Err(ended.failed("ended by itself".to_owned()));
            }
            if sharing(&self.group)? == Some(members) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let what = format!("has no partition in each of {members} members after {TIMEOUT:?}");
                return Err(BenchError::Wrong { name: self.bench.contender.name.clone(), what });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the owners are the same for a while.
    fn settle(&self) -> Result<(), BenchError> {
        let (mut owners, mut since) = (self.owners()?, Instant::now());
        while since.elapsed() < QUIET {
            go_on(self.bench.stop)?;
            std::thread::sleep(LOOK);
            let now = self.owners()?;
            if now != owners {
                (owners, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn kill_first(&mut self) {
        self.running.remove(0).kill();
    }

    /// The oldest is at place 0.
    fn stop(&mut self, place: usize) -> Result<(), BenchError> {
        self.running.remove(place).stop(self.bench.stop).map(drop)
    }

    fn end(self) -> Result<(), BenchError> {
        for running in &self.running {
            running.ask_to_end();
        }
        self.running.into_iter().try_for_each(|running| running.wait(self.bench.stop).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_go_to_one_partition_after_the_other() {
        let generators = generators(12);
        assert_eq!(generators.len(), 12 * GENERATORS_EACH);
        for (number, id) in generators.iter().enumerate() {
            assert_eq!(partition_of(id.as_bytes(), 12).0 as usize, number % 12, "{id}");
        }
    }

    #[test]
    fn the_ninety_ninth_percentile_of_thirty_is_the_largest() {
        let events: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(nearest_rank(&events, 0.99), Some(30.0));
        assert_eq!(nearest_rank(&events, 0.5), Some(15.0));
        assert_eq!(nearest_rank(&[], 0.5), None);
    }
}
