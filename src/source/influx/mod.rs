//! InfluxDB as the database of a source: Flux on version 2, SQL on version 3.
//!
//! * [`query`]: the query, and how it is told its range. * [`client`]: asks it. * [`annotated_csv`], [`json_lines`]: the
//!   rows of an answer.

pub mod annotated_csv;
pub mod client;
pub mod json_lines;
pub mod query;
