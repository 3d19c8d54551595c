//! What is done with the records of one generator: the seam between the pool and its users.
//!
//! A [`Handler`] turns a generator's state and its next record into a new state and outputs. It is pure: no Kafka,
//! clock or thread. The pool calls it for one record of a generator at a time, in the order of the log, and makes
//! state and outputs durable together. So a handler has exactly-once outputs, and a state that moves with its
//! partition, without knowing of either:
//!
//! * The state that is stored names the last record that it covers. A record that it covers isn't handled again:
//!   [`Tracked`] sees to that.
//! * A handler that answers [`Verdict::Dirty`] has a state that is stored once a commit interval, however many
//!   records changed it, before the committed offset passes the first of them.
//!
//! Two handlers ship: the alarm detector ([`crate::alarm::detector::Detector`]), whose state changes seldom, and the
//! aggregates ([`crate::aggregate`]), whose state changes with each reading.
//!
//! # Example
//!
//! Counts the readings of each generator, and says so at each hundredth:
//!
//! ```
//! use genwatch_core::handler::{Handler, Incoming, Outputs, Place, Verdict};
//! use genwatch_core::reading::{self, BadRecord, Parsed};
//! use genwatch_core::types::Now;
//! use genwatch_core::handler::effect::Keyed;
//!
//! struct Counter;
//!
//! impl Handler for Counter {
//!     type Task = ();
//!     type Answer = ();
//!     type State = u64;
//!     type Stored = Count;
//!     type Output = Keyed;
//!
//!     fn parse<'a>(&self, record: &Incoming<'a>) -> Result<(&'a str, ()), BadRecord> {
//!         let (Parsed::Reading { generator, .. } | Parsed::Decommissioned { generator }) =
//!             reading::parse(record.key, record.value)?;
//!         Ok((generator, ()))
//!     }
//!
//!     fn create(&self, _: Now) -> u64 {
//!         0
//!     }
//!
//!     fn restore(&self, stored: Count, _: Now) -> u64 {
//!         stored.count
//!     }
//!
//!     fn store(&self, state: &u64) -> Count {
//!         Count { count: *state }
//!     }
//!
//!     fn handle(&self, state: &mut u64, (): (), (): (), at: &Place<'_>, out: &mut Outputs<'_, Keyed>) -> Verdict {
//!         *state += 1;
//!         if *state % 100 > 0 {
//!             return Verdict::Dirty;
//!         }
//!         let value = format!(r#"{{"readings":{state}}}"#).into_bytes();
//!         out.push(Keyed { generator: at.generator.clone(), value });
//!         Verdict::Changed
//!     }
//! }
//!
//! #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
//! struct Count {
//!     count: u64,
//! }
//! ```

pub mod effect;
pub mod stored;
pub mod tracked;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::reading::BadRecord;
use crate::types::{GeneratorId, Millis, Now, Offset, PartitionId, TopicId};
use effect::{Effect, Output};

pub use stored::StoredState;
pub use tracked::Tracked;

/// A record as it comes from the log.
pub struct Incoming<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Returns the value of its last header of this name.
    pub header: &'a dyn Fn(&str) -> Option<Vec<u8>>,
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("key", &self.key).field("value", &self.value).finish_non_exhaustive()
    }
}

/// The position and time of the record that is being applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadingPosition {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its event time.
    pub at: Millis,
}

/// The log that holds the record, as state records name it.
#[derive(Clone, Copy, Debug)]
pub struct LogIdentity<'a, E> {
    /// The id of its topic, if known.
    pub topic: Option<&'a TopicId>,
    /// Returns the record's leader epoch. Called only where the state changes or may already cover the record.
    pub epoch: E,
}

/// Where and when a record is handled.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its generator.
    pub generator: &'a GeneratorId,
    /// Its position and time.
    pub source: ReadingPosition,
    /// The current time. What follows from it isn't a function of the log.
    pub now: Now,
    /// The latest event time in the partition before this record; see [`Handler::EVENT_TIME`].
    pub watermark: Millis,
    /// Whether the state topic knows the generator.
    pub is_stored: bool,
}

/// When time has passed for a generator that has no record in process.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    /// The generator.
    pub generator: &'a GeneratorId,
    /// Its partition.
    pub partition: PartitionId,
    /// The offset of its last record.
    pub last: Offset,
    /// The offset that its stored state covers.
    pub covered: Offset,
    /// The time up to which the log is known to hold no unread record.
    pub asked: Now,
    /// The current time.
    pub now: Now,
    /// The latest event time in the partition; see [`Handler::EVENT_TIME`].
    pub watermark: Millis,
    /// For how many milliseconds before `asked` the partition had no record, where it is read to its end; `None` where
    /// the watermark has reached a deadline.
    pub quiet: Option<i64>,
    /// Whether the state topic knows the generator.
    pub is_stored: bool,
}

