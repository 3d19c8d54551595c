//! `genwatch dashboard`: the web page about everything.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use genwatch_core::alarm::rules::Rules;
use secrecy::SecretString;

use super::{ClusterOptions, Failure};
use crate::dashboard::{DashboardConfig, DashboardError};
use crate::service::Context;
use crate::service::http::HttpAddress;

/// Serve a web page: generators on a map, alarms, partitions and workers, and the way of the data, live.
///
/// Works from Kafka alone and only reads, so it can be started and stopped at any time, and several may run.
/// On an address that other machines reach it asks for a token. It also serves /metrics, /livez and /readyz.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Rules whose thresholds are drawn (TOML): the same file as the workers'. Default: the built-in rules.
    #[arg(long, value_name = "FILE", env = "GENWATCH_RULES")]
    rules: Option<PathBuf>,

    /// How far the time machine goes back: so much of the readings is read at the start, in the background.
    #[arg(long, default_value = "24h", value_parser = super::duration, env = "GENWATCH_HISTORY")]
    history: Duration,

    #[command(flatten)]
    page: PageOptions,

    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Where the page is, and who may look.
#[derive(Clone, Debug, Args)]
pub(super) struct PageOptions {
    /// Serve the page here [default: localhost:8090].
    #[arg(long, value_name = "HOST:PORT", env = "GENWATCH_HTTP")]
    http: Option<HttpAddress>,

    /// What clients must know: required where other machines reach the page.
    #[arg(
        long,
        value_name = "TOKEN",
        allow_hyphen_values = true,
        env = "GENWATCH_HTTP_TOKEN",
        hide_env_values = true,
        conflicts_with = "http_token_file"
    )]
    http_token: Option<SecretString>,

    /// A file with the token: other users of the machine can see a command line.
    #[arg(long, value_name = "FILE", env = "GENWATCH_HTTP_TOKEN_FILE")]
    http_token_file: Option<PathBuf>,
}

impl PageOptions {
    /// Returns where to listen, and whether the user said so.
    pub(super) fn address(&self) -> Result<(HttpAddress, bool), Failure> {
        match &self.http {
            Some(address) => Ok((address.clone(), true)),
            None => Ok((
                "localhost:8090".parse().map_err(|error: String| Failure::usage(anyhow::anyhow!(error)))?,
                false,
            )),
        }
    }

    /// Returns the token.
    pub(super) fn token(&self) -> Result<Option<SecretString>, Failure> {
        let (token, origin) = match (&self.http_token, &self.http_token_file) {
            (Some(token), _) => (token.clone(), "--http-token".to_owned()),
            (None, Some(path)) => {
                let origin = format!("--http-token-file {}", path.display());
                let text = std::fs::read_to_string(path).context(origin.clone()).map_err(Failure::Usage)?;
                (text.trim().into(), origin)
            }
            (None, None) => return Ok(None),
        };
        use secrecy::ExposeSecret as _;
        if token.expose_secret().trim().is_empty() {
            return Err(Failure::usage(anyhow::anyhow!(
                "{origin}: the token is empty, so everybody would know it"
            )));
        }
        Ok(Some(token))
    }
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let rules = match &options.rules {
        Some(path) => Rules::load(path).map_err(Failure::usage)?,
        None => Rules::default(),
    };
    let config = DashboardConfig {
        connection: options.cluster.connection()?,
        topics: options.cluster.topics(),
        group: options.cluster.group.clone(),
        rules,
        history: options.history,
        http: options.page.address()?.0,
        token: options.page.token()?,
    };
    let context = Context::stopped_by(super::stop_on_signals()?);
    crate::dashboard::run(config, context).map_err(failure)
}

/// A mistake of the command line is no failure of the system.
pub(super) fn failure(error: DashboardError) -> Failure {
    match error {
        DashboardError::NeedsToken { .. } => Failure::usage(error),
        _ => Failure::from(error),
    }
}
