//! The MQTT edge: generators report to an MQTT broker, each in its own branch of the topic tree, and a bridge forwards
//! their messages to Kafka.
//!
//! * [`topic`]: where in the tree a generator reports.
//! * [`message`]: what an MQTT message becomes in Kafka.
//! * [`unacked`]: messages received but not yet acknowledged; detects repeats.
//! * [`share`]: which generators belong to a bridge, if there are several.
//! * [`broker`], [`tls`]: how to reach the broker, and what its refusals mean; [`client`]: the MQTT client.
//! * [`bridge`]: a message's path from subscription to acknowledgement.
//! * [`fleet`]: simulated generators, each with its own connection and last will.
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
