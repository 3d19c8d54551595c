//! The command line: options, logs, signals, exit codes. One file a command, each thin.

mod alerts;
mod bench;
mod bridge;
mod completions;
mod demo;
mod health;
mod mqtt;
mod simulate;
mod sink;
mod status;
mod topics;
mod worker;

pub(crate) use alerts::line as alert_line;

use std::ffi::c_int;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing_subscriber::EnvFilter;

use crate::health::Health;
use crate::kafka::config::Connection;
use crate::kafka::topics::Topics;

/// No option takes a longer time.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Watches emergency generators: the horizontally scalable consumer of their telemetry in Apache Kafka.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 130/143 for a second SIGINT/SIGTERM (the first one drains
/// and exits 0). Logs go to stderr (RUST_LOG sets the level), results to stdout. Every option is also an environment
/// variable GENWATCH_<OPTION>.
#[derive(Debug, Parser)]
#[command(name = "genwatch", version = version(), max_term_width = 110)]
struct Cli {
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "GENWATCH_LOG_FORMAT", global = true)]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Options),
    Topics(topics::Options),
    Simulate(simulate::Options),
    Worker(worker::Options),
    Alerts(alerts::Options),
    Status(status::Options),
    Bridge(bridge::Options),
    Sink(sink::Options),
    Health(health::Options),
    Bench(bench::Options),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// How to reach the cluster, and the names that all else derives from.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
struct ClusterOptions {
    /// Where Kafka is: host:port, several by commas.
    #[arg(short, long, default_value = "localhost:9092", env = "GENWATCH_BROKERS")]
    brokers: String,

    /// The topic of the readings; <TOPIC>_alerts and <TOPIC>_dlq derive from it.
    #[arg(short, long, default_value = "emergency_generators", env = "GENWATCH_TOPIC", value_parser = topic_name)]
    topic: String,

    /// The consumer group; <GROUP>_state derives from it.
    #[arg(short, long, default_value = "genwatch", env = "GENWATCH_GROUP", value_parser = topic_name)]
    group: String,

    /// Any librdkafka property, as key=value, or @FILE with one a line. May be repeated; in GENWATCH_X one a line.
    #[arg(short = 'X', value_name = "KEY=VALUE", env = "GENWATCH_X", hide_env_values = true)]
    properties: Vec<String>,
}

impl ClusterOptions {
    fn connection(&self) -> Result<Connection, Failure> {
        Connection::new(&self.brokers, &self.properties).map_err(Failure::usage)
    }

    fn topics(&self) -> Topics {
        Topics::new(&self.topic, &self.group)
    }
}

/// Why a command failed: decides the exit code.
#[derive(Debug)]
enum Failure {
    /// Exit code 2: the command line, a file that it names, the environment.
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

/// Bugs here often hang on librdkafka's version, so it is part of ours.
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!("{} (librdkafka {})", env!("CARGO_PKG_VERSION"), crate::kafka::librdkafka_version())
    });
    &VERSION
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Log lines would tear the demo's table apart; it tells of rebalances by itself.
    let usual_level = if matches!(cli.command, Command::Demo(_)) { "warn" } else { "info" };
    start_logging(cli.log_format, usual_level);
    end_at_a_panic();
    let result = match cli.command {
        Command::Demo(options) => demo::run(&options),
        Command::Topics(options) => topics::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Worker(options) => worker::run(&options),
        Command::Alerts(options) => alerts::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Bridge(options) => bridge::run(&options),
        Command::Sink(options) => sink::run(&options),
        Command::Health(options) => health::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Completions(options) => completions::print_completions(&options),
        Command::Man(options) => completions::write_man_pages(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            eprintln!("genwatch: {error:#}");
            ExitCode::from(2)
        }
        // Whoever reads our output has seen enough: `genwatch alerts | head`.
        Err(Failure::Failed(error)) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => {
            eprintln!("genwatch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn start_logging(format: LogFormat, usual_level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual_level));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// From now on a panic on any thread ends the process, with exit code 101: half a worker would be worse than none, and
/// nothing past it is committed. For whoever runs a worker by the library; [`main`] does it by itself.
pub fn end_at_a_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        eprintln!(
            "genwatch: this is a bug; the process ends here, and nothing that was not finished is committed"
        );
        std::process::exit(101);
    }));
}

/// A flag that the first SIGINT or SIGTERM sets; the second one ends the process with 130 or 143.
fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] as [(c_int, c_int); 2] {
        // In this order: the first signal finds the flag unset and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Serves `--http`, if it was given, and says where.
fn serve<M: Send + Sync + 'static>(
    address: Option<SocketAddr>,
    metrics: &Arc<M>,
    render: fn(&M) -> String,
    health: &Arc<Health>,
) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    let metrics = Arc::clone(metrics);
    let bound = crate::web::serve(address, move || render(&metrics), Arc::clone(health))
        .with_context(|| format!("cannot listen on --http {address}"))?;
    tracing::info!(address = %bound, "serving /metrics, /livez and /readyz");
    Ok(())
}

/// Prints what was done, as one JSON document.
fn print_summary(summary: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, summary)?;
    writeln!(out)?;
    Ok(())
}

/// A name that Kafka takes for a topic (and we for a group, as a topic derives from it), with room for our suffixes.
fn topic_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 240 || matches!(name, "." | "..") || !name.chars().all(allowed) {
        return Err("1 to 240 of the characters a-z A-Z 0-9 . _ -".to_owned());
    }
    Ok(name.to_owned())
}

/// A duration such as `500ms`, `20s`, `5m`; `0` too. At most a year: a point in time has to be able to hold it.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err("longer than a year".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error} (such as 500ms, 20s, 5m)")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
