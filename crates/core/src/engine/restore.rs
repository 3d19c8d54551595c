//! The questions before a partition starts, in their order; the answers decide where it starts.
//!
//! The order matters (KIP-447). A previous owner's last transaction writes its markers to the group's offsets and to
//! the state partition at different moments. So the committed offset comes first, after waiting for any open
//! transaction on it; *then* the states, up to the high watermark of this moment. The log comes last: its bounds must
//! not be older than the offsets that they are compared with. `start` decides what follows from the answers.

use std::collections::HashMap;

use super::start::{CommittedOffset, Found, Log, Policies, Start, States};
use crate::alarm::state::StoredAlarms;
use crate::handler::{Stored, StoredState};
use crate::types::{GeneratorId, Offset, PartitionId, TopicId};

/// Identifies one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// A question about one partition. It is answered, however long that takes, or forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Do the topics that follow the readings topic have this partition? If not, they are grown.
    Companions,
    /// Which offset has the group committed?
    Committed,
    /// Which states are stored?
    States,
    /// Which topic's log is it, and where does it begin and end?
    Log,
    /// Does a topic with one of these ids exist? Our state topic has states of theirs.
    Owner(Vec<TopicId>),
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub enum Answer<B = StoredAlarms> {
    /// They have the partition.
    Companions,
    /// The stable offset; `None` if nothing is committed.
    Committed(Option<CommittedOffset>),
    /// The states of the partition's generators.
    States(States<B>),
    /// The log.
    Log(Log),
    /// The name of a topic that has one of the ids.
    Owner(Option<String>),
    /// There is no answer, now or later.
    Never(Fault),
}

/// Why a partition can't be processed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Retention has deleted readings that the group hadn't processed.
    #[error(
        "was committed up to offset {committed}, but the log has {low} to {high}: readings were deleted before they \
         were processed; pass --on-out-of-range earliest to go on from offset {low}"
    )]
    OutOfRange {
        /// The committed offset.
        committed: Offset,
        /// The first offset in the log.
        low: Offset,
        /// The end of the log.
        high: Offset,
    },
    /// The log was truncated while it was processed.
    #[error(
        "should go on from offset {offset}, but the log ends at {high}: readings were lost before they were processed \
         (an unclean leader election?); pass --on-out-of-range earliest to go on with the remaining ones"
    )]
    Truncated {
        /// The next offset to read.
        offset: Offset,
        /// The end of the log.
        high: Offset,
    },
    /// The log is of another topic than the one processed before.
    #[error(
        "is not the log that this group has processed: the topic was deleted and recreated, or is a mirror (its id \
         is {now}, states or offsets are of {was}). Choose with --on-new-topic: keep-states processes it from its \
         first reading with alarms as they are, forget-states does so with no alarm known, fail (the default) ends \
         the worker"
    )]
    NewTopic {
        /// The former topic id.
        was: TopicId,
        /// The topic's id now.
        now: TopicId,
    },
    /// The states are of another topic that the same group processes.
    #[error(
        "has states of topic {topic}: one group processes two topics, whose states would be taken for each \
         other's; give each topic its own --group"
    )]
    SharedGroup {
        /// The other topic.
        topic: String,
    },
    /// A batch can't be decoded.
    #[error(
        "can't be read at offset {offset} ({reason}): nothing after it is processed; check the broker's disk, or \
         delete the records up to there"
    )]
    Unreadable {
        /// The batch's offset.
        offset: Offset,
        /// The client's reason.
        reason: String,
    },
    /// The state topic has a record that genwatch didn't write.
    #[error("has an unreadable state: {reason}: only genwatch may write to the state topic")]
    Foreign {
        /// Which record, and what is wrong with it.
        reason: String,
    },
    /// A topic that must have this partition lacks it.
    #[error("can't be processed: {reason}")]
    Companion {
        /// Which topic, and what to do.
        reason: String,
    },
}

impl Fault {
    /// Whether the fault concerns the whole topic, so that this worker has nothing to do.
    #[must_use]
    pub fn is_of_the_topic(&self) -> bool {
        matches!(self, Fault::NewTopic { .. } | Fault::SharedGroup { .. })
    }
}

/// What to do next.
#[derive(Debug)]
pub enum RestoreStep<B = StoredAlarms> {
    /// Ask another question.
    Ask(Question),
    /// Start the partition.
    Start(Start<B>),
    /// Don't process it.
    Refuse(Fault),
}

