//! Follows one topic for the dashboard: through its deletion, its return and its growth.

use std::collections::BTreeMap;
use std::thread::Thread;

use genwatch_core::types::{Offset, PartitionId};
use genwatch_kafka::config::Connection;
use genwatch_kafka::consumer::{Event, Record};
use genwatch_kafka::error::ClientError;
use genwatch_kafka::follower::{Fetching, Follower};
use genwatch_kafka::starts::Start;

/// The reader of one topic.
pub struct Reader {
    topic: String,
    fetching: Fetching,
    follower: Option<Follower>,
    /// How far each partition is read.
    reached: BTreeMap<PartitionId, Offset>,
    /// The partitions that haven't reached the end which they had when they were found.
    open: BTreeMap<PartitionId, Offset>,
    /// Records since all partitions had reached it.
    records: i64,
}

impl Reader {
    /// A reader that doesn't know where to begin yet.
    #[must_use]
    pub fn new(topic: &str, fetching: Fetching) -> Reader {
        Reader {
            topic: topic.to_owned(),
            fetching,
            follower: None,
            reached: BTreeMap::new(),
            open: BTreeMap::new(),
            records: 0,
        }
    }

    /// Begins, or goes on with more partitions; `anew`: in another log than before.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn begin(
        &mut self,
        connection: &Connection,
        starts: &BTreeMap<PartitionId, Start>,
        anew: bool,
        waker: Thread,
    ) -> Result<(), ClientError> {
        if anew {
            self.reached.clear();
            self.open.clear();
        }
        for (id, start) in starts {
            // A partition that appears later is read whole: nothing of it was there before.
            let begin = *self.reached.entry(*id).or_insert(start.begin);
            if begin < start.end {
                self.open.insert(*id, start.end);
            }
        }
        self.reached.retain(|id, _| starts.contains_key(id));
        self.open.retain(|id, _| starts.contains_key(id));
        let at: Vec<_> = self.reached.iter().map(|(id, offset)| (*id, *offset)).collect();
        self.follower = Some(Follower::start(connection, &self.topic, &at, self.fetching, waker)?);
        Ok(())
    }

    /// The topic is gone: nothing to follow until it is back.
    pub fn end(&mut self) {
        self.follower = None;
        self.reached.clear();
        self.open.clear();
    }

    /// Whether it has read what there was when it began.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.follower.is_some() && self.open.is_empty()
    }

    /// Records that were written since it had caught up.
    #[must_use]
    pub fn records(&self) -> i64 {
        self.records
    }

    /// Hands out what is there; `is_new`: the record wasn't there when the reader began. Returns how many
    /// there were.
    pub fn read(&mut self, limit: usize, mut each: impl FnMut(&Record<'_>, bool)) -> usize {
        let Some(follower) = &mut self.follower else { return 0 };
        for error in follower.take_errors() {
            tracing::debug!(%error, topic = self.topic, "the reader");
        }
        let batch = follower.poll(limit);
        for event in batch.events() {
            let (partition, reached) = match event {
                Event::Record(record) => {
                    let is_new = self.open.is_empty() || !self.open.contains_key(&record.partition);
                    each(&record, is_new);
                    self.records += i64::from(self.open.is_empty());
                    (record.partition, record.offset.next())
                }
                Event::End(partition, end) => (partition, end),
                Event::Error(place, error) => {
                    tracing::debug!(%error, topic = self.topic, ?place, "the reader");
                    continue;
                }
            };
            self.reached.insert(partition, reached);
            if self.open.get(&partition).is_some_and(|end| reached >= *end) {
                self.open.remove(&partition);
            }
        }
        batch.len()
    }
}
