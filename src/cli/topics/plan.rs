//! `genwatch topics plan`: measures a group, or one worker on topics of its own, and tells what binds and what to run.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use genwatch_bench::calibrate::{self, CalibrationConfig};
use genwatch_core::plan::{self, Measurements, Plan};
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::group::Group;
use genwatch_kafka::measure::{Subject, arrival, has_workers, measure};
use indicatif::ProgressBar;

use super::plan_table;
use crate::cli::bench::{progress, worker};
use crate::cli::{ClusterOptions, Failure};

/// The partitions of a topic that doesn't exist yet.
const PARTITIONS: usize = 12;

/// How long the readings that arrive are counted if there is no group to measure.
const COUNT_FOR: Duration = Duration::from_secs(5);

/// Measure how much the group can process, name the limit that binds, and recommend partitions and workers.
///
/// While workers of --group run, they are measured for --for: nothing is started, nothing is changed. Without any, one
/// worker is calibrated: it works off a backlog on topics of its own, which are deleted afterwards; that takes up to a
/// minute, and it needs this machine for itself. docs/planning.md explains the method and how to read the answer.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Readings a second to plan for. Default: what arrives while it is measured.
    #[arg(long, value_name = "RATE", value_parser = rate, env = "GENWATCH_TARGET_RATE")]
    target_rate: Option<f64>,

    /// How long to measure.
    #[arg(long = "for", default_value = "30s", value_name = "DURATION", value_parser = span, env = "GENWATCH_FOR")]
    span: Duration,

    /// Print one JSON document.
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    /// Calibration: work per reading, as of `worker --work`.
    #[arg(long, default_value = "0s", value_parser = crate::cli::duration, env = "GENWATCH_WORK")]
    work: Duration,

    /// Calibration: further options of the worker, separated by spaces: "--concurrency 1 --rules FILE".
    #[arg(
        long,
        default_value = "",
        value_name = "OPTIONS",
        allow_hyphen_values = true,
        env = "GENWATCH_WORKER"
    )]
    worker: String,

    /// Calibration: generators that report.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..))]
    generators: u32,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = crate::cli::stop_on_signals()?;
    let bar = progress();
    let planned = plan(options, &stop, &bar);
    bar.finish_and_clear();
    let (measurements, planned) = planned?;
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer(&mut out, &planned)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", plan_table::table(&measurements, &planned))?;
    }
    out.flush()?;
    Ok(())
}

/// What was measured, and the plan that it leads to.
type Planned = (Measurements, Plan);

fn plan(options: &Options, stop: &AtomicBool, bar: &ProgressBar) -> Result<Planned, Failure> {
    let connection = options.cluster.connection()?;
    let topics = options.cluster.topics();
    let cluster = Cluster::connect(&connection)?;
    let partitions = cluster.topic(&topics.readings)?.map(|info| info.partitions.len());
    let subject = Subject {
        connection: &connection,
        cluster: &cluster,
        group: &options.cluster.group,
        topic: &topics.readings,
        workers: &topics.workers,
    };
    if partitions.is_some() && has_members(subject)? {
        return plan_group(options, subject, stop, bar);
    }
    tracing::info!(
        group = options.cluster.group,
        "the group has no workers: calibrating one on topics of its own"
    );
    let target_rate = match options.target_rate {
        None if partitions.is_some() => Some(arrival(subject, COUNT_FOR, |_| !stop.load(Ordering::Relaxed))?),
        asked => asked,
    };
    let config = CalibrationConfig {
        connection: connection.clone(),
        worker: worker("genwatch", &options.worker)?,
        work: options.work,
        partitions: i32::try_from(partitions.unwrap_or(PARTITIONS)).unwrap_or(i32::MAX),
        generators: options.generators,
        span: options.span,
    };
    let seen = calibrate::run(&config, stop, &|words, done, of| {
        bar.set_message(words.to_owned());
        bar.set_length(of);
        bar.set_position(done);
    })?;
    let measurements = seen.measurements();
    let planned = plan::plan(&measurements, target_rate)?;
    Ok((measurements, planned))
}

/// The coordinator knows no owners while the group rebalances, and a worker that has just begun has said nothing yet.
fn has_members(subject: Subject<'_>) -> Result<bool, Failure> {
    if has_workers(subject)? {
        return Ok(true);
    }
    let Subject { connection, cluster, group, topic, .. } = subject;
    Ok(!Group::new(connection, cluster, group, topic)?.owners()?.is_empty())
}

fn plan_group(
    options: &Options,
    subject: Subject<'_>,
    stop: &AtomicBool,
    bar: &ProgressBar,
) -> Result<Planned, Failure> {
    let (group, span) = (subject.group, options.span);
    let begun = Instant::now();
    bar.set_message(format!("measuring the group {group} for {}", humantime::format_duration(span)));
    bar.set_length(span.as_secs().max(1));
    let seen = measure(subject, span, |_| {
        bar.set_position(begun.elapsed().as_secs());
        !stop.load(Ordering::Relaxed)
    })?;
    if stop.load(Ordering::Relaxed) {
        return Err(anyhow::anyhow!("stopped before there was anything to say").into());
    }
    let measurements = seen.measurements();
    match plan::plan(&measurements, options.target_rate) {
        Ok(planned) => Ok((measurements, planned)),
        Err(error) => {
            Err(anyhow::anyhow!("{error}: {group} is measured while its workers process readings").into())
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("readings a second, more than 0".to_owned()),
    }
}

fn span(text: &str) -> Result<Duration, String> {
    let span = crate::cli::duration(text)?;
    if span < Duration::from_secs(3) {
        return Err("at least 3s: workers say once a second what they do".to_owned());
    }
    Ok(span)
}
