//! Which topics exist, and their ids (`DescribeTopics`, which rust-rdkafka lacks).

use std::ffi::{CString, c_char};
use std::time::Duration;

use genwatch_core::types::TopicId;
use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::types::RDKafkaRespErr;

use super::consumer::text;
use super::{Owned, request};
use crate::error::ClientError;

/// The brokers' description of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescribedTopic {
    /// It exists.
    There {
        /// Its name.
        name: String,
        /// Its id; `None` if the broker knows none (before Kafka 2.8).
        id: Option<TopicId>,
    },
    /// It doesn't exist.
    Missing {
        /// The name.
        name: String,
    },
}

/// Describes these topics; omits those that we may not see.
///
/// # Errors
/// When no broker answers in time, or refuses.
pub fn describe_topics<C: ClientContext + ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<DescribedTopic>, ClientError> {
    let names: Vec<CString> = names.iter().map(|name| request::name(name)).collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the collection is ours and destroyed once. The names live during the request, which copies them.
    let topics = unsafe {
        Owned(
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            sys::rd_kafka_TopicCollection_destroy,
        )
    };
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    request::ask(
        client,
        operation,
        timeout,
        // SAFETY: all are alive during the call.
        |rk, options, queue| unsafe { sys::rd_kafka_DescribeTopics(rk, topics.0, options, queue) },
        // SAFETY: it's the answer to that request.
        |answer| unsafe { read_topics(answer) },
    )
}

/// # Safety
/// `event` is the answer to a `DescribeTopics`, and lives during the call.
unsafe fn read_topics(event: *mut sys::rd_kafka_event_t) -> Vec<DescribedTopic> {
    let mut topics = Vec::new();
    // SAFETY: as the caller promises; every pointer read here belongs to the event, and texts are copied.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return topics;
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for index in 0..count {
            let description = *descriptions.add(index);
            let name = text(sys::rd_kafka_TopicDescription_name(description));
            let error = sys::rd_kafka_TopicDescription_error(description);
            let code = if error.is_null() {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            } else {
                sys::rd_kafka_error_code(error)
            };
            match code {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => {
                    topics.push(DescribedTopic::Missing { name });
                    continue;
                }
                _ => continue,
            }
            let id = sys::rd_kafka_TopicDescription_topic_id(description);
            let is_none = id.is_null()
                || (
                    sys::rd_kafka_Uuid_most_significant_bits(id),
                    sys::rd_kafka_Uuid_least_significant_bits(id),
                ) == (0, 0);
            topics.push(DescribedTopic::There {
                name,
                id: (!is_none).then(|| as_kafka_prints(&text(sys::rd_kafka_Uuid_base64str(id)))),
            });
        }
    }
    topics
}

/// Kafka's own tools use the alphabet that is safe in URLs; librdkafka doesn't.
fn as_kafka_prints(base64: &str) -> TopicId {
    TopicId::from(base64.replace('+', "-").replace('/', "_").as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_no_character_that_parts_it_from_others() {
        assert_eq!(as_kafka_prints("a+b/c").as_str(), "a-b_c");
    }
}
