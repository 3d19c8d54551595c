//! `genwatch downsample`: windowed aggregates, back into a topic.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use genwatch_core::aggregate::downsampler::{Downsampler, Input};
use genwatch_core::aggregate::{Aggregator, Late};
use genwatch_core::alarm::rules::Rules;
use genwatch_kafka::clock::millis;

use super::member::{MemberOptions, failure};
use super::{ClusterOptions, Failure};
use crate::downsample::{self, group_name, topics};

/// Aggregate the readings of each generator by windows of event time into <TOPIC>_1m, exactly once.
///
/// Count, min, max, mean, last and percentiles of each field, seconds above each threshold rule, fuel used and hours of
/// fuel left. A window closes when the latest reading of its partition is --grace past its end, and a silent
/// partition's last one by the clock after that. Start as many as needed: they share the partitions as the consumer
/// group <GROUP>_1m, separate from the workers', and keep the open windows in <GROUP>_1m_state. Missing topics of
/// aggregates and states are created. Bad readings are left out and counted: the workers keep them. SIGTERM stores what
/// is open; at the end one JSON summary is printed.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The length of a window; it is aligned to the epoch, and names the topic: 1h makes <TOPIC>_1h.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = super::duration, env = "GENWATCH_WINDOW")]
    window: Duration,

    /// How long after its end a window takes late readings, in event time.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::duration, env = "GENWATCH_GRACE")]
    grace: Duration,

    /// What to do with a reading whose window is closed: drop and count it, or correct the window and write it once
    /// more, with a revision.
    #[arg(long, value_enum, default_value_t = OnLate::Drop, env = "GENWATCH_LATE")]
    late: OnLate,

    /// With --late correct: how far the partition's latest reading may be past the end of a window that is corrected.
    /// Each generator's closed windows are kept for that long.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = super::duration, env = "GENWATCH_CORRECT_WITHIN")]
    correct_within: Duration,

    /// Make these windows of smaller ones: --from 1m --window 1h reads <TOPIC>_1m. Equal to what the readings give, as
    /// long as none is late.
    #[arg(long, value_name = "DURATION", value_parser = super::duration, env = "GENWATCH_FROM")]
    from: Option<Duration>,

    /// The topic of the aggregates. Default: <TOPIC>_<WINDOW>.
    #[arg(long, value_name = "TOPIC", env = "GENWATCH_TO_TOPIC")]
    to_topic: Option<String>,

    /// The rules whose raise conditions are timed, a TOML file. Default: low_fuel and over_temperature, as of worker.
    #[arg(long, value_name = "FILE", env = "GENWATCH_RULES")]
    rules: Option<PathBuf>,

    /// Time between commits while no window closes. Each commit writes the windows that have changed, so that the next
    /// owner of a partition reads again what came in this time, and no more.
    #[arg(long, default_value = "5s", value_parser = super::duration, env = "GENWATCH_COMMIT_INTERVAL")]
    commit_interval: Duration,

    #[command(flatten)]
    member: MemberOptions,

    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnLate {
    Drop,
    Correct,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let rules = match &options.rules {
        Some(path) => Rules::load(path).map_err(Failure::usage)?,
        None => Rules::default(),
    };
    let late = match options.late {
        OnLate::Drop => Late::Drop,
        OnLate::Correct => Late::Correct { within: millis(options.correct_within) },
    };
    let (window, grace) = (millis(options.window), millis(options.grace));
    let aggregator = Aggregator::new(window, grace, late, &rules).map_err(Failure::usage)?;
    if let Some(from) = options.from {
        check_cascade(from, options.window).map_err(Failure::usage)?;
    }
    let (topic, base) = (&options.cluster.topic, &options.cluster.group);
    let group = group_name(base, options.window);
    let topics = topics(topic, base, options.from, options.window, options.to_topic.as_deref());
    let connection = options.cluster.connection()?;
    options.member.check(&connection, &group)?;
    let config = options.member.worker(connection, topics, &group, base, options.commit_interval);
    let input = match options.from {
        None => Input::Readings,
        Some(from) => Input::Aggregates { window: millis(from) },
    };
    super::run_service(options.member.http.as_ref(), |context| {
        downsample::run(config, Downsampler::new(aggregator, input), context).map_err(failure)
    })
}

fn check_cascade(from: Duration, window: Duration) -> anyhow::Result<()> {
    let (small, large) = (from.as_millis(), window.as_millis());
    anyhow::ensure!(
        small > 0 && small < large && large % small == 0,
        "--from {} doesn't divide --window {}: a window is made of whole smaller ones",
        humantime::format_duration(from),
        humantime::format_duration(window)
    );
    Ok(())
}
