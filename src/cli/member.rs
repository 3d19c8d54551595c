//! Options of every member of a group that handles readings: `worker`, `downsample`.

use std::time::Duration;

use clap::Args;
use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::start::{OnNewTopic, OnOutOfRange, Policies};
use genwatch_core::pool::Bounds;
use genwatch_kafka::config::{Connection, GroupProtocol, worker_name};
use genwatch_kafka::topics::HandlerTopics;

use super::Failure;
use super::options::Choice;
use crate::service::http::HttpAddress;
use crate::worker::{WorkerConfig, WorkerError};

/// How a member takes part in its group.
#[derive(Debug, Args)]
pub(super) struct MemberOptions {
    /// The delivery guarantee for all that is written.
    #[arg(long, value_enum, default_value_t = Choice(Delivery::ExactlyOnce), env = "GENWATCH_DELIVERY")]
    delivery: Choice<Delivery>,

    /// How the group assigns partitions: classic (cooperative-sticky) or consumer (KIP-848, Kafka 4; the brokers set
    /// the session timeout, 45 s by default, after which they notice a killed worker).
    #[arg(long, value_enum, default_value_t = Choice(GroupProtocol::Classic), env = "GENWATCH_GROUP_PROTOCOL")]
    group_protocol: Choice<GroupProtocol>,

    /// Take in at most this many records a second.
    #[arg(long, value_name = "N", env = "GENWATCH_RATE_LIMIT", value_parser = clap::value_parser!(u32).range(1..))]
    rate_limit: Option<u32>,

    /// Threads that parse and evaluate records, each those of other partitions. One more worker does more than one more
    /// thread: it fetches by itself, too.
    #[arg(long, value_name = "N", default_value_t = 1, env = "GENWATCH_THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,

    /// Serve /metrics, /livez and /readyz here.
    #[arg(long, value_name = "HOST:PORT", env = "GENWATCH_HTTP")]
    pub(super) http: Option<HttpAddress>,

    /// Stop once every assigned partition has reached the end it had at the start.
    #[arg(long, env = "GENWATCH_EXIT_AT_END")]
    exit_at_end: bool,

    /// How long readings begun may take to finish when partitions are given up.
    #[arg(long, default_value = "20s", value_parser = super::duration, env = "GENWATCH_DRAIN_TIMEOUT")]
    drain_timeout: Duration,

    /// What to do when retention has deleted readings before they were processed.
    #[arg(long, value_enum, default_value_t = Choice(OnOutOfRange::Fail), env = "GENWATCH_ON_OUT_OF_RANGE")]
    on_out_of_range: Choice<OnOutOfRange>,

    /// What to do when the readings topic was deleted and re-created, or is a mirror: offsets and alarm states then
    /// belong to another log.
    #[arg(long, value_enum, default_value_t = Choice(OnNewTopic::Fail), env = "GENWATCH_ON_NEW_TOPIC")]
    on_new_topic: Choice<OnNewTopic>,

    /// The most records taken in and not finished, over all partitions; a partition whose share is full is paused.
    #[arg(long, value_name = "RECORDS", default_value_t = 400_000, env = "GENWATCH_MAX_IN_FLIGHT", value_parser = clap::value_parser!(u32).range(1..))]
    max_in_flight: u32,

    /// The most mebibytes of these and of effects that wait for a commit.
    #[arg(long, value_name = "MIB", default_value_t = 64, env = "GENWATCH_MAX_IN_FLIGHT_MIB", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_in_flight_mib: u32,
}

impl MemberOptions {
    /// Checks that the clients can be created.
    pub(super) fn check(&self, connection: &Connection, group: &str) -> Result<(), Failure> {
        let is_transactional = self.delivery.0 == Delivery::ExactlyOnce;
        connection.check_worker(group, self.group_protocol.0, is_transactional).map_err(Failure::usage)
    }

    /// The configuration of a member of `group`, which reports where the workers of `base` do.
    pub(super) fn worker(
        &self,
        connection: Connection,
        topics: HandlerTopics,
        group: &str,
        base: &str,
        commit_interval: Duration,
    ) -> WorkerConfig {
        WorkerConfig {
            connection,
            topics,
            group: group.to_owned(),
            reports: format!("{base}_workers"),
            delivery: self.delivery.0,
            commit_interval,
            protocol: self.group_protocol.0,
            rate_limit: self.rate_limit,
            exit_at_end: self.exit_at_end,
            drain_timeout: self.drain_timeout,
            policies: Policies { on_out_of_range: self.on_out_of_range.0, on_new_topic: self.on_new_topic.0 },
            max_bad_ratio: None,
            threads: usize::from(self.threads),
            bounds: Bounds {
                records: self.max_in_flight as usize,
                bytes: (self.max_in_flight_mib as usize) << 20,
            },
            name: worker_name(),
            fleet: None,
        }
    }
}

/// What a worker's failure means for the command line.
pub(super) fn failure(error: WorkerError) -> Failure {
    match error {
        // Conflicting properties are found when a client is made of them.
        WorkerError::Client(_) => Failure::usage(error),
        _ => Failure::from(error),
    }
}
