//! Alarms: what the rules say, the phase each generator is in, the events that leave.
//!
//! * [`rules`]: the rules file, read and checked.
//! * [`machine`]: one step of one rule for one generator: the table of phases in `docs/formats.md`, nothing else.
//! * [`state`]: the alarm state of one generator and its form in the state topic.
//! * [`effect`]: what leaves the worker: alerts, states, dead letters.
//! * [`event`]: an alert event and its form in the alerts topic.
//! * [`detector`]: all rules applied to one reading of one generator; gives effects.
//!
//! Pure: no Kafka, clock, thread or randomness. Evaluation is in log order; timestamps only measure durations.

pub mod detector;
pub mod effect;
pub mod event;
pub mod machine;
pub mod rules;
pub mod state;
