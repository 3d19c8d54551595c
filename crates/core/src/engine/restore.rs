//! What is asked before a partition starts, in which order, and where it then starts.
//!
//! The order matters (KIP-447). A previous owner's last transaction writes its markers to the group's offsets and to the
//! state partition at different moments, so the committed offset comes first, and while a transaction on it is open it is
//! waited for; *then* the states, up to the high watermark of this moment. The log comes last: its bounds must not be older
//! than the offsets that they are compared with. What follows from it all is decided by `start`.

use std::collections::HashMap;

use super::start::{CommittedOffset, Found, Log, Policies, Start, States};
use crate::alarm::state::StoredState;
use crate::types::{GeneratorId, Offset, PartitionId, TopicId};

/// Names one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What is asked about one partition. Each is answered however long it takes, or forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Do the topics that follow the readings topic have this partition? They are grown if not.
    Companions,
    /// What has the group committed?
    Committed,
    /// Which alarm states are stored?
    States,
    /// Which log is it, and where does it begin and end?
    Log,
    /// Does a topic with one of these ids exist? States of theirs are in our state topic.
    Owner(Vec<TopicId>),
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// They have it.
    Companions,
    /// The stable offset; `None` where nothing is committed.
    Committed(Option<CommittedOffset>),
    /// The states of the partition's generators.
    States(States),
    /// The log.
    Log(Log),
    /// The name of a topic that has one of the ids.
    Owner(Option<String>),
    /// It can't be answered, now or later.
    Never(Fault),
}

/// Why a partition can't be worked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Retention has overtaken the group.
    #[error(
        "was committed up to offset {committed}, but the log has {low} to {high}: readings were deleted before they were \
         worked; pass --on-out-of-range earliest to go on from offset {low}"
    )]
    OutOfRange {
        /// The committed offset.
        committed: Offset,
        /// The first offset in the log.
        low: Offset,
        /// The end of the log.
        high: Offset,
    },
    /// The log has lost its end while it was worked.
    #[error(
        "was to be read on from offset {offset}, but the log ends at {high}: readings were lost before they were worked (an \
         unclean leader election?); pass --on-out-of-range earliest to go on with those there are"
    )]
    Truncated {
        /// The next offset to be read.
        offset: Offset,
        /// The end of the log.
        high: Offset,
    },
    /// The log is another than the one that was worked.
    #[error(
        "is not the log that this group has worked: the topic was deleted and made anew, or is a mirror (its id is {now}, \
         states or offsets are of {was}). Choose by --on-new-topic: keep-states works it from its first reading with \
         alarms as they stand, forget-states does so with no alarm known, fail (the default) ends the worker"
    )]
    NewTopic {
        /// The topic's id as it was.
        was: TopicId,
        /// The topic's id.
        now: TopicId,
    },
    /// The states are those of another topic that is worked by the same group.
    #[error(
        "has alarm states of topic {topic}: two topics are worked by one group, whose states would be taken for each \
         other's; give each topic a --group of its own"
    )]
    SharedGroup {
        /// The other topic.
        topic: String,
    },
    /// A batch that can't be decoded.
    #[error(
        "can't be read at offset {offset} ({reason}): nothing behind it is worked; look at the broker's disk, or delete the \
         records up to there"
    )]
    Unreadable {
        /// Where.
        offset: Offset,
        /// What the client said.
        reason: String,
    },
    /// Somebody else's record among the states.
    #[error("has no readable alarm state: {reason}: the state topic must be written by genwatch alone")]
    Foreign {
        /// Which record, and what is wrong with it.
        reason: String,
    },
    /// A topic that must have this partition doesn't.
    #[error("can't be worked: {reason}")]
    Companion {
        /// Which, and what to do.
        reason: String,
    },
}

impl Fault {
    /// Whether it's the whole topic's, so that there's nothing for this worker to do.
    #[must_use]
    pub fn is_of_the_topic(&self) -> bool {
        matches!(self, Fault::NewTopic { .. } | Fault::SharedGroup { .. })
    }
}

/// What comes next.
#[derive(Debug)]
pub enum RestoreStep {
    /// Another question.
    Ask(Question),
    /// Work.
    Start(Start),
    /// Nothing.
    Refuse(Fault),
}

/// A restore under way.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The open question.
    pub ask: AskId,
    found: Found,
    log: Option<Log>,
}

impl Restore {
    /// Asked first.
    pub const FIRST: Question = Question::Companions;

    /// With [`Restore::FIRST`] asked by this name. What this worker knows from having worked the partition before: the topic
    /// that it was of, and the offset at which it was told that there is nothing.
    #[must_use]
    pub fn new(ask: AskId, worked: Option<TopicId>, stopped: Option<Offset>) -> Restore {
        Restore { ask, found: Found { worked, stopped, ..Found::default() }, log: None }
    }

    /// Takes the answer to the open question.
    pub fn next(&mut self, answer: Answer, policies: Policies) -> RestoreStep {
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

    fn decide(&mut self, policies: Policies) -> RestoreStep {
        // It's asked for before anything is decided.
        let Some(log) = self.log.take() else { return RestoreStep::Ask(Question::Log) };
        match std::mem::take(&mut self.found).start(&log, policies) {
            Ok(start) => RestoreStep::Start(start),
            Err(fault) => RestoreStep::Refuse(fault),
        }
    }
}

/// The states of one partition, as far as the records of the state topic are read.
#[derive(Debug, Default)]
pub struct StateFold(HashMap<GeneratorId, StoredState>);

impl StateFold {
    /// Takes the next record of the partition.
    ///
    /// # Errors
    /// When it isn't a state: somebody else writes to the topic.
    pub fn apply(
        &mut self,
        topic: &str,
        partition: PartitionId,
        offset: Offset,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let foreign = |reason: String| Fault::Foreign {
            reason: format!("offset {offset} of partition {partition} of {topic} is none ({reason})"),
        };
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        let generator = key.ok_or_else(|| foreign("its key is no generatorID".to_owned()))?;
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

    /// All that are there.
    #[must_use]
    pub fn into_states(self) -> States {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    #[test]
    fn the_last_state_of_each_generator_counts_and_a_tombstone_deletes_it() {
        let mut fold = StateFold::default();
        let mut apply = |offset, key: &[u8], value: Option<&[u8]>| {
            fold.apply("g_state", PartitionId(0), Offset(offset), Some(key), value)
        };
        for (offset, key, value) in [(0, "a", Some(5)), (1, "b", Some(6)), (2, "a", Some(7)), (3, "b", None)]
        {
            let state = |offset| {
                StoredState::of_decommissioned(&key.into(), None, Offset(offset), Epoch(0)).to_json()
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
