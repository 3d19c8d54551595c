//! How far a consumer group is, partition by partition: what `genwatch status` shows.
//!
//! * [`observer`]: asks Kafka, once or again and again.
//! * [`roster`]: what workers say of themselves. [`watched`]: looks become rates, trends and verdicts.
//! * [`document`]: the result, as one value and as JSON. [`lines`]: as a table of plain lines.
//! * [`history`]: one generator's last minutes. [`follower`]: reads them.
//! * [`screen`]: a terminal UI of all that.
//! * [`words`]: numbers and times as people read them.

pub mod document;
pub mod follower;
pub mod history;
pub mod lines;
pub mod observer;
pub mod roster;
pub mod screen;
pub mod watched;
pub mod words;
