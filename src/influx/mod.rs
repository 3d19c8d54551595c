//! What sink and source have in common: how to reach an InfluxDB, and what its answers say.
//!
//! * [`http`]: the agent, its TLS, the token. * [`answer`]: reasons, and when to ask again.

pub mod answer;
pub mod http;
