//! A client that won't join its group again, though nothing is in its way.
//!
//! Where the topic grows while a revocation is unanswered, librdkafka joins again at once, and keeps what it had kept back for
//! after the answer (`rkcg_rebalance_incr_assignment`, 2.12.1). Unless another revocation follows it does so for ever, and that
//! counts as "a rebalance is under way": an eviction is then neither told nor followed by a join, and a new subscription is
//! put off. Only another client helps (`replace.rs`). (`a_member_that_was_overtaken_is_deaf_afterwards`, tests/conformance)

use std::time::{Duration, Instant};

use super::Worker;
use crate::kafka::config::Connection;
use crate::log::PartitionId;

/// How often it's looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the coordinator may take to answer. Nothing is worked meanwhile, as there's no membership.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// A client that can join again does so within two sessions and this, once its coordinator answers.
const JOIN: Duration = Duration::from_secs(10);

/// Since when the client has been no member, while the coordinator answered.
#[derive(Debug)]
pub(super) struct Outside {
    enough: Duration,
    since: Option<Instant>,
    looked: Instant,
}

impl Outside {
    pub(super) fn new(connection: &Connection) -> Outside {
        Outside { enough: 2 * connection.session_timeout() + JOIN, since: None, looked: Instant::now() }
    }
}

impl Worker {
    /// Whether the client has been in the group, and has been out of it for so long that it won't join again by itself. An
    /// outage is waited out: the client can't join then.
    pub(super) fn is_deaf(&mut self) -> bool {
        if self.outside.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        self.outside.looked = Instant::now();
        let handle = self.consumer.handle();
        let was_inside = self.summary.rebalances > 0;
        let may_join = was_inside && !self.engine.owes_an_answer() && !self.engine.status().draining;
        let is_outside = may_join && !handle.has_member_id();
        if !is_outside || handle.committed(&[PartitionId(0)], PROBE_TIMEOUT).is_err() {
            self.outside.since = None;
            return false;
        }
        self.outside.since.get_or_insert_with(Instant::now).elapsed() > self.outside.enough
    }
}
