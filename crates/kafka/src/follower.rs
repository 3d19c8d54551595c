//! Follows one topic without a group, on a thread that follows others too: polls never wait.
//!
//! Where it begins is for the caller to find out ([`starts`](crate::starts::starts)): that takes a round
//! trip, and the thread that follows has none to spare.

use std::thread::Thread;

use genwatch_core::types::{Offset, PartitionId};

use super::config::{Connection, Isolation};
use super::consumer::{Batch, Consumer};
use super::error::ClientError;

/// How much a follower fetches ahead, and how soon it is handed what has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetching {
    /// Each record at once.
    Soon,
    /// Many records together, up to a quarter of a second late: a tenth of the work where records are many.
    Together,
}

/// A follower of one topic: only committed records, in the order of each partition.
#[derive(Debug)]
pub struct Follower {
    consumer: Consumer,
}

impl Follower {
    /// Begins at these offsets; `waker` is unparked whenever something can be polled.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn start(
        connection: &Connection,
        topic: &str,
        starts: &[(PartitionId, Offset)],
        fetching: Fetching,
        waker: Thread,
    ) -> Result<Follower, ClientError> {
        let mut config = connection.reader("genwatch_reader", Isolation::Committed);
        config.set("queued.max.messages.kbytes", "4096");
        if fetching == Fetching::Together {
            config.set("fetch.wait.max.ms", "250").set("fetch.min.bytes", "262144");
        }
        let consumer = Consumer::new(&config, topic, waker)?;
        consumer.add(starts, starts)?;
        Ok(Follower { consumer })
    }

    /// Returns what is there, at most `limit` events.
    pub fn poll(&mut self, limit: usize) -> Batch<'_> {
        self.consumer.poll(limit)
    }

    /// Stops following these partitions.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn leave(&self, partitions: &[PartitionId]) -> Result<(), ClientError> {
        self.consumer.remove(partitions)
    }

    /// Returns what concerns the whole client since the last call.
    #[must_use]
    pub fn take_errors(&self) -> Vec<ClientError> {
        self.consumer.take_errors()
    }
}
