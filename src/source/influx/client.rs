//! Asks InfluxDB for the rows of a range, over kept-alive connections.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use ureq::http::header;

use super::annotated_csv::{self, CsvError};
use super::json_lines::{self, LinesError};
use super::query::Query;
use crate::influx::answer::{reason, seconds};
use crate::influx::http::{InfluxConfigError, Token, agent, distrust};
use crate::source::record::{Cell, Column, RecordShape, RowError, SourceRow};
use crate::source::slices::Slice;
use crate::source::time::Nanos;

/// How long the server may think about a query before its answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a query may take in all.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The rest of a longer refusal isn't read.
const REFUSAL_BYTES: u64 = 64 * 1024;

/// Why there is no complete answer.
#[derive(Debug)]
pub enum AskError {
    /// Ask again later.
    Wait {
        /// The delay, if the server names one.
        after: Option<Duration>,
        /// The server's reason, or the connection's.
        reason: String,
    },
    /// The query failed, in the server's words.
    Query(String),
    /// Asking again doesn't help.
    Refused(Refused),
    /// The asker has gone.
    Left,
}

/// Why no question is answered.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It requires a token.
    #[error("InfluxDB at {url} wants a token ({reason}): pass --token or --token-file")]
    NoToken {
        /// As given by `--url`.
        url: String,
        /// Its answer.
        reason: String,
    },
    /// It doesn't know the token, or the token may not read.
    #[error(
        "InfluxDB at {url} does not let our token read ({reason}): give it read access to what the query reads, or look \
         at --token, --org and --url"
    )]
    Forbidden {
        /// As given by `--url`.
        url: String,
        /// Its answer.
        reason: String,
    },
    /// What the query reads doesn't exist.
    #[error(
        "InfluxDB at {url} does not find what is asked for ({reason}): it does not exist, or --token may not read it; look \
         at --query, --org, --database and --url"
    )]
    NotFound {
        /// As given by `--url`.
        url: String,
        /// Its answer.
        reason: String,
    },
    /// The query is wrong.
    #[error("the query failed: {reason}")]
    Query {
        /// What InfluxDB says of it.
        reason: String,
    },
    /// Its identity can't be verified.
    #[error(
        "InfluxDB at {url} is not to be trusted, so nothing was sent ({reason}): name the CA of its certificate with \
         --ca-file, and look at the host name in --url"
    )]
    Untrusted {
        /// As given by `--url`.
        url: String,
        /// The TLS error.
        reason: String,
    },
    /// It isn't InfluxDB.
    #[error("what is at {url} does not answer as InfluxDB does ({reason}): look at --url")]
    Unexpected {
        /// As given by `--url`.
        url: String,
        /// Its answer.
        reason: String,
    },
    /// Its rows make no records.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The query doesn't keep to its range.
    #[error(
        "the query returned a row of {time}, but was asked for {} to {}: its rows would come again and again; let it \
         read from v.timeRangeStart to v.timeRangeStop ($__timeFrom to $__timeTo in SQL) and keep the time of its rows",
        asked.start, asked.stop
    )]
    OutOfRange {
        /// The row's time.
        time: Nanos,
        /// What was asked for.
        asked: Slice,
    },
}

/// The client.
pub struct QueryClient {
    agent: ureq::Agent,
    url: String,
    query: Query,
    window: Option<Duration>,
    token: Option<Token>,
    shape: RecordShape,
}

impl QueryClient {
    /// Creates a client, without connecting. `window` is what the ranges are aligned to.
    ///
    /// # Errors
    /// When the address is invalid, or there are no certificates to trust.
    pub fn new(
        url: &str,
        ca_file: Option<&Path>,
        token: Option<Token>,
        query: Query,
        window: Option<Duration>,
        shape: RecordShape,
    ) -> Result<QueryClient, InfluxConfigError> {
        let agent = agent(url, ca_file, TIMEOUT)?;
        Ok(QueryClient { agent, url: url.to_owned(), query, window, token, shape })
    }

    /// Returns the address, as given.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a digest of the query.
    #[must_use]
    pub fn digest(&self) -> String {
        self.query.digest()
    }

