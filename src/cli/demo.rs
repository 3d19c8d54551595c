//! `genwatch demo`: the whole system in one process.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::dashboard::{PageOptions, failure};
use crate::dashboard::DashboardError;
use crate::demo::{DemoConfig, DemoReport, WINDOW};

/// Show the whole system in one process; needs nothing else.
///
/// Runs an embedded broker (librdkafka's mock cluster), a simulated fleet, workers in one consumer group, and a
/// downsampler. Alerts
/// are printed as they happen; one worker is added and one removed on the way. The dashboard shows it all in a browser.
/// At the end it prints what was verified.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Number of workers at the start.
    #[arg(long, default_value_t = 3, env = "GENWATCH_REPLICAS", value_parser = clap::value_parser!(u32).range(1..=32))]
    replicas: u32,

    /// Number of generators that report.
    #[arg(long, default_value_t = 200, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    generators: u32,

    /// Readings a second.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_RATE", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rate: u32,

    /// How long readings are sent. Default: until Ctrl-C.
    #[arg(long, value_parser = super::duration, env = "GENWATCH_DURATION")]
    duration: Option<Duration>,

    /// Partitions of each topic.
    #[arg(long, default_value_t = 12, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=128))]
    partitions: i32,

    /// Seed of the simulated fleet.
    #[arg(long, default_value_t = 1, env = "GENWATCH_SEED")]
    seed: u64,

    #[command(flatten)]
    page: PageOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = super::stop_on_signals()?;
    let (http, http_is_chosen) = options.page.address()?;
    let config = DemoConfig {
        replicas: options.replicas as usize,
        generators: options.generators,
        rate: options.rate,
        duration: options.duration,
        seed: options.seed,
        partitions: options.partitions,
        http,
        http_is_chosen,
        http_token: options.page.token()?,
    };
    let report =
        crate::demo::run(&config, &stop).map_err(|error| match error.downcast::<DashboardError>() {
            Ok(error) => failure(error),
            Err(error) => error.into(),
        })?;
    print(&report)?;
    if report.is_right() {
        Ok(())
    } else {
        Err(anyhow::anyhow!("the demo did not keep its promises: see above").into())
    }
}

fn print(report: &DemoReport) -> std::io::Result<()> {
    let mark = |right: bool| if right { "ok" } else { "WRONG" };
    let alerts = &report.alerts;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nverified:")?;
    writeln!(
        out,
        "  [{}] readings sent {} = processed {}, across {} rebalances",
        mark(report.sent == report.processed),
        report.sent,
        report.processed,
        report.rebalances
    )?;
    writeln!(
        out,
        "  [{}] order kept per generator: {} readings out of order",
        mark(report.out_of_order == 0),
        report.out_of_order
    )?;
    writeln!(
        out,
        "  [{}] alerts {} = those of a serial evaluation {}; {} generators differ, {} events repeated",
        mark(alerts.is_right()),
        alerts.made,
        alerts.expected,
        alerts.differing,
        alerts.repeated
    )?;
    let windows = &report.windows;
    writeln!(
        out,
        "  [{}] {} aggregates of {} windows count {} = readings in these windows {}{}; {} missing, {} repeated",
        mark(windows.is_right()),
        windows.aggregates,
        humantime::format_duration(WINDOW),
        windows.counted,
        windows.readings,
        if windows.late > 0 { format!(" - {} late", windows.late) } else { String::new() },
        windows.missing,
        windows.repeated
    )
}
