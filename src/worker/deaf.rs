//! Detects a client that won't rejoin its group, and one that may have missed an assignment.
//!
//! *Won't rejoin.* If the topic grows while a revocation is unanswered, librdkafka rejoins at once and keeps the work
//! that it had deferred until after the answer (`rkcg_rebalance_incr_assignment`, 2.12.1). Unless another revocation
//! follows, it keeps that forever, and counts it as "a rebalance is under way". It then joins no rebalance, and the
//! whole group waits for it. It doesn't report an eviction either, nor rejoin after it, and it defers a new
//! subscription. Only another client helps (`replace.rs`). The client usually knows
//! ([`genwatch_kafka::consumer::Consumer::was_overtaken`]). If it was polled too late to know, we notice it when the
//! group has thrown it out.
//! (`a_member_that_was_overtaken_is_deaf_afterwards`, tests/conformance)
//!
//! *May have missed an assignment.* With KIP-848 the coordinator sends an assignment once, in a heartbeat's response.
//! librdkafka 2.12.1 waits one heartbeat interval for it (`rd_kafka_ConsumerGroupHeartbeatRequest`), drops a later
//! response and repeats the heartbeat; to that the coordinator has nothing new to say. A full heartbeat would get the
//! whole assignment. librdkafka means to send one after a lost connection, but forgets it if the repeated one is
//! answered first (`rd_kafka_cgrp_handle_ConsumerGroupHeartbeat` clears the flag on any response). The partition then
//! has no worker until the group changes. Any later message of the group holds the whole assignment, so we first wait
//! for one.

use std::time::{Duration, Instant};

use genwatch_core::types::PartitionId;
use genwatch_kafka::config::Connection;

use super::replace::Reason;
use super::work::Work;
use super::{Observed, Worker};

/// Interval between checks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the coordinator may take to answer. Nothing is processed meanwhile, as there's no membership.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// A client that can rejoin does so within two sessions plus this, once its coordinator answers.
const JOIN: Duration = Duration::from_secs(10);

/// How long to wait, after a late heartbeat, for another message of the group.
const NEXT_WORD: Duration = Duration::from_secs(10);

/// Since when the client has been no member though the coordinator answers, and since when it may lack an assignment.
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

    /// Notes a message of the group.
    pub(super) fn heard(&mut self) {
        self.unheard = None;
    }
}

impl<H: Observed, W: Work<H>> Worker<H, W> {
    /// Returns why another client must replace this one, if it must. Waits out an outage.
    pub(super) fn deafness(&mut self) -> Option<Reason> {
        if self.outside.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.outside.looked = Instant::now();
        if self.consumer.take_late_heartbeat() {
            self.outside.unheard = Some(Instant::now());
        }
        // One that drains leaves soon.
        if self.consumer.was_overtaken() && !self.engine.status().draining {
            return Some(Reason::Overtaken);
        }
        if self.won_t_join() {
            return Some(Reason::Deaf);
        }
        self.may_not_have_heard().then_some(Reason::Unheard)
    }

    /// Whether the client may have missed an assignment, and has heard nothing of the group since.
    fn may_not_have_heard(&self) -> bool {
        let is_due = self.outside.unheard.is_some_and(|since| since.elapsed() > NEXT_WORD);
        is_due && self.is_settled() && self.coordinator_answers()
    }

    /// Whether no rebalance is under way.
    fn is_settled(&self) -> bool {
        !self.engine.owes_an_answer() && !self.engine.status().draining
    }

    fn coordinator_answers(&self) -> bool {
        self.consumer.handle().committed(&[PartitionId(0)], PROBE_TIMEOUT).is_ok()
    }

    /// Whether the client was in the group, and has been out of it for so long that it won't rejoin by itself.
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
