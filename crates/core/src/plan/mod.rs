//! The advisor: what a group needs, computed from what was measured.
//!
//! * [`measurements`]: what it is told.
//! * [`top_keys`]: which generators have most of a worker's readings.

pub mod measurements;
pub mod top_keys;
