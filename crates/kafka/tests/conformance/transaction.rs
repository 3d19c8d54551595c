//! A transactional producer that sends offsets in any member's name.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr;

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::member::{self, Membership};
use crate::place::Place;
use crate::waiting::PATIENCE;

/// A producer with a transaction open.
pub struct Transaction {
    producer: BaseProducer<DefaultProducerContext>,
    topic: String,
    group: String,
}

impl Transaction {
    /// Begins one, under an id of the group.
    pub fn begin(place: &Place) -> Transaction {
        let mut config = place.client();
        let producer: BaseProducer<_> =
            config.set("transactional.id", &place.group).create().expect("a producer");
        producer.init_transactions(PATIENCE).expect("a producer id");
        producer.begin_transaction().expect("begun");
        Transaction { producer, topic: place.topic.clone(), group: place.group.clone() }
    }

    /// `rd_kafka_send_offsets_to_transaction` as this member; without one, as nobody.
    pub fn send_offset(
        &self,
        (partition, offset): (i32, i64),
        note: &str,
        member: Option<&Membership>,
    ) -> Result<(), RDKafkaErrorCode> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.topic, partition);
        element.set_offset(Offset::Offset(offset)).expect("an offset");
        element.set_metadata(note);
        let group = CString::new(self.group.as_str()).expect("a name");
        let id = CString::new(member.map_or("", |member| &member.id)).expect("an id");
        // SAFETY: texts, list, metadata and producer are alive during the calls; the metadata is ours, destroyed once.
        unsafe {
            let metadata = match member {
                Some(member) => sys::rd_kafka_consumer_group_metadata_new_with_genid(
                    group.as_ptr(),
                    member.generation,
                    id.as_ptr(),
                    ptr::null(),
                ),
                None => sys::rd_kafka_consumer_group_metadata_new(group.as_ptr()),
            };
            let error = sys::rd_kafka_send_offsets_to_transaction(
                self.producer.client().native_ptr(),
                list.ptr(),
                metadata,
                i32::try_from(PATIENCE.as_millis()).expect("short"),
            );
            sys::rd_kafka_consumer_group_metadata_destroy(metadata);
            member::error(error)
        }
    }

    /// Commits it.
    pub fn commit(self) {
        self.producer.commit_transaction(PATIENCE).expect("committed");
    }

    /// Aborts it, and begins the next one.
    pub fn again(&self) {
        self.producer.abort_transaction(PATIENCE).expect("aborted");
        self.producer.begin_transaction().expect("begun");
    }
}
