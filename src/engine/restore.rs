//! What is asked before a partition starts, in which order, and where it then starts.
//!
//! The order matters (KIP-447). A previous owner's last transaction writes its markers to the group's offsets and to the
//! state partition at different moments, so the committed offset comes first, and while a transaction on it is open it is
//! waited for; *then* the states, up to the high watermark of this moment. The log's bounds come last: they must not be
//! older than the offsets that they are compared with.

use crate::alarm::state::StoredState;
use crate::log::{GeneratorId, Offset};

/// Names one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What is asked about one partition. Each is answered however long it takes, or forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Do the topics that follow the readings topic have this partition? They are grown if not.
    Companions,
    /// What has the group committed?
    Committed,
    /// Which alarm states are stored?
    States,
    /// Where does the log begin and end?
    Log,
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// They have it.
    Companions,
    /// The stable offset; `None` where nothing is committed.
    Committed(Option<Offset>),
    /// The states of the partition's generators.
    States(Vec<(GeneratorId, StoredState)>),
    /// The bounds of the log.
    Log {
        /// The first offset in it.
        low: Offset,
        /// The offset behind the last.
        high: Offset,
    },
    /// It can't be answered, now or later.
    Never(Fault),
}

/// What to do when the committed offset isn't in the log any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutOfRange {
    /// Don't work the partition: readings were lost before they were worked.
    Fail,
    /// Go on with the earliest record there is, loudly.
    Earliest,
}

/// Why a partition can't be worked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Retention has overtaken the group, or the topic was made anew.
    #[error(
        "was committed up to offset {committed}, but the log has {low} to {high}: readings were deleted before they were \
         worked, or the topic was made anew; pass --on-out-of-range earliest to go on from offset {low}"
    )]
    OutOfRange {
        /// The committed offset.
        committed: Offset,
        /// The first offset in the log.
        low: Offset,
        /// The end of the log.
        high: Offset,
    },
    /// The same, while it was worked.
    #[error(
        "was truncated below offset {offset}, which was to be read next: readings were lost before they were worked; restart \
         with --on-out-of-range earliest to go on from the first one there is"
    )]
    Truncated {
        /// The next offset to be read.
        offset: Offset,
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

/// What a partition starts with.
#[derive(Debug)]
pub struct Start {
    /// The first offset to work.
    pub offset: Offset,
    /// The end of the log at this moment.
    pub end: Offset,
    /// The alarm states of its generators.
    pub states: Vec<(GeneratorId, StoredState)>,
    /// The committed offset, where that isn't in the log.
    pub skipped: Option<Offset>,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
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
    committed: Option<Offset>,
    states: Vec<(GeneratorId, StoredState)>,
}

impl Restore {
    /// Asked first.
    pub const FIRST: Question = Question::Companions;

    /// With [`Restore::FIRST`] asked by this name.
    #[must_use]
    pub fn new(ask: AskId) -> Restore {
        Restore { ask, committed: None, states: Vec::new() }
    }

    /// Takes the answer to the open question.
    pub fn next(&mut self, answer: Answer, on_out_of_range: OnOutOfRange) -> Next {
        match answer {
            Answer::Companions => Next::Ask(Question::Committed),
            Answer::Committed(committed) => {
                self.committed = committed;
                Next::Ask(Question::States)
            }
            Answer::States(states) => {
                self.states = states;
                Next::Ask(Question::Log)
            }
            Answer::Log { low, high } => match start(self.committed, low, high, on_out_of_range) {
                Err(fault) => Next::Refuse(fault),
                Ok((offset, skipped)) => {
                    let states = std::mem::take(&mut self.states);
                    Next::Start(Start { offset, end: high, states, skipped })
                }
            },
            Answer::Never(fault) => Next::Refuse(fault),
        }
    }
}

/// Where to start, and the committed offset where that isn't in the log.
fn start(
    committed: Option<Offset>,
    low: Offset,
    high: Offset,
    on_out_of_range: OnOutOfRange,
) -> Result<(Offset, Option<Offset>), Fault> {
    match committed {
        None => Ok((low, None)),
        Some(committed) if (low..=high).contains(&committed) => Ok((committed, None)),
        Some(committed) => match on_out_of_range {
            OnOutOfRange::Fail => Err(Fault::OutOfRange { committed, low, high }),
            OnOutOfRange::Earliest => Ok((low, Some(committed))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_starts_where_it_was_committed_or_as_told_where_that_is_gone() {
        let start =
            |committed: Option<i64>, policy| start(committed.map(Offset), Offset(10), Offset(20), policy);
        for policy in [OnOutOfRange::Fail, OnOutOfRange::Earliest] {
            assert_eq!(start(None, policy), Ok((Offset(10), None)));
            for within in [10, 15, 20] {
                assert_eq!(start(Some(within), policy), Ok((Offset(within), None)));
            }
        }
        for outside in [9, 21] {
            assert!(matches!(start(Some(outside), OnOutOfRange::Fail), Err(Fault::OutOfRange { .. })));
            assert_eq!(start(Some(outside), OnOutOfRange::Earliest), Ok((Offset(10), Some(Offset(outside)))));
        }
    }
}
