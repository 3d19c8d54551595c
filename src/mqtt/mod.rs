//! The MQTT edge: generators report to an MQTT broker, each in its own branch of the topic tree, and a bridge forwards what
//! they say to Kafka.
//!
//! * [`topic`]: where in the tree a generator reports.
//! * [`message`]: what an MQTT message becomes in Kafka.
//! * [`unacked`]: what the broker has given us and we haven't acknowledged; which message is a repeat.
//! * [`share`]: which generators are a bridge's own, where there are several.
//! * [`broker`], [`tls`]: how to reach the broker, and what its refusals mean; [`client`]: a client of it.
//! * [`bridge`]: the way of a message, from the subscription to the acknowledgement.
//! * [`fleet`]: simulated generators, each with a connection and a last will of its own.
//!
//! The first four are pure: no client, clock or thread.

pub mod bridge;
pub mod broker;
pub mod client;
pub mod fleet;
pub mod message;
pub mod share;
pub mod tls;
pub mod topic;
pub mod unacked;
