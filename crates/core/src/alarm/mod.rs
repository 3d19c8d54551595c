//! Alarms: the rules, the phase of each generator, the events that leave.
//!
//! * [`rules`]: reads and checks the rules file.
//! * [`machine`]: one step of one rule for one generator: the table of phases in `docs/formats.md`.
//! * [`state`]: the alarm state of one generator and its form in the state topic.
//! * [`event`]: an alert event and its form in the alerts topic.
//! * [`detector`]: applies all rules to one reading of one generator: a handler.
//!
//! Pure: no Kafka, clock, thread or randomness. Evaluation is in log order; timestamps only measure durations.

pub mod detector;
pub mod event;
pub mod machine;
pub mod rules;
pub mod state;
