//! Log lines and final errors, on stderr.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::service::stderr;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging at the level of `RUST_LOG`, or else `usual_level`.
pub(super) fn start(format: LogFormat, usual_level: &str) -> Result<(), Failure> {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = if directives.trim().is_empty() { usual_level } else { &directives };
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::Usage(anyhow::anyhow!(
            "RUST_LOG={directives}: {error}; such as info, or warn,genwatch=debug"
        ))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| stderr::Lines)
        .log_internal_errors(false)
        .with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