    /// Asks for the rows of a range, and passes each as a record to `each` until it breaks off.
    ///
    /// # Errors
    /// When the answer isn't complete.
    pub fn ask(
        &self,
        range: Slice,
        mut each: impl FnMut(SourceRow) -> ControlFlow<()>,
    ) -> Result<(), AskError> {
        let endpoint = format!("{}{}", self.url.trim_end_matches('/'), self.query.path());
        let mut request = self
            .agent
            .post(&endpoint)
            .config()
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .build()
            .header(header::CONTENT_TYPE, "application/json");
        if let Query::Flux { org, .. } = &self.query {
            request = request.query("org", org).header(header::ACCEPT, "application/csv");
        }
        if let Some(token) = &self.token {
            let header_value = match &self.query {
                Query::Flux { .. } => token.header(),
                Query::Sql { .. } => token.bearer(),
            };
            request = request.header(header::AUTHORIZATION, header_value);
        }
        let body = self.query.body(range, self.window).to_string();
        let mut answer = request.send(&body).map_err(|error| self.no_answer(&error))?;
        let status = answer.status().as_u16();
        if status != 200 {
            let words =
                answer.body_mut().with_config().limit(REFUSAL_BYTES).lossy_utf8(true).read_to_string();
            let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            return Err(self.refusal(status, after.and_then(seconds), &words.unwrap_or_default()));
        }
        let rows = answer.into_body().into_reader();
        let take = |columns: &[Column], cells: &[Cell<'_>]| -> Result<(), AskError> {
            let row = self.shape.record(columns, cells).map_err(Refused::Row)?;
            // A window that ends with the range has its time.
            if row.time < range.start || row.time > range.stop {
                return Err(Refused::OutOfRange { time: row.time, asked: range }.into());
            }
            match each(row) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(AskError::Left),
            }
        };
        match &self.query {
            Query::Flux { .. } => annotated_csv::read(rows, take),
            Query::Sql { .. } => json_lines::read(rows, take),
        }
        .map_err(|error| self.without_token(error))
    }

    fn no_answer(&self, error: &ureq::Error) -> AskError {
        match distrust(error) {
            Some(reason) => Refused::Untrusted { url: self.url.clone(), reason }.into(),
            None => AskError::Wait { after: None, reason: error.to_string() },
        }
    }

    fn refusal(&self, status: u16, after: Option<Duration>, words: &str) -> AskError {
        let reason = reason(status, &self.hidden(words));
        let url = self.url.clone();
        let is_ours = serde_json::from_str::<serde_json::Map<_, _>>(words).is_ok();
        match status {
            400 | 422 if is_ours => AskError::Query(reason),
            401 if self.token.is_none() => Refused::NoToken { url, reason }.into(),
            401 | 403 => Refused::Forbidden { url, reason }.into(),
            404 => Refused::NotFound { url, reason }.into(),
            408 | 429 | 500..=599 => AskError::Wait { after, reason },
            _ => Refused::Unexpected { url, reason }.into(),
        }
    }

    fn hidden(&self, words: &str) -> String {
        self.token.as_ref().map_or_else(|| words.to_owned(), |token| token.hidden_in(words))
    }

    fn without_token(&self, error: AskError) -> AskError {
        match error {
            AskError::Query(reason) => AskError::Query(self.hidden(&reason)),
            AskError::Wait { after, reason } => AskError::Wait { after, reason: self.hidden(&reason) },
            other => other,
        }
    }
}

impl From<Refused> for AskError {
    fn from(refused: Refused) -> AskError {
        AskError::Refused(refused)
    }
}

impl From<CsvError> for AskError {
    fn from(error: CsvError) -> AskError {
        match error {
            CsvError::Query(reason) => AskError::Query(reason),
            // A proxy's page, or an answer that was cut: the next one may be right.
            CsvError::Broken(_) | CsvError::Malformed(_) => {
                AskError::Wait { after: None, reason: error.to_string() }
            }
        }
    }
}

impl From<LinesError> for AskError {
    fn from(error: LinesError) -> AskError {
        match error {
            LinesError::Query(reason) => AskError::Query(reason),
            LinesError::Broken(_) => AskError::Wait { after: None, reason: error.to_string() },
        }
    }
}
