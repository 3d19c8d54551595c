//! `genwatch worker`: one worker of the group.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use genwatch_core::alarm::detector::Detector;
use genwatch_core::alarm::rules::Rules;
use genwatch_kafka::clock::millis;
use genwatch_kafka::topics::Topics;

use super::member::{MemberOptions, failure};
use super::{ClusterOptions, Failure};
use crate::worker::WorkerConfig;
use crate::worker::alarms::AlarmSummary;
use crate::worker::work::{Delays, DelaysConfig};

/// Process readings as one worker of the group: raise and clear alarms.
///
/// Start as many as needed; each takes a share of the partitions. SIGTERM drains: readings begun are finished and
/// committed, then the partitions go to the others. At the end one JSON summary is printed.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The rules, a TOML file. Default: low_fuel (fuel below 200, clear above 250) and over_temperature (above 100,
    /// clear below 95).
    #[arg(long, value_name = "FILE", env = "GENWATCH_RULES")]
    rules: Option<PathBuf>,

    /// Forget a generator that has been silent for this long, as if it were decommissioned: its alarms are cleared and
    /// its state is deleted. At least the longest silent_for of the rules. Without it, if a rule has silent_for, each
    /// generator ever seen is remembered, and reported as silent, until its tombstone comes.
    #[arg(long, value_name = "DURATION", value_parser = some_time, env = "GENWATCH_FORGET_SILENT_AFTER")]
    forget_silent_after: Option<Duration>,

    /// How many generators are processed at once, while --work makes readings wait. 1 is strictly serial.
    #[arg(long, default_value_t = 64, env = "GENWATCH_CONCURRENCY", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    concurrency: u32,

    /// Time between commits while only offsets move. Effects are committed sooner.
    #[arg(long, default_value = "100ms", value_parser = super::duration, env = "GENWATCH_COMMIT_INTERVAL")]
    commit_interval: Duration,

    /// Simulated work per reading: an asynchronous wait, as for a remote lookup.
    #[arg(long, default_value = "0s", value_parser = super::duration, env = "GENWATCH_WORK")]
    work: Duration,

    /// Simulated work per reading of one generator instead: a lookup that hangs. It delays no other generator.
    #[arg(long, value_name = "ID=DURATION", value_parser = work_of, env = "GENWATCH_WORK_OF")]
    work_of: Vec<(String, Duration)>,

    /// Cut short the work of a reading that takes longer, and evaluate the reading without it: a lookup that hangs
    /// forever would block its generator, and the partition's offset, forever. Each is counted and logged. Without it,
    /// work has no time limit.
    #[arg(long, value_name = "DURATION", value_parser = some_time, env = "GENWATCH_WORK_TIMEOUT")]
    work_timeout: Option<Duration>,

    /// Stop with an error if more than this share (0 to 1) of a thousand records is bad. Without it, every bad record
    /// goes to the dead letter queue, however many there are.
    #[arg(long, value_name = "RATIO", value_parser = ratio, env = "GENWATCH_MAX_BAD_RATIO")]
    max_bad_ratio: Option<f64>,

    #[command(flatten)]
    member: MemberOptions,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let rules = match &options.rules {
        Some(path) => Rules::load(path).map_err(Failure::usage)?,
        None => Rules::default(),
    };
    if let Some(after) = options.forget_silent_after {
        check_forgetting(after, &rules).map_err(Failure::usage)?;
    }
    let connection = options.cluster.connection()?;
    options.member.check(&connection, &options.cluster.group)?;
    let detector = Detector::new(rules).forget_silent_after(options.forget_silent_after.map(millis));
    let work = Delays::new(DelaysConfig {
        concurrency: options.concurrency as usize,
        work: options.work,
        work_of: options.work_of.iter().cloned().collect(),
        work_timeout: options.work_timeout,
    });
    let topics = Topics::new(&options.cluster.topic, &options.cluster.group);
    let group = &options.cluster.group;
    let config = WorkerConfig {
        max_bad_ratio: options.max_bad_ratio,
        ..options.member.worker(connection, topics.of_alarms(), group, group, options.commit_interval)
    };
    super::run_service(options.member.http.as_ref(), |context| {
        let summary = crate::worker::run(config, detector, work, context).map_err(failure)?;
        Ok(AlarmSummary::from(summary))
    })
}

/// Checks that no generator is forgotten before its silence is reported.
fn check_forgetting(after: Duration, rules: &Rules) -> anyhow::Result<()> {
    let Some(longest) = rules.longest_silence() else {
        tracing::warn!(
            "--forget-silent-after does nothing: no rule has silent_for, so no silence is watched"
        );
        return Ok(());
    };
    let longest = Duration::from_millis(longest.unsigned_abs());
    let say = humantime::format_duration;
    anyhow::ensure!(
        after >= longest,
        "--forget-silent-after {} is shorter than the longest silent_for of the rules, {longest}: a generator would be forgotten \
         before its silence is reported; give {longest} or more",
        say(after),
        longest = say(longest)
    );
    Ok(())
}

fn work_of(text: &str) -> Result<(String, Duration), String> {
    let (generator, cost) = text.split_once('=').ok_or("expected ID=DURATION, such as generator7=5s")?;
    Ok((generator.to_owned(), super::duration(cost)?))
}

fn some_time(text: &str) -> Result<Duration, String> {
    match super::duration(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        time => Ok(time),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("a number from 0 to 1".to_owned()),
    }
}
