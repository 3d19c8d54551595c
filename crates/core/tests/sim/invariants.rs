//! What must hold at every step, and the error when it doesn't.

use std::fmt;

/// What a run must not break. The numbers in brackets are those of `docs/guarantees.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// What is visible of a generator is a prefix of the oracle's results for its records, at least up to the
    /// committed offset: nothing lost, nothing twice, in order, no group of effects split; and the alarm states to
    /// restore are the oracle's. (G2, G9)
    Effects,
    /// In a log that was re-created or has lost its end, no reading is taken for one of the previous log; and if
    /// offsets or states belong to another log, that is reported. (G14)
    OtherLog,
    /// The visible dead letters are those of the bad records below the committed offset. (G2, G10)
    Letters,
    /// A committed offset never goes back, nor past an unfinished record. (G2, G3)
    Offsets,
    /// Among current members, one reading of a generator is processed at a time. (G1)
    OneAtATime,
    /// A generator's readings are processed in log order, each once per assignment. (G1)
    Order,
    /// Only its owner commits a partition. (G4, G11)
    Owner,
    /// Who takes a partition over ends no transaction of a member. (G4)
    Living,
    /// Nothing is started or taken in after a revocation; nothing is committed after a loss. (G4)
    GivenUp,
    /// A partition is given back when none of its readings runs, its finished prefix is committed and no commit holds
    /// it. (G5)
    Release,
    /// Records and bytes in memory stay within the bounds. (G6)
    Bounds,
    /// While there is concurrency left, a generator with a reading to process is processed. (G7)
    HeadOfLine,
    /// The effects of a finished reading are in the next commit, which leaves after the linger, however long other
    /// generators of its partition take. (G7)
    Visible,
    /// A commit is no larger than allowed, unless it is a single group of effects. (G2)
    Chunk,
    /// Under at-least-once, the same process doesn't send again what is durable. (G9)
    Once,
    /// A generator is silent only if the log held no unread or recent reading of it when the end was asked.
    Silence,
    /// The pool's counts are correct.
    Counts,
    /// Every librdkafka rebalance is answered once, in order, and with what it listed; none is open when the worker
    /// leaves.
    Answered,
    /// Once faults cease, every worker is a member, and exactly one of them processes each partition.
    Rejoined,
    /// A partition that can't be restored blocks no other.
    Isolated,
    /// Once faults cease, everything is soon processed and committed.
    Progress,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A broken invariant, and the evidence.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The invariant.
    pub invariant: Invariant,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} is broken: {}", self.invariant, self.what)
    }
}

/// Returns a [`Violation`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $invariant:ident, $($what:tt)+) => {
        if !$condition {
            return Err($crate::invariants::Violation {
                invariant: $crate::invariants::Invariant::$invariant,
                what: format!($($what)+),
            });
        }
    };
}
pub(crate) use ensure;
