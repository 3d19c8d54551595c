//! HTTP to an InfluxDB: the agent, its TLS, the token.
//!
//! The token is only in here and in the requests: never in a message, never shown by `Debug`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderValue, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// A server that doesn't accept our connection within this counts as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The token that grants access. Not shown by `Debug`.
#[derive(Clone)]
pub struct Token {
    header: HeaderValue,
    bearer: HeaderValue,
    text: String,
}

impl Token {
    /// Takes the token as InfluxDB issues it.
    ///
    /// # Errors
    /// When no HTTP header can hold it.
    pub fn new(token: &str) -> Result<Token, InfluxConfigError> {
        let header = |scheme: &str| {
            let header = HeaderValue::try_from(format!("{scheme} {token}"));
            let mut header = header.map_err(|_| InfluxConfigError::Token)?;
            header.set_sensitive(true);
            Ok(header)
        };
        if token.is_empty() {
            return Err(InfluxConfigError::Token);
        }
        Ok(Token { header: header("Token")?, bearer: header("Bearer")?, text: token.to_owned() })
    }

    /// Returns the token as a request header of InfluxDB 2.
    #[must_use]
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Returns the token as a request header of InfluxDB 3.
    #[must_use]
    pub fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }

    /// Removes the token from an answer: a server might echo it.
    #[must_use]
    pub fn hidden_in(&self, words: &str) -> String {
        words.replace(&self.text, "<token>")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why the options for InfluxDB were refused.
#[derive(Debug, thiserror::Error)]
pub enum InfluxConfigError {
    /// Not an address. Not shown: it may contain a password.
    #[error(
        "--url: expected http://HOST:PORT or https://HOST:PORT, and a path if there is one in front of /api/v2"
    )]
    Url,
    /// The address contains a password.
    #[error("--url: no user or password here; use --token or --token-file")]
    Login,
    /// A token that no HTTP header can hold.
    #[error("the token is empty or has characters that no token has")]
    Token,
    /// A file can't be read.
    #[error("{option} {}", path.display())]
    File {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// A file without certificates.
    #[error("--ca-file {}: there is no certificate in it (PEM is expected)", .0.display())]
    NoCertificate(PathBuf),
    /// A CA without TLS.
    #[error("--ca-file is for https://; --url has no TLS")]
    CaWithoutTls,
    /// The system has no certificates to trust.
    #[error("this system has no certificates to trust ({0}); name some with --ca-file")]
    NoCertificates(String),
}

/// Creates an HTTP client for this address, which must be InfluxDB's.
///
/// # Errors
/// When the address is invalid, or there are no certificates to trust.
pub fn agent(url: &str, ca_file: Option<&Path>, timeout: Duration) -> Result<ureq::Agent, InfluxConfigError> {
    let base = url.trim_end_matches('/');
    let uri: Uri = base.parse().map_err(|_| InfluxConfigError::Url)?;
    let authority = uri.authority().ok_or(InfluxConfigError::Url)?;
    if authority.as_str().contains('@') {
        return Err(InfluxConfigError::Login);
    }
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(InfluxConfigError::Url),
    };
    if uri.query().is_some() || base.contains('#') || authority.host().is_empty() {
        return Err(InfluxConfigError::Url);
    }
    let mut config = ureq::Agent::config_builder()
        // Keep the body of an error: it has the reason.
        .http_status_as_error(false)
        // A redirected write would be a GET elsewhere.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("genwatch/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(timeout));
    match (secure, ca_file) {
        (true, ca_file) => config = config.tls_config(tls(ca_file)?),
        (false, Some(_)) => return Err(InfluxConfigError::CaWithoutTls),
        (false, None) => {}
    }
    Ok(config.build().new_agent())
}

/// Returns why the server can't be trusted, if TLS failed.
#[must_use]
pub fn distrust(error: &ureq::Error) -> Option<String> {
    let error = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    let certain = matches!(
        error,
        rustls::Error::InvalidCertificate(_)
            | rustls::Error::InvalidMessage(_)
            | rustls::Error::AlertReceived(_)
    );
    certain.then(|| error.to_string())
}

fn tls(ca_file: Option<&Path>) -> Result<TlsConfig, InfluxConfigError> {
    let roots: Vec<Certificate<'static>> = match ca_file {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|error| InfluxConfigError::File {
                option: "--ca-file",
                path: path.to_owned(),
                error,
            })?;
            let certificate = |item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            };
            parse_pem(&pem).filter_map(certificate).collect()
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            if native.certs.is_empty() {
                let errors = native.errors.iter().map(ToString::to_string).collect::<Vec<_>>();
                return Err(InfluxConfigError::NoCertificates(errors.join("; ")));
            }
            native.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
        }
    };
    if let (true, Some(path)) = (roots.is_empty(), ca_file) {
        return Err(InfluxConfigError::NoCertificate(path.to_owned()));
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}
