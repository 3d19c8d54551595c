//! The members of a group and what they own. rust-rdkafka's group list knows the classic protocol only; this request
//! (`DescribeConsumerGroups`) knows groups of KIP-848 too.

use std::ptr::NonNull;
use std::time::Duration;

use genwatch_core::types::PartitionId;
use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::types::RDKafkaRespErr;

use super::consumer::text;
use super::request;
use crate::error::ClientError;

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its `client.id`.
    pub client_id: String,
    /// The topics and partitions that it owns.
    pub owns: Vec<(String, PartitionId)>,
}

/// Asks the group's coordinator for its members; returns none if the group doesn't exist.
///
/// # Errors
/// When the coordinator doesn't answer in time, or refuses.
pub fn members<C: ClientContext + ConsumerContext>(
    client: &BaseConsumer<C>,
    group: &str,
    timeout: Duration,
) -> Result<Vec<GroupMember>, ClientError> {
    let group = request::name(group)?;
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    request::ask(
        client,
        operation,
        timeout,
        // SAFETY: all are alive during the call. The group's name lives during the request, which copies it.
        |rk, options, queue| unsafe {
            sys::rd_kafka_DescribeConsumerGroups(rk, &mut group.as_ptr(), 1, options, queue);
        },
        // SAFETY: it's the answer to that request.
        |answer| unsafe { read_members(answer) },
    )?
}

/// # Safety
/// `event` is the answer to a `DescribeConsumerGroups` for one group, and lives during the call.
unsafe fn read_members(event: *mut sys::rd_kafka_event_t) -> Result<Vec<GroupMember>, ClientError> {
    let mut members = Vec::new();
    // SAFETY: as the caller promises; every pointer read here belongs to the event, and texts are copied.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        if result.is_null() || groups.is_null() || count != 1 {
            return Ok(members);
        }
        let group = *groups;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            // A group that nobody has joined yet has no members; that is no error.
            if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND {
                return Ok(members);
            }
            let reason = text(sys::rd_kafka_error_string(error));
            return Err(ClientError::new(code, reason));
        }
        for index in 0..sys::rd_kafka_ConsumerGroupDescription_member_count(group) {
            let member = sys::rd_kafka_ConsumerGroupDescription_member(group, index);
            let client_id = text(sys::rd_kafka_MemberDescription_client_id(member));
            let assignment = sys::rd_kafka_MemberDescription_assignment(member);
            let mut owns = Vec::new();
            if let Some(list) = NonNull::new(sys::rd_kafka_MemberAssignment_partitions(assignment).cast_mut())
            {
                let list = list.as_ref();
                for position in 0..usize::try_from(list.cnt).unwrap_or(0) {
                    let element = &*list.elems.add(position);
                    owns.push((text(element.topic), PartitionId(element.partition)));
                }
            }
            members.push(GroupMember { client_id, owns });
        }
    }
    Ok(members)
}
