//! The client of a group: what librdkafka does and reports under the classic protocol, with `cooperative-sticky` and
//! with an eager assignor, and under KIP-848.
//!
//! Written from `rdkafka_cgrp.c` and `rdkafka_queue.c` of librdkafka 2.12.1, function names in brackets;
//! `tests/conformance` shows its claims on the real one. It is silent where librdkafka is silent, and fails where
//! librdkafka fails.

mod kip848;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use genwatch_core::engine::membership::Member;

use crate::group::{Group, MemberId};
use crate::invariants::{Violation, ensure};
use kip848::Reconciliation;

/// A change of the worker's assignment.
#[derive(Clone, Debug)]
pub enum Rebalance {
    /// Partitions are now ours.
    Assigned(Vec<i32>),
    /// Partitions to give up.
    Revoked(Vec<i32>),
    /// Partitions that another member owns now.
    Lost(Vec<i32>),
}

/// How partitions change hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Kept partitions continue; assignments are reported as differences. (`cooperative-sticky`)
    Cooperative,
    /// Everything is given up before a rebalance; assignments are absolute. (`range`, `roundrobin`)
    Eager,
    /// The coordinator decides, each member reconciles itself. (KIP-848)
    Consumer,
}

/// The rebalance that the worker hasn't answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// WAIT_UNASSIGN_CALL.
    Unassign,
    /// WAIT_ASSIGN_CALL.
    Assign,
}

/// The stage of the client's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Membership {
    /// A JoinGroup request must be sent.
    Init,
    /// It is sent; the coordinator waits for the other members.
    Joining,
    /// It is answered: the generation is known, the assignment will follow.
    Syncing(Vec<i32>),
    Steady,
}

/// The fetcher of one partition.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The next offset to fetch.
    pub next: i64,
    /// Paused by the worker.
    pub paused: bool,
    /// The application's position, where it isn't after the last record handed out: after a notice.
    /// (`rd_kafka_q_serve_rkmessages`)
    pub misled: Option<i64>,
    /// Fetching has stopped, because the offset was out of range. (`rd_kafka_offset_reset`)
    pub stopped: bool,
}

/// The client's view.
#[derive(Debug)]
pub struct Client {
    protocol: Protocol,
    /// A static member's name (KIP-345).
    instance: Option<usize>,
    /// `None` stands for "".
    member: Option<MemberId>,
    /// `None` before the first, and after some refusals.
    generation: Option<u64>,
    join: Membership,
    /// A poll has returned it or is about to; unanswered.
    open: Option<Open>,
    inbox: VecDeque<Rebalance>,
    /// `rkcg_group_assignment`.
    owned: BTreeSet<i32>,
    /// Whether there is an assignment, even an empty one.
    assigned: bool,
    /// `rkcg_rebalance_incr_assignment`: reported when the revocation is answered.
    kept_back: Option<Vec<i32>>,
    rejoin: bool,
    /// Only under KIP-848.
    reconciliation: Reconciliation,
    /// Whether `rkcg_subscription` is gone.
    leaving: bool,
    /// The fetched partitions.
    pub fetched: BTreeMap<i32, Fetch>,
}

impl Client {
    /// A client that hasn't joined.
    pub fn new(protocol: Protocol, instance: Option<usize>) -> Client {
        Client {
            protocol,
            instance,
            member: None,
            generation: None,
            join: Membership::Init,
            open: None,
            inbox: VecDeque::new(),
            owned: BTreeSet::new(),
            assigned: false,
            kept_back: None,
            rejoin: false,
            reconciliation: Reconciliation::default(),
            leaving: false,
            fetched: BTreeMap::new(),
        }
    }

    /// The membership under which offsets are committed.
    pub fn view(&self) -> Option<(MemberId, u64)> {
        Some((self.member?, self.generation?))
    }

