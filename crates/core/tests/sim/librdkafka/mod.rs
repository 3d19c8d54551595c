//! The client of a group: what librdkafka does and tells by the classic protocol, with `cooperative-sticky` and with an eager
//! assignor, and by KIP-848.
//!
//! Written from `rdkafka_cgrp.c` and `rdkafka_queue.c` of librdkafka 2.12.1, function names in brackets; what it claims is
//! shown on the real one by `tests/conformance`. It says nothing where librdkafka says nothing, and takes offence where
//! librdkafka does.

mod kip848;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use genwatch_core::engine::membership::Member;

use crate::group::{Group, MemberId};
use crate::invariants::{Violation, ensure};
use kip848::Reconciliation;

/// What the worker is told about its assignment.
#[derive(Clone, Debug)]
pub enum Rebalance {
    /// Partitions are ours.
    Assigned(Vec<i32>),
    /// Partitions are to be given up.
    Revoked(Vec<i32>),
    /// Partitions are somebody else's.
    Lost(Vec<i32>),
}

/// How partitions change hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What stays is worked on; assignments are told as differences. (`cooperative-sticky`)
    Cooperative,
    /// Everything is given up before a rebalance; assignments are absolute. (`range`, `roundrobin`)
    Eager,
    /// The coordinator decides, each member reconciles itself. (KIP-848)
    Consumer,
}

/// What the worker hasn't answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// WAIT_UNASSIGN_CALL.
    Unassign,
    /// WAIT_ASSIGN_CALL.
    Assign,
}

/// Where the client is with its membership.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Membership {
    /// A JoinGroup request is to be sent.
    Init,
    /// It's sent; the coordinator waits for the other members.
    Joining,
    /// It's answered: the generation is known, the assignment is on its way.
    Syncing(Vec<i32>),
    Steady,
}

/// The fetcher of one partition.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The next offset to be fetched.
    pub next: i64,
    /// Paused by the worker.
    pub paused: bool,
    /// Where the application stands, where that isn't what was handed out last: behind a notice.
    /// (`rd_kafka_q_serve_rkmessages`)
    pub misled: Option<i64>,
    /// Nothing is fetched any more, as the offset was out of range. (`rd_kafka_offset_reset`)
    pub stopped: bool,
}

/// The client's view.
#[derive(Debug)]
pub struct Client {
    protocol: Protocol,
    /// A static member's name (KIP-345).
    instance: Option<usize>,
    /// `None`: "".
    member: Option<MemberId>,
    /// None before the first, and after some refusals.
    generation: Option<u64>,
    join: Membership,
    /// Handed out by a poll, or about to be; not answered.
    open: Option<Open>,
    inbox: VecDeque<Rebalance>,
    /// `rkcg_group_assignment`.
    owned: BTreeSet<i32>,
    /// Whether there is one, be it empty.
    assigned: bool,
    /// `rkcg_rebalance_incr_assignment`: told when the revocation is answered.
    kept_back: Option<Vec<i32>>,
    rejoin: bool,
    /// By KIP-848 only.
    reconciliation: Reconciliation,
    /// `rkcg_subscription` is there.
    leaving: bool,
    /// What is fetched.
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

    /// The same, as the worker's engine knows it (`rd_kafka_consumer_group_metadata`).
    pub fn metadata(&self) -> Option<Member> {
        let (MemberId(id), generation) = self.view()?;
        Some(Member { id: format!("m{id}").into(), generation: generation as i32 })
    }

    /// Whether this is its member id.
    pub fn is_called(&self, id: MemberId) -> bool {
        self.member == Some(id)
    }

    /// Whether nothing is under way about its membership.
    pub fn is_settled(&self) -> bool {
        let has_joined = match self.protocol {
            Protocol::Cooperative | Protocol::Eager => self.join == Membership::Steady,
            // Who has never had anything is in INIT.
            Protocol::Consumer => self.reconciliation.is_done(),
        };
        has_joined && self.open.is_none() && self.inbox.is_empty() && self.member.is_some()
    }

    /// Leaves the group; the worker must have answered all that it was told. (`rd_kafka_consumer_close` with an open
    /// revocation waits for its answer without limit.)
    pub fn leave(&mut self, group: &mut Group, now: i64) -> Result<(), Violation> {
        ensure!(self.open != Some(Open::Unassign), Answered, "a revocation is open as the group is left");
        self.leaving = true;
        if let (Some(id), None) = (self.member.take(), self.instance) {
            group.leave(id, now);
        }
        Ok(())
    }

