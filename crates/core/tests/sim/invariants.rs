//! What must hold at every step, and the word for its violation.

use std::fmt;

/// What a run may not break. The numbers in brackets are those of `docs/guarantees.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// What is visible of a generator is a prefix of what the oracle says about its records, at least as far as the
    /// committed offset: nothing lost, nothing twice, in order, no group of effects split; and the alarm states to be
    /// restored are the oracle's. (G2, G9)
    Effects,
    /// In a log that was made anew, or has lost its end, no reading is taken for one of the log before; and where offsets or
    /// states are of another log, that is told. (G14)
    OtherLog,
    /// The dead letters that are visible are those of the bad records below the committed offset. (G2, G10)
    Letters,
    /// A committed offset never goes back, nor beyond a record that isn't finished. (G2, G3)
    Offsets,
    /// Of a generator, one reading is worked at a time in the group of those who are members. (G1)
    OneAtATime,
    /// A generator's readings are worked in the order of the log, each once in an assignment. (G1)
    Order,
    /// Nothing of a partition is committed by who doesn't own it. (G4, G11)
    Owner,
    /// Nothing is started or taken in after a revocation; nothing is committed after a loss. (G4)
    GivenUp,
    /// A partition is given back when nothing of it runs, its finished prefix is committed and no commit holds it. (G5)
    Release,
    /// Records and bytes held stay within the bounds. (G6)
    Bounds,
    /// A generator whose reading could be worked is worked while there is concurrency left. (G7)
    HeadOfLine,
    /// What a finished reading calls for is in the next commit, which leaves after the linger, however long the work of
    /// other generators of its partition takes. (G7)
    Visible,
    /// A commit is as large as it may be; one that may be too large is a single group of effects. (G2)
    Chunk,
    /// Under at-least-once, what is durable isn't sent again by the same process. (G9)
    Once,
    /// A generator is silent only if no reading of it stood in the log, unread or too recent, when the end was asked.
    Silence,
    /// What the pool counts is what happened.
    Counts,
    /// What librdkafka asks is answered once, in order, and with what it gave; nothing is open as the group is left.
    Answered,
    /// Once nothing fails any more, every worker is a member, and each partition is worked by one of them.
    Rejoined,
    /// A partition that can't be restored holds up no other.
    Isolated,
    /// Once nothing fails any more, everything is worked and committed soon.
    Progress,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An invariant that doesn't hold, and how one sees it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
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
