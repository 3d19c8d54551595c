//! `genwatch status`: the group's progress, partition by partition.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use genwatch_core::alarm::rules::Rules;
use genwatch_kafka::error::Chain;
use genwatch_kafka::group::GroupError;

use super::{ClusterOptions, Failure};
use crate::status::document::Status;
use crate::status::lines::print;
use crate::status::observer::{Subject, look_once, watch};
use crate::status::screen;

/// No sooner than this `--watch` prints the next status: every second one.
const PRINT_EVERY: Duration = Duration::from_millis(1500);
/// How often an outage is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Show the group's progress: per partition its owner, committed offset, end, lag, and a verdict.
///
/// Shows --topic, and the other topics that the group commits to: for a sink (--group genwatch_influx) alerts and
/// aggregates too.
///
/// Verdicts: OK (keeps up), BEHIND (makes progress, but the oldest waiting record is more than 10 s old), STALLED (has
/// records and an owner, but commits nothing), UNOWNED (has records, but no owner).
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// One JSON document (with --watch one a line).
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    /// Show it until stopped, with trend, rates and the time until the lag is gone; waits out an outage of Kafka. On a
    /// terminal it is a screen that is updated every second: s sorts, / filters, g shows a generator's last minutes, ?
    /// explains, q quits. Piped, or with --json, it is printed every two seconds, with the time.
    #[arg(long, env = "GENWATCH_WATCH")]
    watch: bool,

    /// The rules whose thresholds a generator's history shows (--watch): the workers' file. Default: the built-in ones.
    #[arg(long, env = "GENWATCH_RULES", value_name = "FILE")]
    rules: Option<PathBuf>,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let rules = match &options.rules {
        Some(path) => Rules::load(path).map_err(Failure::usage)?,
        None => Rules::default(),
    };
    let subject = Subject {
        connection: options.cluster.connection()?,
        topics: options.cluster.topics(),
        group: options.cluster.group.clone(),
    };
    let stop = super::stop_on_signals()?;
    if options.watch && !options.json && screen::terminal::is_there() {
        return Ok(screen::run(&subject, &rules, console::colors_enabled(), &stop)?);
    }
    print_looks(&looks(subject, options.watch)?, options.json, &stop)
}

fn print_looks(
    looks: &Receiver<Result<Status, GroupError>>,
    json: bool,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut printed: Option<Instant> = None;
    let mut complained: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let status = match looks.recv_timeout(Duration::from_millis(100)) {
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(Err(error)) if printed.is_some() => {
                if complained.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
                    tracing::warn!(reason = %Chain(&error), "the group's status is unknown: asking again");
                    complained = Some(Instant::now());
                }
                continue;
            }
            Ok(status) => status?,
        };
        complained = None;
        if printed.is_some_and(|at| at.elapsed() < PRINT_EVERY) {
            continue;
        }
        if json {
            serde_json::to_writer(&mut out, &status)?;
            writeln!(out)?;
        } else {
            if printed.is_some() {
                writeln!(out)?;
            }
            print(&mut out, &status)?;
        }
        out.flush()?;
        printed = Some(Instant::now());
    }
    Ok(())
}

/// Looks once, or repeatedly with `--watch`, on its own thread: a request may take ten seconds while Kafka is away, and
/// Ctrl-C must not wait for it. The thread ends when the receiver is gone, or with the process.
fn looks(subject: Subject, repeatedly: bool) -> std::io::Result<Receiver<Result<Status, GroupError>>> {
    // At most one is ahead of what is printed.
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new().name("looks".to_owned()).spawn(move || {
        if repeatedly {
            if let Err(error) = watch(&subject, |look| sender.send(look).is_ok()) {
                let _ = sender.send(Err(error));
            }
        } else {
            let _ = sender.send(look_once(&subject));
        }
    })?;
    Ok(receiver)
}