    /// The membership as the worker's engine knows it (`rd_kafka_consumer_group_metadata`).
    pub fn metadata(&self) -> Option<Member> {
        let (MemberId(id), generation) = self.view()?;
        Some(Member { id: format!("m{id}").into(), generation: generation as i32 })
    }

    /// Whether this is its member id.
    pub fn is_called(&self, id: MemberId) -> bool {
        self.member == Some(id)
    }

    /// Whether its membership is stable.
    pub fn is_settled(&self) -> bool {
        let has_joined = match self.protocol {
            Protocol::Cooperative | Protocol::Eager => self.join == Membership::Steady,
            // A client that never had anything is in INIT.
            Protocol::Consumer => self.reconciliation.is_done(),
        };
        has_joined && self.open.is_none() && self.inbox.is_empty() && self.member.is_some()
    }

    /// Leaves the group; the worker must have answered every rebalance. (`rd_kafka_consumer_close` waits without
    /// limit for the answer to an open revocation.)
    pub fn leave(&mut self, group: &mut Group, now: i64) -> Result<(), Violation> {
        ensure!(self.open != Some(Open::Unassign), Answered, "a revocation is open as the group is left");
        self.leaving = true;
        if let (Some(id), None) = (self.member.take(), self.instance) {
            group.leave(id, now);
        }
        Ok(())
    }

    /// Sends a heartbeat; an evicted member learns it if `learns`. Returns whether it did.
    pub fn heartbeat(&mut self, group: &mut Group, now: i64, learns: bool) -> bool {
        let Some(id) = self.member else { return false };
        if group.heartbeat(id, now) {
            let awaits = group.awaits(id) && self.join == Membership::Steady;
            if awaits && self.open.is_none() && self.inbox.is_empty() {
                self.is_rebalancing();
            }
            return false;
        }
        // An id for the first JoinGroup isn't a member's yet, nor is that of a client that joins again under KIP-848.
        let joins_anew = self.generation.is_none() || self.protocol == Protocol::Consumer;
        if self.join == Membership::Init && joins_anew {
            return false;
        }
        match (learns, self.protocol) {
            (false, _) => {}
            (true, Protocol::Cooperative | Protocol::Eager) => self.evicted(),
            (true, Protocol::Consumer) => self.fenced(),
        }
        learns
    }

    /// `rd_kafka_cgrp_group_is_rebalancing`: partitions continue until it's known which must go, or all are given up
    /// first.
    fn is_rebalancing(&mut self) {
        match self.protocol {
            Protocol::Cooperative => self.join = Membership::Init,
            Protocol::Eager => self.revoke_all(Rebalance::Revoked),
            Protocol::Consumer => {}
        }
    }

    /// `rd_kafka_cgrp_handle_heartbeat_error_op` and `rd_kafka_cgrp_revoke_all_rejoin_maybe`: while something is
    /// unanswered, the member id is forgotten and nothing is reported.
    fn evicted(&mut self) {
        self.member = None;
        if self.open.is_none() {
            self.revoke_all(Rebalance::Lost);
        }
    }

    /// `rd_kafka_cgrp_revoke_all_rejoin`.
    fn revoke_all(&mut self, told: fn(Vec<i32>) -> Rebalance) {
        self.join = Membership::Init;
        let is_worth_it = match self.protocol {
            Protocol::Cooperative | Protocol::Consumer => !self.owned.is_empty(),
            Protocol::Eager => self.assigned,
        };
        if is_worth_it {
            self.assigned = false;
            self.inbox.push_back(told(std::mem::take(&mut self.owned).into_iter().collect()));
            self.open = Some(Open::Unassign);
        }
    }

