//! A client of InfluxDB v2's write API, with kept-alive connections.
//!
//! The token is only in here and in the requests: never in a message, never shown by `Debug`.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::http::{HeaderValue, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::line_protocol::Precision;
use super::response::{Verdict, judge};

/// A server that doesn't accept our connection within this counts as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A write that isn't answered within this is repeated.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The rest of a longer answer isn't read.
const ANSWER_BYTES: u64 = 64 * 1024;

/// The target of points.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The address of InfluxDB: `http://HOST:PORT`, as given.
    pub url: String,
    /// The organization.
    pub org: String,
    /// The bucket.
    pub bucket: String,
    /// The unit of the points' times.
    pub precision: Precision,
}

/// The token that grants write access. Not shown by `Debug`.
#[derive(Clone)]
pub struct Token(HeaderValue, String);

impl Token {
    /// Takes the token as InfluxDB issues it.
    ///
    /// # Errors
    /// When no HTTP header can hold it.
    pub fn new(token: &str) -> Result<Token, InfluxConfigError> {
        let mut value =
            HeaderValue::try_from(format!("Token {token}")).map_err(|_| InfluxConfigError::Token)?;
        value.set_sensitive(true);
        if token.is_empty() { Err(InfluxConfigError::Token) } else { Ok(Token(value, token.to_owned())) }
    }

    /// Returns the token as a request header.
    #[must_use]
    pub fn header(&self) -> &HeaderValue {
        &self.0
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

/// The client, shared by the threads that write.
pub struct Client {
    agent: ureq::Agent,
    endpoint: String,
    destination: Destination,
    token: Option<Token>,
}

impl Client {
    /// Creates a client, without connecting.
    ///
    /// # Errors
    /// When the address is invalid, or there are no certificates to trust.
    pub fn new(
        destination: Destination,
        token: Option<Token>,
        ca_file: Option<&Path>,
    ) -> Result<Client, InfluxConfigError> {
        let agent = agent(&destination.url, ca_file, TIMEOUT)?;
        let endpoint = format!("{}/api/v2/write", destination.url.trim_end_matches('/'));
        Ok(Client { agent, endpoint, destination, token })
    }

    /// Returns the target of points.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Whether there is a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Writes these lines, and waits for the answer.
    #[must_use]
    pub fn write(&self, lines: &str) -> Verdict {
        match self.send(lines) {
            Ok(verdict) => verdict,
            Err(error) => match distrust(&error) {
                Some(reason) => Verdict::Untrusted(reason),
                None => Verdict::Wait { after: None, reason: error.to_string() },
            },
        }
    }

    fn send(&self, lines: &str) -> Result<Verdict, ureq::Error> {
        let mut body = GzEncoder::new(Vec::with_capacity(lines.len() / 4), Compression::fast());
        body.write_all(lines.as_bytes())?;
        let body = body.finish()?;
        let mut request = self
            .agent
            .post(&self.endpoint)
            .query("org", &self.destination.org)
            .query("bucket", &self.destination.bucket)
            .query("precision", self.destination.precision.as_str())
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .header(header::CONTENT_ENCODING, "gzip");
        if let Some(Token(header, _)) = &self.token {
            request = request.header(header::AUTHORIZATION, header);
        }
        let mut answer = request.send(&body[..])?;
        // Read to the end, so that the connection can be reused. An answer that breaks off still has its status.
        let words = answer.body_mut().with_config().limit(ANSWER_BYTES).lossy_utf8(true).read_to_string();
        let words = self.without_token(words.unwrap_or_default());
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(judge(answer.status().as_u16(), retry_after, &words))
    }

    /// Removes our token from an answer: a server might echo it.
    fn without_token(&self, words: String) -> String {
        match &self.token {
            Some(Token(_, token)) => words.replace(token, "<token>"),
            None => words,
        }
    }
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
fn distrust(error: &ureq::Error) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let destination = Destination {
            url: url.to_owned(),
            org: "o".to_owned(),
            bucket: "b".to_owned(),
            precision: Precision::Ms,
        };
        match Client::new(destination, None, None) {
            Ok(client) => format!("taken as {}", client.endpoint),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_address_may_have_a_path_and_nothing_else() {
        assert_eq!(refusal("http://localhost:8086"), "taken as http://localhost:8086/api/v2/write");
        assert_eq!(refusal("http://host/influx/"), "taken as http://host/influx/api/v2/write");
        for url in [
            "localhost:8086",
            "ftp://host",
            "http://",
            "",
            "http://host?org=a",
            "http://host/#x",
            "http://a b",
        ] {
            assert!(refusal(url).starts_with("--url: expected http://"), "{url}: {}", refusal(url));
        }
    }

    #[test]
    fn no_password_is_shown() {
        let said = refusal("http://user:hunter2@host");
        assert!(said.contains("--token") && !said.contains("hunter2"), "{said}");
        let token = Token::new("hunter2").expect("a token");
        assert!(!format!("{token:?}").contains("hunter2"));
        for token in ["", "hunter2\n", "hunter2\u{7f}"] {
            let said = Token::new(token).expect_err("no token").to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
