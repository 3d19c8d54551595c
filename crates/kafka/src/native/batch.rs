//! What a poll brings: records, borrowed from librdkafka's messages.

use std::ffi::c_void;
use std::ptr;

use genwatch_core::types::{Epoch, Millis, Offset, PartitionId};
use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaRespErr;

use super::consumer::text;
use crate::error::ClientError;

/// One event of a poll.
#[derive(Debug)]
pub enum Event<'a> {
    /// A record.
    Record(Record<'a>),
    /// The partition is read to its end, at this offset.
    End(PartitionId, Offset),
    /// An error about one partition, at an offset, or about all.
    Error(Option<(PartitionId, Offset)>, ClientError),
}

/// A record, borrowed from the batch.
#[derive(Debug)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Millis,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    message: &'a sys::rd_kafka_message_t,
}

/// Consecutive records of one partition.
#[derive(Debug)]
pub struct Run<'a> {
    /// Their partition.
    pub partition: PartitionId,
    messages: &'a [*mut sys::rd_kafka_message_t],
}

// SAFETY: librdkafka ties no message to a thread. A run is the only one of its records while it lives, as `Batch::runs`
// takes the batch mutably, and it isn't `Sync`: so what librdkafka caches in a message is written by one thread at a
// time.
unsafe impl Send for Run<'_> {}

impl Run<'_> {
    /// Returns the records, in the order of the log.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        // SAFETY: librdkafka gave valid messages, which live until the batch is dropped.
        self.messages.iter().map(|message| Record::new(unsafe { &**message }))
    }

    /// Returns their keys.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> {
        self.messages.iter().map(|message| {
            // SAFETY: as above.
            let message = unsafe { &**message };
            slice(message.key, message.key_len, message)
        })
    }

    /// Returns the number of records.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.messages.len()
    }
}

/// The result of one poll. Destroys the messages when dropped.
#[derive(Debug)]
pub struct Batch<'c> {
    pub(super) messages: &'c [*mut sys::rd_kafka_message_t],
}

impl Batch<'_> {
    /// Returns the records and notices, in the order in which to take them.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        // SAFETY: librdkafka gave valid messages, which live until the batch is dropped.
        self.messages.iter().map(|message| event(unsafe { &**message }))
    }

    /// Returns the records in runs of the same partition, and the notices among them, in the order in which to take them.
    pub fn runs(&mut self) -> impl Iterator<Item = Result<Run<'_>, Event<'_>>> {
        // SAFETY: as above.
        let of = |message: &*mut sys::rd_kafka_message_t| unsafe { ((**message).err, (**message).partition) };
        let is_record = |code| code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        let same = move |one: &_, next: &_| is_record(of(one).0) && of(one) == of(next);
        self.messages.chunk_by(same).map(move |messages| {
            let (code, partition) = of(&messages[0]);
            match is_record(code) {
                true => Ok(Run { partition: PartitionId(partition), messages }),
                // SAFETY: as above.
                false => Err(event(unsafe { &*messages[0] })),
            }
        })
    }

    /// Returns the number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether the batch is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

fn event(message: &sys::rd_kafka_message_t) -> Event<'_> {
    match message.err {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Event::Record(Record::new(message)),
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
            Event::End(PartitionId(message.partition), Offset(message.offset))
        }
        code => {
            // SAFETY: the text belongs to the message and is copied at once.
            let reason = unsafe { text(sys::rd_kafka_message_errstr(message)) };
            let place = (PartitionId(message.partition), Offset(message.offset));
            Event::Error((message.partition >= 0).then_some(place), ClientError::new(code, reason))
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.messages {
            // SAFETY: each was given to us by the poll that made this batch, and is destroyed once; nothing borrows
            // from it any more, as events borrow from the batch.
            unsafe { sys::rd_kafka_message_destroy(*message) };
        }
    }
}

impl<'a> Record<'a> {
    fn new(message: &'a sys::rd_kafka_message_t) -> Record<'a> {
        // SAFETY: `message` is valid; the kind of timestamp isn't asked for.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(message, ptr::null_mut()) };
        Record {
            partition: PartitionId(message.partition),
            offset: Offset(message.offset),
            timestamp: Millis(timestamp),
            key: slice(message.key, message.key_len, message),
            value: slice(message.payload, message.len, message),
            message,
        }
    }

    /// Copies the headers. librdkafka parses them on the first call, so only bad records pay for it.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let mut headers = ptr::null_mut();
        let mut found = Vec::new();
        // SAFETY: the headers belong to the message and live as long; names are NUL-terminated, a value of NULL is a
        // null value, and both are copied before the loop goes on. librdkafka caches the parsed headers in the message,
        // without a lock: a batch belongs to one thread, and so does a run of it.
        unsafe {
            let code = sys::rd_kafka_message_headers(self.message, &mut headers);
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return found;
            }
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            while sys::rd_kafka_header_get_all(headers, found.len(), &mut name, &mut value, &mut size)
                == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                let bytes =
                    (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast(), size).to_vec());
                found.push((text(name), bytes));
            }
        }
        found
    }

    /// Returns the leader epoch under which it was written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        // SAFETY: the message is valid for as long as the record is.
        Epoch(unsafe { sys::rd_kafka_message_leader_epoch(self.message) })
    }

    /// Returns the bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

/// The bytes of a key or value; NULL is null, a length of 0 at an address is empty. The owner bounds the lifetime.
fn slice<T>(start: *const c_void, len: usize, _owner: &T) -> Option<&[u8]> {
    // SAFETY: librdkafka's message holds `len` bytes at `start` for as long as the message lives, and never changes
    // them.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), len) })
}