    /// Advances the client as far as it can go on its own.
    pub fn step(&mut self, group: &mut Group, now: i64) {
        if self.leaving {
            return;
        }
        if self.protocol == Protocol::Consumer {
            self.serve(group, now);
            return;
        }
        if self.open.is_some() {
            return;
        }
        match std::mem::replace(&mut self.join, Membership::Steady) {
            Membership::Init => {
                if self.member.is_none() && self.instance.is_none() {
                    // MEMBER_ID_REQUIRED (KIP-394) revokes everything not yet revoked.
                    // (`rd_kafka_cgrp_handle_JoinGroup`)
                    self.member = Some(group.new_id());
                    self.generation = None;
                    self.join = Membership::Init;
                    if self.protocol == Protocol::Cooperative {
                        self.revoke_all(Rebalance::Lost);
                    }
                    if self.open.is_some() {
                        return;
                    }
                }
                let id = self.member.unwrap_or_else(|| group.new_id());
                self.member = Some(id);
                if group.join(id, self.instance, self.owned.clone(), now) {
                    self.join = Membership::Joining;
                } else {
                    // UNKNOWN_MEMBER_ID: not reported. (`rd_kafka_cgrp_handle_JoinGroup`)
                    self.member = None;
                    self.join = Membership::Init;
                }
            }
            Membership::Joining => self.join = Membership::Joining,
            Membership::Syncing(list) => match self.protocol {
                Protocol::Cooperative | Protocol::Consumer => self.synced(&list),
                Protocol::Eager => self.tell_assigned(list),
            },
            // The next heartbeat is refused.
            Membership::Steady if self.member.is_none() => self.revoke_all(Rebalance::Lost),
            Membership::Steady => {}
        }
    }

    /// The coordinator has answered JoinGroup; the assignment follows.
    pub fn joined(&mut self, generation: u64, list: Vec<i32>) {
        if self.join == Membership::Joining {
            self.generation = Some(generation);
            self.join = Membership::Syncing(list);
        }
    }

    /// `rd_kafka_cgrp_handle_assignment_cooperative`: each sync ends in an assignment, even an empty one; a
    /// revocation precedes it.
    fn synced(&mut self, list: &[i32]) {
        let revoked: Vec<i32> = self.owned.iter().copied().filter(|id| !list.contains(id)).collect();
        let added: Vec<i32> = list.iter().copied().filter(|id| !self.owned.contains(id)).collect();
        if revoked.is_empty() {
            self.tell_assigned(added);
        } else {
            self.owned.retain(|id| list.contains(id));
            self.inbox.push_back(Rebalance::Revoked(revoked));
            self.open = Some(Open::Unassign);
            self.kept_back = Some(added);
            self.rejoin = self.protocol == Protocol::Cooperative;
        }
    }

    fn tell_assigned(&mut self, added: Vec<i32>) {
        self.owned.extend(&added);
        self.assigned = true;
        self.inbox.push_back(Rebalance::Assigned(added));
        self.open = Some(Open::Assign);
    }

    /// Takes the next rebalance for the worker.
    pub fn take_rebalance(&mut self) -> Option<Rebalance> {
        self.inbox.pop_front()
    }

    /// Whether records are handed out: not while a rebalance is unanswered. (`rd_kafka_rebalance_op`)
    pub fn hands_out(&self) -> bool {
        self.open.is_none()
    }

    /// `incremental_assign` of nothing, or `assign` of everything in `held`.
    pub fn acknowledge(&mut self, held: &[(i32, i64)]) -> Result<(), Violation> {
        ensure!(
            self.open == Some(Open::Assign),
            Answered,
            "an assignment is acknowledged, but open is {:?}",
            self.open
        );
        self.open = None;
        if self.protocol == Protocol::Eager {
            self.assign(held);
        }
        if self.rejoin || (self.member.is_none() && self.protocol == Protocol::Cooperative) {
            self.rejoin = false;
            self.join = Membership::Init;
        } else {
            self.join = Membership::Steady;
        }
        Ok(())
    }

