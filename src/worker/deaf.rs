//! A client that won't join its group again, though nothing is in its way; and one that may not have heard what the group gave it.
//!
//! *Won't join.* Where the topic grows while a revocation is unanswered, librdkafka joins again at once, and keeps what it had kept back for
//! after the answer (`rkcg_rebalance_incr_assignment`, 2.12.1). Unless another revocation follows it does so for ever, and that
//! counts as "a rebalance is under way": an eviction is then neither told nor followed by a join, and a new subscription is
//! put off. Only another client helps (`replace.rs`). (`a_member_that_was_overtaken_is_deaf_afterwards`, tests/conformance)
//!
//! *May not have heard.* By KIP-848 the coordinator tells an assignment once, in the answer to a heartbeat. librdkafka 2.12.1 gives that a
//! heartbeat's interval (`rd_kafka_ConsumerGroupHeartbeatRequest`); one that comes later is dropped, and the heartbeat repeated, to which
//! the coordinator has nothing new to say. A full one would be told all; librdkafka means to send one when the connection is gone, but
//! forgets it if the repeated one is answered first (`rd_kafka_cgrp_handle_ConsumerGroupHeartbeat` clears the flag on any
//! answer). Then a partition has no worker for as long as the group stays as it is. Any later word of the group holds all, so it's
//! waited for that first.

use std::time::{Duration, Instant};

use genwatch_core::types::PartitionId;
use genwatch_kafka::config::Connection;

use super::Worker;
use super::replace::Reason;

/// How often it's looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the coordinator may take to answer. Nothing is worked meanwhile, as there's no membership.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// A client that can join again does so within two sessions and this, once its coordinator answers.
const JOIN: Duration = Duration::from_secs(10);

/// How long after a late heartbeat the group may speak again by itself.
const NEXT_WORD: Duration = Duration::from_secs(10);

/// Since when the client has been no member, while the coordinator answered; and since when it may lack a word of the group.
#[derive(Debug)]
pub(super) struct Outside {
    enough: Duration,
    since: Option<Instant>,
    unheard: Option<Instant>,
    looked: Instant,
}

impl Outside {
    pub(super) fn new(connection: &Connection) -> Outside {
        let enough = 2 * connection.session_timeout() + JOIN;
        Outside { enough, since: None, unheard: None, looked: Instant::now() }
    }

    /// The group has spoken.
    pub(super) fn heard(&mut self) {
        self.unheard = None;
    }
}

impl Worker {
    /// Whether another client has to take this one's place, and why. An outage is waited out.
    pub(super) fn deafness(&mut self) -> Option<Reason> {
        if self.outside.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.outside.looked = Instant::now();
        if self.consumer.take_late_heartbeat() {
            self.outside.unheard = Some(Instant::now());
        }
        if self.won_t_join() {
            return Some(Reason::Deaf);
        }
        self.may_not_have_heard().then_some(Reason::Unheard)
    }

    /// Whether the group may have said something that the client hasn't heard, and nothing since.
    fn may_not_have_heard(&self) -> bool {
        let is_due = self.outside.unheard.is_some_and(|since| since.elapsed() > NEXT_WORD);
        is_due && self.is_settled() && self.coordinator_answers()
    }

    /// Whether nothing is under way with the group.
    fn is_settled(&self) -> bool {
        !self.engine.owes_an_answer() && !self.engine.status().draining
    }

    fn coordinator_answers(&self) -> bool {
        self.consumer.handle().committed(&[PartitionId(0)], PROBE_TIMEOUT).is_ok()
    }

    /// Whether the client has been in the group, and has been out of it for so long that it won't join again by itself.
    fn won_t_join(&mut self) -> bool {
        let handle = self.consumer.handle();
        let was_inside = self.summary.rebalances > 0;
        let is_outside = was_inside && self.is_settled() && !handle.has_member_id();
        if !is_outside || !self.coordinator_answers() {
            self.outside.since = None;
            return false;
        }
        self.outside.since.get_or_insert_with(Instant::now).elapsed() > self.outside.enough
    }
}
