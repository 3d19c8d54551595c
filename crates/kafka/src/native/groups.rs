//! Which consumer groups there are (`ListConsumerGroups`). rust-rdkafka's group list asks for the members of each, too.
//!
//! Unlike [`members`](super::members) this asks no coordinator by its group: each broker lists the groups that it
//! coordinates. The assertion that `DescribeConsumerGroups` can fail is not on this way (2.12.1).

use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use sys::rd_kafka_consumer_group_state_t as State;

use super::consumer::text;
use super::request;
use crate::error::ClientError;

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name.
    pub name: String,
    /// Whether it has members; `None` where the broker doesn't say (before Kafka 2.6).
    pub has_members: Option<bool>,
}

/// The consumer groups that we may describe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedGroups {
    /// Those that were listed.
    pub groups: Vec<ListedGroup>,
    /// Whether each broker has answered: else some may be missing.
    pub is_whole: bool,
}

/// Lists the consumer groups.
///
/// # Errors
/// When no broker answers in time.
pub fn list_groups<C: ClientContext + ConsumerContext>(
    client: &BaseConsumer<C>,
    timeout: Duration,
) -> Result<ListedGroups, ClientError> {
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS;
    request::ask(
        client,
        operation,
        timeout,
        // SAFETY: all are alive during the call.
        |rk, options, queue| unsafe { sys::rd_kafka_ListConsumerGroups(rk, options, queue) },
        // SAFETY: it's the answer to that request.
        |answer| unsafe { read_groups(answer) },
    )
}

/// # Safety
/// `event` is the answer to a `ListConsumerGroups`, and lives during the call.
unsafe fn read_groups(event: *mut sys::rd_kafka_event_t) -> ListedGroups {
    // SAFETY: as the caller promises; every pointer read here belongs to the event, and texts are copied.
    unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroups_result(event);
        if result.is_null() {
            return ListedGroups::default();
        }
        let (mut count, mut errors) = (0, 0);
        let listed = sys::rd_kafka_ListConsumerGroups_result_valid(result, &mut count);
        sys::rd_kafka_ListConsumerGroups_result_errors(result, &mut errors);
        let mut groups = Vec::with_capacity(count);
        for index in 0..count {
            let group = *listed.add(index);
            let has_members = match sys::rd_kafka_ConsumerGroupListing_state(group) {
                State::RD_KAFKA_CONSUMER_GROUP_STATE_UNKNOWN => None,
                State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY | State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD => {
                    Some(false)
                }
                _ => Some(true),
            };
            let name = text(sys::rd_kafka_ConsumerGroupListing_group_id(group));
            groups.push(ListedGroup { name, has_members });
        }
        ListedGroups { groups, is_whole: errors == 0 }
    }
}