    /// `incremental_assign`, which is never refused for a loss, or `assign` of everything in `held`, the new
    /// partitions included. (`rd_kafka_assignment_add`, `rd_kafka_cgrp_assign`)
    pub fn add(&mut self, starts: &[(i32, i64)], held: &[(i32, i64)]) -> Result<(), Violation> {
        for (id, offset) in starts {
            ensure!(
                self.open != Some(Open::Assign),
                Answered,
                "{id} is added before its assignment is acknowledged"
            );
            // An absolute list may repeat partitions.
            if self.protocol != Protocol::Eager {
                ensure!(!self.fetched.contains_key(id), Answered, "{id} is added, but it is fetched already");
                self.fetched
                    .insert(*id, Fetch { next: *offset, paused: false, misled: None, stopped: false });
            }
        }
        if self.protocol == Protocol::Eager && !starts.is_empty() {
            self.assign(held);
        }
        Ok(())
    }

    /// Every fetcher restarts; paused ones stay paused. (`rd_kafka_assignment_clear`)
    fn assign(&mut self, held: &[(i32, i64)]) {
        let before = std::mem::take(&mut self.fetched);
        for (id, next) in held {
            let paused = before.get(id).is_some_and(|fetch| fetch.paused);
            self.fetched.insert(*id, Fetch { next: *next, paused, misled: None, stopped: false });
        }
    }

    /// `incremental_unassign`, which refuses partitions that aren't fetched, or `assign` of nothing; it answers the
    /// open revocation, whatever it lists.
    pub fn unassign(&mut self, list: &[i32]) -> Result<(), Violation> {
        for id in list {
            ensure!(self.fetched.remove(id).is_some(), Answered, "{id} is unassigned, but it isn't fetched");
        }
        if self.protocol == Protocol::Eager {
            let left: Vec<&i32> = self.fetched.keys().collect();
            ensure!(left.is_empty(), Answered, "all are unassigned, but {left:?} not given up");
        }
        ensure!(
            self.open == Some(Open::Unassign),
            Answered,
            "{list:?} are unassigned, but open is {:?}",
            self.open
        );
        self.open = None;
        match self.kept_back.take() {
            Some(added) => self.tell_assigned(added),
            None if self.protocol == Protocol::Consumer => self.reset(),
            None => self.join = Membership::Init,
        }
        Ok(())
    }

    /// Checks that the revoked partitions are gone when the client answers.
    pub fn check_unassigned(&self, revoked: &[i32]) -> Result<(), Violation> {
        let left = revoked.iter().find(|id| self.fetched.contains_key(id));
        ensure!(left.is_none(), Answered, "{left:?} was revoked and is still fetched");
        Ok(())
    }

    /// A seek; unsets the application's position. Refused if the partition isn't fetched. Returns whether it is done.
    /// (`rd_kafka_toppar_seek`)
    pub fn seek(&mut self, id: i32, offset: i64) -> bool {
        let fetch = self.fetched.get_mut(&id).filter(|fetch| !fetch.stopped);
        fetch.map(|fetch| (fetch.next, fetch.misled) = (offset, None)).is_some()
    }

    /// `incremental_unassign` and `incremental_assign` of one partition. The worker must know of no open revocation,
    /// because this would answer it. If one is open that hasn't reached the worker yet, this counts as refused.
    /// Returns whether it is done.
    pub fn reassign(&mut self, id: i32, offset: i64, held: &[(i32, i64)]) -> Result<bool, Violation> {
        ensure!(
            self.open != Some(Open::Unassign) || !self.inbox.is_empty(),
            Answered,
            "{id} is assigned again while a revocation is open"
        );
        if self.open.is_some() || !self.fetched.contains_key(&id) {
            return Ok(false);
        }
        if self.protocol == Protocol::Eager {
            self.assign(held);
        } else {
            self.fetched.insert(id, Fetch { next: offset, paused: false, misled: None, stopped: false });
        }
        Ok(true)
    }

    /// A pause sets the fetcher's position to the application's. (`rd_kafka_toppar_pause_resume`)
    pub fn pause(&mut self, id: i32, paused: bool) {
        if let Some(fetch) = self.fetched.get_mut(&id) {
            fetch.paused = paused;
            fetch.next = fetch.misled.take().unwrap_or(fetch.next);
        }
    }
}
