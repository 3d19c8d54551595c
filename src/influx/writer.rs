//! Writes batches, one after the other, on a thread of its own, so that the loop goes on polling Kafka however long
//! InfluxDB takes. A batch is acknowledged when each of its points is written, or was refused all by itself.

use std::collections::BTreeMap;
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::batch::{Batch, Origin};
use super::client::Client;
use super::complaints::Complaints;
use super::metrics::SinkMetrics;
use super::verdict::{Backoff, Verdict};
use crate::health::{Health, Obstacle};

/// The loop's end of the writer.
pub struct Writer {
    batches: Sender<Batch>,
    outcomes: Receiver<Result<Written, Refused>>,
}

/// A batch that is done with.
#[derive(Debug)]
pub struct Written {
    /// As it was handed over.
    pub batch: Batch,
    /// Those of its points that InfluxDB refused.
    pub refused: Vec<Origin>,
    /// Requests that were acknowledged.
    pub writes: u64,
    /// Requests that had to be repeated.
    pub retries: u64,
}

/// InfluxDB refuses all that we send.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It wants a token.
    #[error("InfluxDB at {url} wants a token ({reason}): give one by --token or --token-file")]
    NoToken {
        /// As given by `--url`.
        url: String,
        /// What it said.
        reason: String,
    },
    /// It doesn't know the token.
    #[error(
        "InfluxDB at {url} does not know our token ({reason}): look at --token or --token-file, and at --url"
    )]
    Unauthorized {
        /// As given by `--url`.
        url: String,
        /// What it said.
        reason: String,
    },
    /// It knows the token and doesn't let it write.
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
        /// What it said.
        reason: String,
    },
    /// There is no such thing.
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
        /// What it said.
        reason: String,
    },
    /// Some other server.
    #[error("what is at {url} does not take writes as InfluxDB v2 does ({reason}): look at --url")]
    Unexpected {
        /// As given by `--url`.
        url: String,
        /// What it said.
        reason: String,
    },
}

impl Writer {
    /// Starts the thread, which first asks InfluxDB whether we may write; the answer is an outcome like those of batches.
    ///
    /// # Errors
    /// When no thread is to be had.
    pub fn start(
        client: Client,
        topics: Vec<String>,
        metrics: Arc<SinkMetrics>,
        health: Arc<Health>,
    ) -> std::io::Result<Writer> {
        let (batches, inbox) = bounded::<Batch>(1);
        let (outbox, outcomes) = bounded(1);
        let mut desk = Desk {
            client,
            topics,
            metrics,
            health,
            complaints: Complaints::default(),
            writes: 0,
            retries: 0,
        };
        thread::Builder::new().name("influx".to_owned()).spawn(move || {
            let mut outcome = desk.knock();
            loop {
                let refused = outcome.is_err();
                // An error means that nobody listens any more: the sink has ended.
                if outbox.send(outcome).is_err() || refused {
                    return;
                }
                let Ok(batch) = inbox.recv() else { return };
                outcome = desk.write(batch);
            }
        })?;
        Ok(Writer { batches, outcomes })
    }

    /// Hands over a batch. To be called only when the last one is done, so it doesn't wait.
    pub fn hand_over(&self, batch: Batch) {
        // The thread ends only after a refusal, which is waiting in `outcomes` then.
        let _ = self.batches.send(batch);
    }

    /// What has become of the batch, waiting up to `wait`.
    ///
    /// # Errors
    /// When InfluxDB refuses us.
    pub fn outcome(&self, wait: Duration) -> Result<Option<Written>, Refused> {
        self.outcomes.recv_timeout(wait).ok().transpose()
    }
}

/// The thread's side.
struct Desk {
    client: Client,
    topics: Vec<String>,
    metrics: Arc<SinkMetrics>,
    health: Arc<Health>,
    complaints: Complaints<()>,
    /// Since the last batch that was done, as are retries.
    writes: u64,
    retries: u64,
}

