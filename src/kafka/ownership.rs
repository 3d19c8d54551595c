//! What the group's coordinator believes to be ours.
//!
//! Under KIP-848 the coordinator sends an assignment once, in the answer to a heartbeat. Where that answer times out,
//! librdkafka repeats the same short heartbeat, to which the coordinator has nothing new to say, as only a full one is
//! answered with the assignment again (2.12.1, rd_kafka_cgrp_handle_ConsumerGroupHeartbeat: only a lost connection leads
//! to a full one; GroupMetadataManager of Kafka 4). The partition then belongs to a member that doesn't know it, and
//! nobody works it. Found by chaos, twice. So a replica asks now and then what it owns, and joins anew if it has missed
//! something.

use std::thread::Thread;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::asker::Asker;
use super::config::{Connection, Context, Isolation};
use super::native::members::members;
use crate::log::PartitionId;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Asked for a member id, answers with the partitions it owns; `None` where that isn't known.
pub type OwnershipWatch = Asker<String, Option<Vec<PartitionId>>>;

/// Starts it for one group and topic. `waker` is unparked when an answer is there.
///
/// # Errors
/// When the client or the thread can't be made.
pub fn watch(
    connection: &Connection,
    group: &str,
    topic: &str,
    waker: Thread,
) -> Result<OwnershipWatch, KafkaError> {
    let client: BaseConsumer<Context> =
        connection.reader(group, Isolation::Uncommitted).create_with_context(Context::default())?;
    let (group, topic) = (group.to_owned(), topic.to_owned());
    Asker::start("ownership", waker, move |id: String| {
        let members = members(&client, &group, REQUEST_TIMEOUT)
            .inspect_err(|error| tracing::debug!(%error, "the group's members are not to be had"))
            .ok()?;
        let member = members.into_iter().find(|member| member.id == id)?;
        Some(member.owns.into_iter().filter(|(of, _)| *of == topic).map(|(_, id)| id).collect())
    })
}