    /// A heartbeat and its answer; a member that was evicted learns it when `learns`. Whether it did.
    pub fn heartbeat(&mut self, group: &mut Group, now: i64, learns: bool) -> bool {
        let Some(id) = self.member else { return false };
        if group.heartbeat(id, now) {
            let awaits = group.awaits(id) && self.join == Membership::Steady;
            if awaits && self.open.is_none() && self.inbox.is_empty() {
                self.is_rebalancing();
            }
            return false;
        }
        // An id that was given for the first JoinGroup isn't a member's yet, nor is one that joins anew by KIP-848.
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

    /// `rd_kafka_cgrp_group_is_rebalancing`: partitions go on until it's known which of them go, or all are given up first.
    fn is_rebalancing(&mut self) {
        match self.protocol {
            Protocol::Cooperative => self.join = Membership::Init,
            Protocol::Eager => self.revoke_all(Rebalance::Revoked),
            Protocol::Consumer => {}
        }
    }

    /// `rd_kafka_cgrp_handle_heartbeat_error_op` and `rd_kafka_cgrp_revoke_all_rejoin_maybe`: while something is
    /// unanswered, the member id is forgotten and nothing is told.
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

    /// The client goes on by itself, as far as it can.
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
                    // MEMBER_ID_REQUIRED (KIP-394), which revokes everything, if it isn't already.
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
                    // UNKNOWN_MEMBER_ID: told to nobody. (`rd_kafka_cgrp_handle_JoinGroup`)
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

    /// `rd_kafka_cgrp_handle_assignment_cooperative`: each sync ends in an assignment, be it empty; a revocation comes before
    /// it.
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

    /// The next thing that the worker is to be told.
    pub fn take_rebalance(&mut self) -> Option<Rebalance> {
        self.inbox.pop_front()
    }

    /// Whether records are handed out: not while anything is unanswered. (`rd_kafka_rebalance_op`)
    pub fn hands_out(&self) -> bool {
        self.open.is_none()
    }

    /// `incremental_assign` of nothing, or `assign` of all that is `held`.
    pub fn acknowledge(&mut self, held: &[(i32, i64)]) -> Result<(), Violation> {
        ensure!(
            self.open == Some(Open::Assign),
            Answered,
            "an assignment is acknowledged, open is {:?}",
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

    /// `incremental_assign`, which is never refused for a loss, or `assign` of all that is `held`, the new ones among them.
    /// (`rd_kafka_assignment_add`, `rd_kafka_cgrp_assign`)
    pub fn add(&mut self, starts: &[(i32, i64)], held: &[(i32, i64)]) -> Result<(), Violation> {
        for (id, offset) in starts {
            ensure!(
                self.open != Some(Open::Assign),
                Answered,
                "{id} is added before its assignment is acknowledged"
            );
            // What is named among others may have been named before.
            if self.protocol != Protocol::Eager {
                ensure!(!self.fetched.contains_key(id), Answered, "{id} is added, which is fetched already");
                self.fetched
                    .insert(*id, Fetch { next: *offset, paused: false, misled: None, stopped: false });
            }
        }
        if self.protocol == Protocol::Eager && !starts.is_empty() {
            self.assign(held);
        }
        Ok(())
    }

    /// Each fetcher starts anew; who was paused stays it. (`rd_kafka_assignment_clear`)
    fn assign(&mut self, held: &[(i32, i64)]) {
        let before = std::mem::take(&mut self.fetched);
        for (id, next) in held {
            let paused = before.get(id).is_some_and(|fetch| fetch.paused);
            self.fetched.insert(*id, Fetch { next: *next, paused, misled: None, stopped: false });
        }
    }

    /// `incremental_unassign`, which refuses what isn't fetched, or `assign` of nothing; it answers the open revocation,
    /// whatever it lists.
    pub fn unassign(&mut self, list: &[i32]) -> Result<(), Violation> {
        for id in list {
            ensure!(self.fetched.remove(id).is_some(), Answered, "{id} is unassigned, which isn't fetched");
        }
        if self.protocol == Protocol::Eager {
            let left: Vec<&i32> = self.fetched.keys().collect();
            ensure!(left.is_empty(), Answered, "all are unassigned, and {left:?} not given up");
        }
        ensure!(
            self.open == Some(Open::Unassign),
            Answered,
            "{list:?} are unassigned, open is {:?}",
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

    /// What must be gone when the client has told of it.
    pub fn check_unassigned(&self, revoked: &[i32]) -> Result<(), Violation> {
        let left = revoked.iter().find(|id| self.fetched.contains_key(id));
        ensure!(left.is_none(), Answered, "{left:?} was revoked and is still fetched");
        Ok(())
    }

    /// A seek; the application's position is unset. What isn't fetched refuses it. Whether it's done.
    /// (`rd_kafka_toppar_seek`)
    pub fn seek(&mut self, id: i32, offset: i64) -> bool {
        let fetch = self.fetched.get_mut(&id).filter(|fetch| !fetch.stopped);
        fetch.map(|fetch| (fetch.next, fetch.misled) = (offset, None)).is_some()
    }

    /// `incremental_unassign` and `incremental_assign` of one partition. The worker must know of no open revocation, as this
    /// would answer it; of one that it isn't told yet it can't know, and is as good as refused. Whether it's done.
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

    /// A pause takes the application's position for the fetcher's. (`rd_kafka_toppar_pause_resume`)
    pub fn pause(&mut self, id: i32, paused: bool) {
        if let Some(fetch) = self.fetched.get_mut(&id) {
            fetch.paused = paused;
            fetch.next = fetch.misled.take().unwrap_or(fetch.next);
        }
    }
}
