//! The aggregates as a [`Handler`]: readings, or parts of smaller windows, become aggregates.

use super::{Aggregate, InvalidPart};
use super::{AggregateCounts, AggregateState, Aggregator, HEADER, Part, StoredAggregates};
use crate::engine::encode::{Encoder, OutgoingRecord};
use crate::handler::effect::Output;
use crate::handler::{Handler, Incoming, Outputs, Place, Verdict, Watch};
use crate::reading::{self, BadRecord, ErrorCode, Parsed, Values};
use crate::types::{Millis, Now, PartitionId};

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Readings.
    Readings,
    /// Aggregates of smaller windows.
    Aggregates {
        /// The length of those, in milliseconds.
        window: i64,
    },
}

/// Makes aggregates. A window closes by the watermark of its partition; where the partition is read to its end and has
/// been quiet, by the wall clock.
#[derive(Clone, Debug)]
pub struct Downsampler {
    aggregator: Aggregator,
    input: Input,
    /// How long a partition has to be quiet, in milliseconds, before the wall clock counts.
    quiet: i64,
}

/// What a record asks of its generator.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Add a reading.
    Reading(Values),
    /// Add a part of a smaller window.
    Part(Box<Part>),
    /// Close all windows and forget the generator.
    Decommission,
}

/// An aggregate, and the partition of its readings, which is its own.
#[derive(Clone, Debug)]
pub struct PlacedAggregate {
    /// The partition.
    pub partition: PartitionId,
    /// The aggregate.
    pub aggregate: Aggregate,
}

impl PartialEq for PlacedAggregate {
    fn eq(&self, other: &PlacedAggregate) -> bool {
        self.partition == other.partition && self.aggregate.to_json() == other.aggregate.to_json()
    }
}

/// The counters of [`Downsampler`], by number.
pub const COUNTERS: [&str; 3] = ["dropped", "corrected", "out_of_order"];

impl Downsampler {
    /// Makes aggregates of this input.
    #[must_use]
    pub fn new(aggregator: Aggregator, input: Input) -> Downsampler {
        // Aggregates come once a window, each some time after its end: silence in between says nothing.
        let pause = match input {
            Input::Readings => 0,
            Input::Aggregates { window } => window.saturating_mul(2),
        };
        let quiet = aggregator.grace().saturating_add(pause);
        Downsampler { aggregator, input, quiet }
    }

    /// The aggregator.
    #[must_use]
    pub fn aggregator(&self) -> &Aggregator {
        &self.aggregator
    }
}

impl Output for PlacedAggregate {
    /// JSON and header of an aggregate with three fields.
    fn bytes(&self) -> usize {
        1_600
    }

    fn record<'a>(&'a self, names: &'a Encoder) -> OutgoingRecord<'a> {
        let PlacedAggregate { partition, aggregate } = self;
        OutgoingRecord {
            partition: Some(*partition),
            timestamp: Some(aggregate.end()),
            headers: vec![
                ("content-type".into(), Some(b"application/json"[..].into())),
                (HEADER.into(), Some(aggregate.part_json().into())),
            ],
            ..names.output(aggregate.generator().as_str().as_bytes(), aggregate.to_json())
        }
    }
}

impl Handler for Downsampler {
    type Task = Task;
    type Answer = ();
    type State = AggregateState;
    type Stored = StoredAggregates;
    type Output = PlacedAggregate;

    const EVENT_TIME: bool = true;

