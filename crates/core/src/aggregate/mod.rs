//! Statistics of each generator by window of event time: the logic of `genwatch downsample`.
//!
//! Pure: readings and watermarks go in, aggregates come out. Kafka's words, the clock that closes a silent generator's
//! last window, and the envelope of a stored state are its caller's.
//!
//! # Layout
//!
//! * [`Aggregator`]: the decisions: the window of a reading, late readings, when a window closes.
//! * [`downsampler`]: the handler.
//! * [`AggregateState`]: what is remembered of one generator; [`StoredAggregates`]: its stored form.
//! * [`Aggregate`]: an output; [`Part`]: all of a window, to store it or to merge it into a larger one.
//! * `window`, `field`: one window, one of its fields. [`exact_sum`], `sketch`: its sums and percentiles.
//! * [`fuel`]: use, refuels, and how long the rest lasts, with the formulae.
//!
//! # What is computed
//!
//! * `min`, `max`, `mean`, `last`: the mean is the exact sum, rounded, divided by the count; last is that of the latest
//!   event time, of equal ones the later in the log. A mean that would need numbers over
//!   [`exact_sum::MAX_SUMMAND`] is `null`.
//! * `p50`, `p95`, `p99`: the value of rank floor(q * (n - 1)), within 1 %.
//! * `above`: the seconds in which a rule's raise condition held. The condition as of one reading holds until the
//!   generator's next one, if that comes within [`MAX_GAP`] and within a window's length.
//! * `fuel_used`, `hours_left`: see [`fuel`]; as of the window's end.
//!
//! Two readings are compared (`above`, fuel) only in order of event time, and if the second one comes within
//! [`MAX_SILENCE`]. A reading that is older than the previous one counts only by its values.
//!
//! # Invariants
//!
//! 1. A state that is stored and restored, wherever, continues with the same results, to the bit.
//! 2. The results don't depend on when [`Aggregator::close`] is called, as long as it is called with the watermark.
//! 3. Parts of an in-order stream merge to what the stream itself comes to.
//! 4. A generator has at most grace / window + 2 open windows, whatever its clock says.
//! 5. No input panics: times saturate, numbers that can't be summed make the sum unknown.

mod aggregator;
pub mod downsampler;
pub mod exact_sum;
mod field;
pub mod fuel;
mod output;
mod part;
mod rule_name;
mod sketch;
mod state;
mod window;

pub use aggregator::{
    Added, AggregateCounts, Aggregator, InvalidWindows, Late, MAX_GAP, MAX_SILENCE, MAX_WINDOWS,
};
pub use output::Aggregate;
pub use part::{HEADER, InvalidPart, Part};
pub use state::{AggregateState, RestoreError, StoredAggregates};
