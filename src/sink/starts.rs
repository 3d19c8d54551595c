//! Finds where reading begins when the client doesn't know: at the first record for a group without commits, and by
//! `--on-out-of-range` if the log doesn't have the next record.

use std::time::Instant;

use genwatch_core::engine::start::OnOutOfRange;
use genwatch_core::types::{Offset, TopicPartition};
use genwatch_kafka::error::Chain;
use genwatch_kafka::subscriber::StartOffset;

use super::config::SinkError;
use super::{Sink, Store};

impl<S: Store> Sink<'_, S> {
    /// Decides where each partition starts, and starts them all. Retries later if the cluster doesn't answer.
    pub(super) fn find_starts(&mut self) -> Result<(), SinkError> {
        let places: Vec<TopicPartition> = self.offsets.places().collect();
        if places.is_empty() {
            // They have gone to another sink.
            return Ok(());
        }
        let found = match self.subscriber.starts(&places) {
            Ok(found) => found,
            Err(error) => {
                if self.broker_log.allow((), Instant::now()).is_some() {
                    tracing::warn!(error = %Chain(&error), "cannot find out where to begin yet: asking again");
                }
                return Ok(());
            }
        };
        let mut starts = Vec::with_capacity(found.len());
        for start in found {
            starts.push((start.place, self.start_of(start)?));
        }
        self.subscriber.start_at(&starts)?;
        self.apply_pause(&places)
    }

    fn start_of(&mut self, start: StartOffset) -> Result<Offset, SinkError> {
        let StartOffset { place, committed, low, high } = start;
        let Some(next) = self.offsets.next(place).or(committed) else {
            self.offsets.begins(place, low);
            return Ok(low);
        };
        if (low..=high).contains(&next) {
            self.offsets.begins(place, next);
            return Ok(next);
        }
        let (topic, partition) = (self.topics[place.topic].clone(), place.partition);
        match self.on_out_of_range {
            OnOutOfRange::Fail => Err(SinkError::OutOfRange { topic, partition, next, low, high }),
            OnOutOfRange::Earliest => {
                let lost = u64::try_from(low.0 - next.0).unwrap_or(0);
                tracing::error!(topic, %partition, %next, %low, %high, lost, "the next record is not in the log: continuing from the earliest one");
                self.metrics.lost.with_label_values(&[&topic]).inc_by(lost);
                self.summary.lost += lost;
                self.offsets.begins_anew(place, low);
                Ok(low)
            }
        }
    }
}