/// What a record, or the time, has done to a generator's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that must be remembered.
    Same,
    /// It has changed, and nobody outside knows: it is stored before the committed offset passes the record.
    Dirty,
    /// It has changed, and is stored at once, together with the outputs.
    Changed,
    /// The generator is gone: its state is deleted. Outputs go out before that.
    Gone,
}

/// Takes a handler's outputs.
#[derive(Debug)]
pub struct Outputs<'a, O> {
    effects: &'a mut Vec<Effect<O>>,
    counts: &'a mut [u64],
}

impl<'a, O> Outputs<'a, O> {
    pub(crate) fn new(effects: &'a mut Vec<Effect<O>>, counts: &'a mut [u64]) -> Outputs<'a, O> {
        Outputs { effects, counts }
    }

    /// Adds an output behind the others.
    pub fn push(&mut self, output: O) {
        self.effects.push(Effect::Output(output));
    }

    /// Counts an event in the handler's counter of this number; see [`Handler::counters`].
    pub fn count(&mut self, counter: usize) {
        if let Some(count) = self.counts.get_mut(counter) {
            *count += 1;
        }
    }
}

/// The part of a state record that is the handler's own, as JSON members beside those of [`StoredState`].
pub trait Stored:
    Clone + fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static
{
}

impl<S: Clone + fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static> Stored
    for S
{
}

/// What is done with the records of a generator. See the [module](self).
///
/// All methods are deterministic, but for what they take from [`Place::now`] and [`Watch`]: after a crash the same
/// records are handled again, and what was visible before must come out the same.
pub trait Handler: Sized {
    /// What a record asks for.
    type Task: Clone + fmt::Debug + PartialEq;
    /// What a lookup before [`Handler::handle`] found; the default where there is no lookup, or it took too long.
    type Answer: Default;
    /// What is known of a generator.
    type State: fmt::Debug;
    /// The same, as it is stored.
    type Stored: Stored;
    /// What leaves, besides states.
    type Output: Output;

    /// Whether [`Place::watermark`] and [`Handler::deadline`] matter. The watermark is kept with the committed
    /// offset, so that it is a function of the log. Only for records that are handled as they arrive.
    const EVENT_TIME: bool = false;

    /// Reads a record: its generator, and what it asks for.
    ///
    /// # Errors
    /// With what is wrong with it. A bad record is nobody's: it delays and stops nothing.
    fn parse<'a>(&self, record: &Incoming<'a>) -> Result<(&'a str, Self::Task), BadRecord>;

    /// The state of a generator that no record has touched.
    fn create(&self, now: Now) -> Self::State;

    /// Checks a state that another owner has stored, before it is restored.
    ///
    /// # Errors
    /// With the reason why it can't be: the partition isn't processed then.
    fn check(&self, _stored: &Self::Stored) -> Result<(), String> {
        Ok(())
    }

    /// The state that another owner has stored.
    fn restore(&self, stored: Self::Stored, now: Now) -> Self::State;

    /// What to store of a state.
    fn store(&self, state: &Self::State) -> Self::Stored;

    /// Handles a record that the state doesn't cover.
    fn handle(
        &self,
        state: &mut Self::State,
        task: Self::Task,
        answer: Self::Answer,
        at: &Place<'_>,
        out: &mut Outputs<'_, Self::Output>,
    ) -> Verdict;

    /// Takes note of a record, also of one that the state covers.
    fn seen(&self, _state: &mut Self::State, _now: Now) {}

    /// The event time of a record of this timestamp; `None` if the record says nothing about the time.
    fn event_time(&self, _task: &Self::Task, at: Millis) -> Option<Millis> {
        Some(at)
    }

    /// Whether it acts on time that passes, by [`Handler::watch`].
    fn watches(&self) -> bool {
        false
    }

    /// Acts on time that has passed: called about once a second where a partition is read to its end, and when the
    /// watermark reaches a [`Handler::deadline`]. [`Verdict::Dirty`] counts as [`Verdict::Same`].
    fn watch(
        &self,
        _state: &mut Self::State,
        _at: &Watch<'_>,
        _out: &mut Outputs<'_, Self::Output>,
    ) -> Verdict {
        Verdict::Same
    }

    /// The event time at which [`Handler::watch`] is to be called next.
    fn deadline(&self, _state: &Self::State) -> Option<Millis> {
        None
    }

    /// Whether a generator that was never stored may be forgotten, as a new one would do as well.
    fn may_forget(&self, _state: &Self::State, _idle: i64, _now: Now) -> bool {
        false
    }

    /// How many counters [`Outputs::count`] has.
    fn counters(&self) -> usize {
        0
    }
}
