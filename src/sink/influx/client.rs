//! A client of InfluxDB v2's write API, with kept-alive connections.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::http::header;

use super::line_protocol::Precision;
use super::response::{Verdict, judge};
use crate::influx::http::{InfluxConfigError, Token, agent, distrust};

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
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        let mut answer = request.send(&body[..])?;
        // Read to the end, so that the connection can be reused. An answer that breaks off still has its status.
        let words = answer.body_mut().with_config().limit(ANSWER_BYTES).lossy_utf8(true).read_to_string();
        let words = words.unwrap_or_default();
        let words = self.token.as_ref().map_or(words.clone(), |token| token.hidden_in(&words));
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(judge(answer.status().as_u16(), retry_after, &words))
    }
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
