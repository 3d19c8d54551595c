//! InfluxDB v2 as the store of a sink: readings, alerts and aggregates as points.
//!
//! * [`line_protocol`]: a record as a line. `transformed`: the same after `--transform`.
//! * [`client`]: the write API. [`response`]: the meaning of its answers.
//!
//! A point's identity is its measurement, tags and time, so a repeat overwrites itself.

pub mod client;
pub mod line_protocol;
pub mod response;
mod transformed;

use std::sync::Arc;

use genwatch_core::transform::Transform;

use super::store::{NotWritten, SourceRecord, Store, WriteAnswer};
use client::Client;
use line_protocol::PointShape;
use response::Verdict;

/// InfluxDB, and the shape of each topic's points there.
pub struct InfluxStore {
    client: Client,
    shapes: Vec<PointShape>,
    transformation: Option<Transformation>,
}

/// The steps that change records, and the names of the topics that the steps know them by.
struct Transformation {
    transform: Arc<Transform>,
    topics: Vec<String>,
}

impl InfluxStore {
    /// Creates a store with one shape for each topic of the sink, in its order.
    #[must_use]
    pub fn new(client: Client, shapes: Vec<PointShape>) -> InfluxStore {
        InfluxStore { client, shapes, transformation: None }
    }

    /// Changes records of these topics, which are those of the sink, before they become points.
    #[must_use]
    pub fn transforming(self, transform: Arc<Transform>, topics: Vec<String>) -> InfluxStore {
        InfluxStore { transformation: Some(Transformation { transform, topics }), ..self }
    }

    fn answer(&self, verdict: Verdict) -> WriteAnswer {
        match verdict {
            Verdict::Written => WriteAnswer::Written,
            Verdict::Partly { dropped, reason } => WriteAnswer::Partly { dropped, reason },
            Verdict::Bad(reason) | Verdict::TooLarge(reason) => WriteAnswer::NotAsOne(reason),
            Verdict::Wait { after, reason } => WriteAnswer::Wait { after, reason },
            Verdict::Untrusted(reason) => {
                let url = self.client.destination().url.clone();
                WriteAnswer::Doubtful(Refused::Untrusted { url, reason }.into())
            }
            Verdict::Refused { status, reason } => WriteAnswer::Refused(self.refusal(status, reason).into()),
        }
    }

    fn refusal(&self, status: u16, reason: String) -> Refused {
        let destination = self.client.destination().clone();
        let (url, org, bucket) = (destination.url, destination.org, destination.bucket);
        match status {
            401 if !self.client.has_token() => Refused::NoToken { url, reason },
            401 => Refused::Unauthorized { url, reason },
            403 => Refused::Forbidden { url, org, bucket, reason },
            404 => Refused::NotFound { url, org, bucket, reason },
            _ => Refused::Unexpected { url, reason },
        }
    }
}

impl Store for InfluxStore {
    fn name(&self) -> &str {
        "InfluxDB"
    }

    fn address(&self) -> &str {
        &self.client.destination().url
    }

    fn append(&self, record: &SourceRecord<'_>, batch: &mut String) -> Result<(), NotWritten> {
        let shape = &self.shapes[record.topic];
        match &self.transformation {
            None => Ok(shape.append(record, batch)?),
            Some(Transformation { transform, topics }) => {
                shape.append_transformed(record, &topics[record.topic], transform, batch)
            }
        }
    }

    /// Writes nothing, which needs no more rights than a write. InfluxDB calls it a bad request, others accept it.
    fn check(&self) -> WriteAnswer {
        self.write("")
    }

    fn write(&self, records: &str) -> WriteAnswer {
        self.answer(self.client.write(records))
    }
}

/// Why InfluxDB refuses everything.
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
    /// It doesn't know the token.
    #[error(
        "InfluxDB at {url} does not know our token ({reason}): look at --token or --token-file, and at --url"
    )]
    Unauthorized {
        /// As given by `--url`.
        url: String,
        /// Its answer.
        reason: String,
    },
    /// It knows the token, which has no write access.
    #[error(
        "InfluxDB at {url} does not let our token write to bucket {bucket} of organization {org} ({reason}): give it \
         write access there, or look at --token, --org and --bucket"
    )]
    Forbidden {
        /// As given by `--url`.
        url: String,
        /// As given by `--org`.
        org: String,
        /// As given by `--bucket`.
        bucket: String,
        /// Its answer.
        reason: String,
    },
    /// The bucket or the organization doesn't exist.
    #[error(
        "there is no bucket {bucket} or no organization {org} at {url}, or no InfluxDB v2 ({reason}): make them, or look \
         at --bucket, --org and --url"
    )]
    NotFound {
        /// As given by `--url`.
        url: String,
        /// As given by `--org`.
        org: String,
        /// As given by `--bucket`.
        bucket: String,
        /// Its answer.
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
    /// It isn't InfluxDB v2.
    #[error("what is at {url} does not take writes as InfluxDB v2 does ({reason}): look at --url")]
    Unexpected {
        /// As given by `--url`.
        url: String,
        /// Its answer.
        reason: String,
    },
}