    #[inline]
    fn parse<'a>(&self, record: &Incoming<'a>) -> Result<(&'a str, Task), BadRecord> {
        match self.input {
            Input::Readings => Ok(match reading::parse(record.key, record.value)? {
                Parsed::Reading { generator, values } => (generator, Task::Reading(values)),
                Parsed::Decommissioned { generator } => (generator, Task::Decommission),
            }),
            Input::Aggregates { .. } => {
                // The rules for the key are those of a reading.
                let Parsed::Decommissioned { generator } = reading::parse(record.key, None)? else {
                    return Err(BadRecord {
                        code: ErrorCode::KeyMissing,
                        message: "it has no key".to_owned(),
                    });
                };
                let part = (record.header)(HEADER).ok_or_else(|| BadRecord {
                    code: ErrorCode::MissingField,
                    message: format!("it has no header {HEADER}: genwatch downsample didn't write it"),
                })?;
                let part = Part::from_json(&part).and_then(|part| {
                    self.aggregator.check(&part)?;
                    Ok(part)
                });
                Ok((generator, Task::Part(Box::new(part.map_err(bad_part)?))))
            }
        }
    }

    fn create(&self, _: Now) -> AggregateState {
        AggregateState::new()
    }

    fn restore(&self, stored: StoredAggregates, _: Now) -> AggregateState {
        // Checked before.
        self.aggregator.restore(stored).unwrap_or_default()
    }

    fn check(&self, stored: &StoredAggregates) -> Result<(), String> {
        self.aggregator.check_stored(stored).map_err(|error| error.to_string())
    }

    fn store(&self, state: &AggregateState) -> StoredAggregates {
        self.aggregator.store(state)
    }

    #[inline]
    fn handle(
        &self,
        state: &mut AggregateState,
        task: Task,
        (): (),
        at: &Place<'_>,
        out: &mut Outputs<'_, PlacedAggregate>,
    ) -> Verdict {
        let (mut made, mut counts) = (Vec::new(), AggregateCounts::default());
        let Place { generator, source, watermark, .. } = *at;
        let added = match task {
            Task::Reading(values) => {
                self.aggregator.add(generator, state, source.at, &values, watermark, &mut made, &mut counts)
            }
            Task::Part(part) => {
                let added =
                    self.aggregator.add_part(generator, state, &part, watermark, &mut made, &mut counts);
                // Checked when it was parsed.
                added.unwrap_or(super::Added::Same)
            }
            Task::Decommission => {
                self.aggregator.finish(generator, state, &mut made);
                push(out, source.partition, made);
                return Verdict::Gone;
            }
        };
        let counted = [counts.late_dropped, counts.late_corrected, counts.out_of_order];
        for (counter, _) in counted.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            out.count(counter);
        }
        push(out, source.partition, made);
        match added {
            super::Added::Same => Verdict::Same,
            super::Added::Changed => Verdict::Dirty,
            super::Added::Emitted => Verdict::Changed,
        }
    }

    /// A decommissioning isn't a reading: it says nothing about the time of others.
    #[inline]
    fn event_time(&self, task: &Task, at: Millis) -> Option<Millis> {
        match task {
            Task::Reading(_) => Some(at),
            Task::Part(part) => Some(part.event_time()),
            Task::Decommission => None,
        }
    }

    fn watches(&self) -> bool {
        true
    }

    fn watch(
        &self,
        state: &mut AggregateState,
        at: &Watch<'_>,
        out: &mut Outputs<'_, PlacedAggregate>,
    ) -> Verdict {
        let is_quiet = at.quiet.is_some_and(|quiet| quiet >= self.quiet);
        let up_to = if is_quiet { at.asked.wall.max(at.watermark) } else { at.watermark };
        let mut made = Vec::new();
        self.aggregator.close(at.generator, state, up_to, &mut made);
        let is_empty = self.aggregator.is_empty(state, at.watermark);
        let has_closed = !made.is_empty();
        push(out, at.partition, made);
        match (is_empty, has_closed) {
            (true, _) => Verdict::Gone,
            (false, true) => Verdict::Changed,
            (false, false) => Verdict::Same,
        }
    }

    fn deadline(&self, state: &AggregateState) -> Option<Millis> {
        self.aggregator.deadline(state)
    }

    fn counters(&self) -> usize {
        COUNTERS.len()
    }
}

fn push(out: &mut Outputs<'_, PlacedAggregate>, partition: PartitionId, made: Vec<Aggregate>) {
    for aggregate in made {
        out.push(PlacedAggregate { partition, aggregate });
    }
}

fn bad_part(error: InvalidPart) -> BadRecord {
    let code = match error {
        InvalidPart::NotAPart(_) => ErrorCode::NotJson,
        InvalidPart::Contradiction | InvalidPart::Misaligned { .. } => ErrorCode::OutOfRange,
    };
    BadRecord { code, message: error.to_string() }
}
