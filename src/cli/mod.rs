//! The command line: options, logs, signals, exit codes. One thin file per command.

mod alerts;
mod bench;
mod bridge;
mod completions;
mod dashboard;
mod demo;
mod downsample;
mod health;
mod influx;
mod logging;
mod member;
mod mqtt;
mod options;
mod signals;
mod simulate;
mod sink;
mod source;
mod status;
mod terminal;
mod topics;
mod transform;
mod worker;

pub(crate) use alerts::line as alert_line;
use options::{ClusterOptions, brokers, duration};
use signals::stop_on_signals;
pub(crate) use terminal::printable;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Context as _;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde::Serialize;

use crate::service::http::HttpAddress;
use crate::service::panic::end_at_a_panic;
use crate::service::{self, Context, stderr};
use logging::LogFormat;

/// Watches emergency generators: the horizontally scalable consumer of their telemetry in Apache Kafka.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 130/143/129 for a second SIGINT/SIGTERM/SIGHUP (the
/// first one drains and exits 0). Logs go to stderr (RUST_LOG sets the level), results to stdout. Every option is also
/// an environment variable GENWATCH_<OPTION>; for options without a value, 1, true, yes or on switch it on, and 0,
/// false, no or off switch it off.
#[derive(Debug, Parser)]
#[command(name = "genwatch", version = version(), max_term_width = 110)]
struct Cli {
    /// Format of log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "GENWATCH_LOG_FORMAT", global = true)]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Options),
    Topics(topics::Options),
    Simulate(simulate::Options),
    Worker(worker::Options),
    Downsample(downsample::Options),
    Alerts(alerts::Options),
    Status(status::Options),
    Bridge(bridge::Options),
    Sink(sink::Options),
    Source(source::Options),
    Dashboard(dashboard::Options),
    Health(health::Options),
    Bench(bench::Options),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// Why a command failed; decides the exit code.
#[derive(Debug)]
enum Failure {
    /// Exit code 2: the command line, a file that it names, or the environment.
    Usage(anyhow::Error),
    /// Exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Failure {
        Failure::Usage(error.into())
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(error.into())
    }
}

/// Bugs often depend on librdkafka's version, so our version shows it.
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!("{} (librdkafka {})", env!("CARGO_PKG_VERSION"), genwatch_kafka::librdkafka_version())
    });
    &VERSION
}

/// Runs the command given by the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = parse();
    // Log lines would tear the demo's table apart; it reports rebalances itself.
    let usual_level = if matches!(cli.command, Command::Demo(_)) { "warn" } else { "info" };
    let result = logging::start(cli.log_format, usual_level).and_then(|()| run(cli.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            stderr::say(format_args!("genwatch: {error:#}"));
            ExitCode::from(2)
        }
        // The reader of our output has closed the pipe: `genwatch alerts | head`.
        Err(Failure::Failed(error)) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => {
            stderr::say(format_args!("genwatch: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Cli {
    let parsed = options::flags_by_environment(Cli::command()).try_get_matches();
    parsed
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .unwrap_or_else(|error| without_credentials(error).exit())
}

/// clap repeats an invalid value, even a URL with a password in it.
fn without_credentials(mut error: clap::Error) -> clap::Error {
    let shown: Vec<(ContextKind, String)> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, options::without_credentials(text)?)),
            _ => None,
        })
        .collect();
    for (kind, text) in shown {
        error.insert(kind, ContextValue::String(text));
    }
    error
}

fn run(command: Command) -> Result<(), Failure> {
    end_at_a_panic();
    match command {
        Command::Demo(options) => demo::run(&options),
        Command::Topics(options) => topics::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Worker(options) => worker::run(&options),
        Command::Downsample(options) => downsample::run(&options),
        Command::Alerts(options) => alerts::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Bridge(options) => bridge::run(&options),
        Command::Sink(options) => sink::run(&options),
        Command::Source(options) => source::run(&options),
        Command::Dashboard(options) => dashboard::run(&options),
        Command::Health(options) => health::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Completions(options) => completions::print_completions(&options),
        Command::Man(options) => completions::write_man_pages(&options),
    }
}

/// Whether writing failed because the reader is gone, however deep in the error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |kind: std::io::ErrorKind| kind == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| broken(error.kind()))
            || cause
                .downcast_ref::<serde_json::Error>()
                .and_then(serde_json::Error::io_error_kind)
                .is_some_and(broken)
    })
}

/// Runs a service until a signal or its end, with HTTP if requested, and prints its summary.
fn run_service<S: Serialize>(
    http: Option<&HttpAddress>,
    run: impl FnOnce(Context) -> Result<S, Failure>,
) -> Result<(), Failure> {
    let context = Context::stopped_by(stop_on_signals()?);
    if let Some(address) = http {
        serve(address, &context)?;
    }
    print_summary(&run(context)?)?;
    Ok(())
}

/// Serves `--http` and logs the address.
fn serve(address: &HttpAddress, context: &Context) -> anyhow::Result<()> {
    let bound = service::http::serve(address, context)
        .with_context(|| format!("cannot listen on --http {address}"))?;
    tracing::info!(address = %bound, "serving /metrics, /livez and /readyz");
    Ok(())
}

/// Prints the summary as one JSON document.
fn print_summary(summary: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, summary)?;
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::options::flags_by_environment(super::Cli::command()).debug_assert();
    }

    #[test]
    fn a_broken_pipe_is_known_by_any_name() {
        let pipe = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(super::is_broken_pipe(&pipe().into()));
        assert!(super::is_broken_pipe(&serde_json::Error::io(pipe()).into()));
        assert!(super::is_broken_pipe(&anyhow::Error::from(pipe()).context("printing")));
        assert!(!super::is_broken_pipe(&std::io::Error::from(std::io::ErrorKind::StorageFull).into()));
    }
}