impl Desk {
    /// Writes nothing, to learn whether we may write. Whether nothing is a proper write, servers disagree: a bad request is
    /// an answer, too.
    fn knock(&mut self) -> Result<Written, Refused> {
        self.send("")?;
        self.write(Batch::default())
    }

    fn write(&mut self, batch: Batch) -> Result<Written, Refused> {
        let mut refused = Vec::new();
        // Halved until the bad ones are found; what is written twice on the way overwrites itself.
        let mut open: Vec<Range<usize>> = std::iter::once(0..batch.points()).collect();
        while let Some(range) = open.pop() {
            if range.is_empty() {
                continue;
            }
            match self.send(batch.lines(range.clone()))? {
                Answer::Written => self.writes += 1,
                Answer::NotAsOne(_) if range.len() > 1 => open.extend(halves(&range)),
                Answer::NotAsOne(reason) => {
                    let origin = batch.origin(range.start);
                    self.refuse(origin, &reason);
                    refused.push(origin);
                }
            }
        }
        self.count(&batch, &refused);
        let (writes, retries) = (take(&mut self.writes), take(&mut self.retries));
        Ok(Written { batch, refused, writes, retries })
    }

    /// Sends until there is an answer to what was sent, however long that takes.
    fn send(&mut self, lines: &str) -> Result<Answer, Refused> {
        let mut backoff = Backoff::default();
        let mut waiting: Option<Instant> = None;
        loop {
            let begun = Instant::now();
            let verdict = self.client.write(lines);
            self.metrics.write_seconds.observe(begun.elapsed().as_secs_f64());
            let answer = match verdict {
                Verdict::Wait { after, reason } => {
                    let wait = backoff.wait(after);
                    if waiting.is_none() {
                        waiting = Some(begun);
                        let url = &self.client.destination().url;
                        tracing::warn!(url, reason, "InfluxDB takes no points at the moment: waiting");
                        self.health.set(Obstacle::DatabaseAway, true);
                    }
                    self.metrics.retries.inc();
                    self.retries += 1;
                    thread::sleep(wait);
                    continue;
                }
                Verdict::Written => Ok(Answer::Written),
                Verdict::Bad(reason) | Verdict::TooLarge(reason) => Ok(Answer::NotAsOne(reason)),
                Verdict::Refused { status, reason } => Err(self.refusal(status, reason)),
            };
            if let Some(since) = waiting {
                let seconds = since.elapsed().as_secs_f64();
                tracing::info!(seconds, "InfluxDB answers again");
                self.health.set(Obstacle::DatabaseAway, false);
            }
            return answer;
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

    fn refuse(&mut self, origin: Origin, reason: &str) {
        let Some(silent) = self.complaints.may_speak((), Instant::now()) else { return };
        tracing::warn!(
            topic = self.topics[origin.place.topic],
            partition = origin.place.partition.0,
            offset = origin.offset.0,
            reason,
            silent,
            "InfluxDB refuses a point: skipped"
        );
    }

    fn count(&self, batch: &Batch, refused: &[Origin]) {
        let mut points: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for point in 0..batch.points() {
            points.entry(batch.origin(point).place.topic).or_default().0 += 1;
        }
        for origin in refused {
            points.entry(origin.place.topic).or_default().1 += 1;
        }
        for (topic, (all, refused)) in points {
            let topic = &self.topics[topic];
            self.metrics.points.with_label_values(&[topic]).inc_by(all - refused);
            if refused > 0 {
                self.metrics.skipped.with_label_values(&[topic, "refused"]).inc_by(refused);
            }
        }
    }
}

/// An answer to what was sent.
enum Answer {
    Written,
    /// Bad, or too large.
    NotAsOne(String),
}

/// Both halves, the first one on top of the stack.
fn halves(range: &Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [middle..range.end, range.start..middle]
}
