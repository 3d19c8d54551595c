//! What `sink influx` and `source influx` need to be let in.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::Failure;
use crate::influx::http::Token;

/// A token as given. Not shown by `Debug`.
#[derive(Clone)]
pub(super) struct TokenText(String);

impl TokenText {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TokenText {
    fn from(text: &str) -> TokenText {
        TokenText(text.to_owned())
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText")
    }
}

/// The token, and whom to trust.
#[derive(Debug, Args)]
pub(super) struct AccessOptions {
    /// The API token.
    // One in 64 of InfluxDB's tokens begins with a hyphen.
    #[arg(
        long,
        allow_hyphen_values = true,
        env = "GENWATCH_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    token: Option<TokenText>,

    /// A file with the token: other users of the machine can see a command line.
    #[arg(long, value_name = "FILE", env = "GENWATCH_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// Trusted certificates for https://, in PEM. Default: those that this system trusts.
    #[arg(long, value_name = "FILE", env = "GENWATCH_CA_FILE")]
    ca_file: Option<PathBuf>,
}

impl AccessOptions {
    /// Reads the token, which is given as an option or in a file.
    pub(super) fn token(&self) -> Result<Option<Token>, Failure> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), _) => token.as_str().to_owned(),
            (None, Some(path)) => std::fs::read_to_string(path)
                .with_context(|| format!("--token-file {}", path.display()))
                .map_err(Failure::Usage)?,
            (None, None) => return Ok(None),
        };
        // Editors end a file with a line break.
        Token::new(text.trim_end_matches(['\r', '\n'])).map(Some).map_err(Failure::usage)
    }

    /// The file of the certificates to trust.
    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }
}