/// A restore under way.
#[derive(Clone, Debug)]
pub struct Restore<B = StoredAlarms> {
    /// The open question.
    pub ask: AskId,
    found: Found<B>,
    log: Option<Log>,
}

impl<B: Stored> Restore<B> {
    /// The first question.
    pub const FIRST: Question = Question::Companions;

    /// A restore that has asked [`Restore::FIRST`] as `ask`. `worked` and `stopped` are what this worker knows if it
    /// has processed the partition before: its topic then, and the offset at which the client found no record.
    #[must_use]
    pub fn new(ask: AskId, worked: Option<TopicId>, stopped: Option<Offset>) -> Restore<B> {
        Restore { ask, found: Found { worked, stopped, ..Found::default() }, log: None }
    }

    /// Takes the answer to the open question.
    pub fn next(&mut self, answer: Answer<B>, policies: Policies) -> RestoreStep<B> {
        match answer {
            Answer::Companions => RestoreStep::Ask(Question::Committed),
            Answer::Committed(committed) => {
                self.found.committed = committed;
                RestoreStep::Ask(Question::States)
            }
            Answer::States(states) => {
                self.found.states = states;
                RestoreStep::Ask(Question::Log)
            }
            Answer::Log(log) => {
                let others = self.found.other_topics(&log);
                self.log = Some(log);
                if others.is_empty() {
                    self.decide(policies)
                } else {
                    RestoreStep::Ask(Question::Owner(others))
                }
            }
            Answer::Owner(Some(topic)) => RestoreStep::Refuse(Fault::SharedGroup { topic }),
            Answer::Owner(None) => self.decide(policies),
            Answer::Never(fault) => RestoreStep::Refuse(fault),
        }
    }

    fn decide(&mut self, policies: Policies) -> RestoreStep<B> {
        // It is asked before anything is decided.
        let Some(log) = self.log.take() else { return RestoreStep::Ask(Question::Log) };
        match std::mem::take(&mut self.found).start(&log, policies) {
            Ok(start) => RestoreStep::Start(start),
            Err(fault) => RestoreStep::Refuse(fault),
        }
    }
}

/// The states of one partition, from the records of the state topic read so far.
#[derive(Debug)]
pub struct StateFold<B = StoredAlarms>(HashMap<GeneratorId, StoredState<B>>);

impl<B> Default for StateFold<B> {
    fn default() -> Self {
        StateFold(HashMap::new())
    }
}

impl<B: Stored> StateFold<B> {
    /// Applies the next record of the partition.
    ///
    /// # Errors
    /// Fails if the record isn't a state: somebody else writes to the topic.
    pub fn apply(
        &mut self,
        topic: &str,
        partition: PartitionId,
        offset: Offset,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let foreign = |reason: String| Fault::Foreign {
            reason: format!("offset {offset} of partition {partition} of {topic} ({reason})"),
        };
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        let generator = key.ok_or_else(|| foreign("its key isn't a generatorID".to_owned()))?;
        match value {
            None => {
                self.0.remove(generator);
            }
            Some(value) => {
                let state = StoredState::from_json(value).map_err(|error| foreign(error.to_string()))?;
                self.0.insert(GeneratorId::from(generator), state);
            }
        }
        Ok(())
    }

    /// All states read.
    #[must_use]
    pub fn into_states(self) -> States<B> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    #[test]
    fn the_last_state_of_each_generator_counts_and_a_tombstone_deletes_it() {
        let mut fold = StateFold::<StoredAlarms>::default();
        let mut apply = |offset, key: &[u8], value: Option<&[u8]>| {
            fold.apply("g_state", PartitionId(0), Offset(offset), Some(key), value)
        };
        for (offset, key, value) in [(0, "a", Some(5)), (1, "b", Some(6)), (2, "a", Some(7)), (3, "b", None)]
        {
            let state = |offset| {
                StoredState::<StoredAlarms>::of_decommissioned(&key.into(), None, Offset(offset), Epoch(0))
                    .to_json()
            };
            assert_eq!(apply(offset, key.as_bytes(), value.map(state).as_deref()), Ok(()));
        }
        let refused = apply(4, b"a", Some(b"{")).expect_err("no state").to_string();
        assert!(refused.contains("offset 4 of partition 0 of g_state"), "{refused}");
        assert!(apply(5, b"\xff", None).is_err());
        let states: Vec<(String, Offset)> =
            fold.into_states().into_iter().map(|(id, state)| (id.to_string(), state.offset)).collect();
        assert_eq!(states, [("a".to_owned(), Offset(7))]);
    }
}
