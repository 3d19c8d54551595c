//! Log lines and last words, on stderr.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::stderr;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging at the level that `RUST_LOG` says, else the usual one.
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

/// From now on a panic on any thread ends the process, with exit code 101: half a worker would be worse than none, and
/// nothing past it is committed. For a program that runs a worker by the library; [`super::main`] does it by itself.
pub fn end_at_a_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        stderr::say(format_args!(
            "genwatch: this is a bug; the process ends here, and nothing that was not finished is committed"
        ));
        std::process::exit(101);
    }));
}
