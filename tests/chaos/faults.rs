//! What each fault does. When [`inject`] returns, the fault is over: what follows is recovery.

use std::time::{Duration, Instant};

use crate::aggregates;
use crate::cluster::{Cluster, NODES};
use crate::feed::Feed;
use crate::link::{Link, State};
use crate::monitor::Monitor;
use crate::observer::Observer;
use crate::options::Options;
use crate::past::{self, Past};
use crate::reaper::pause;
use crate::recovery::drain;
use crate::revocation;
use crate::schedule::{Fault, Kind};
use crate::workers::{Job, Workers};

/// Everything that can fail.
pub struct World {
    pub cluster: Cluster,
    pub link: Link,
    pub workers: Workers,
    pub feed: Feed,
    /// Of the group of alarms.
    pub monitor: Monitor,
    /// Of the group of aggregates.
    pub aggregates: Monitor,
    pub observer: Observer,
    pub topic: String,
    pub group: String,
    /// Partitions of the readings topic.
    pub partitions: i32,
    /// Workers and brokers killed so far.
    pub kills: usize,
    pub revocations: Revocations,
    pub options: Options,
    /// The beginning of the run.
    pub begun: Instant,
    /// What was judged already, because its topic is deleted.
    pub past: Past,
}

/// How often a worker was to be stopped while it gives partitions back, and how often that succeeded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Revocations {
    pub tried: usize,
    pub met: usize,
}

/// Causes one fault and repairs it. Returns a description.
pub fn inject(world: &mut World, fault: &Fault) -> String {
    match fault.kind {
        Kind::WorkerKilled => {
            let (victim, job) = world.kill_worker(fault);
            pause(fault.between(0.0, 3.0));
            let number = world.workers.start(job);
            format!("{victim}; number {number} in its place")
        }
        Kind::AllWorkersKilled => {
            let all = world.workers.active();
            let jobs: Vec<Job> = all.iter().map(|number| world.workers.job(*number)).collect();
            for number in &all {
                world.workers.kill(*number);
            }
            world.kills += all.len();
            pause(fault.between(0.0, 2.0));
            for job in jobs {
                world.workers.start(job);
            }
            format!("{} workers", all.len())
        }
        Kind::WorkerStoppedBeyondSession => world.stop_and_continue(fault, 7.5, 12.0),
        Kind::WorkerStoppedBriefly => world.stop_and_continue(fault, 0.5, 4.0),
        Kind::WorkerRestarted => {
            let number = world.any_worker(fault);
            let (name, job) = (world.workers.describe(number), world.workers.job(number));
            let took = world.workers.stop(number);
            let new = world.workers.start(job);
            format!("{name}, which took {took:.1?}; number {new} in its place")
        }
        Kind::ScaledUp => {
            let job = world.any_job(fault);
            let most = *job.workers().end();
            if world.workers.len(job) >= most {
                world.scale_down(job, fault);
                world.scale_down(job, fault);
            }
            let more = if fault.severity > 0.5 { 2 } else { 1 };
            for _ in 0..more.min(most - world.workers.len(job)) {
                world.workers.start(job);
            }
            world.sizes()
        }
        Kind::ScaledDown => {
            let job = world.any_job(fault);
            if world.workers.len(job) <= *job.workers().start() {
                world.workers.start(job);
                world.workers.start(job);
                pause(Duration::from_secs(2));
            }
            world.scale_down(job, fault);
            world.sizes()
        }
        Kind::KilledWhileRebalancing => {
            let job = world.any_job(fault);
            if world.workers.len(job) >= *job.workers().end() {
                world.scale_down(job, fault);
            }
            let victim = world.any_of(job, fault);
            let name = world.workers.describe(victim);
            world.workers.start(job);
            pause(fault.between(0.2, 3.0));
            world.workers.kill(victim);
            world.kills += 1;
            name
        }
        Kind::LinkCut => world.disturb_link(State::Silent, fault.between(7.5, 12.0)),
        Kind::LinkRefuses => world.disturb_link(State::Refusing, fault.between(1.0, 8.0)),
        Kind::LinkSlow => world.disturb_link(State::Slow, fault.between(5.0, 15.0)),
        Kind::OneBrokerCutOff => world.disturb_one(State::Silent, fault, fault.between(7.5, 20.0)),
        Kind::OneBrokerLate => world.disturb_one(State::Late, fault, fault.between(5.0, 15.0)),
        Kind::DiskFull => {
            let node = any_broker(fault);
            let took = world.cluster.fill_disk(node);
            world.kills += 1;
            pause(fault.between(0.0, 6.0));
            world.cluster.start_node(node);
            format!("broker {node}, which ended after {took:.1?}")
        }
        Kind::BrokerKilled => world.restart_broker(any_broker(fault), fault, |_| ()),
        Kind::BrokerStopped => {
            let node = any_broker(fault);
            let time = fault.between(1.0, 14.0);
            world.cluster.pause(node);
            pause(time);
            world.cluster.resume(node);
            format!("broker {node} for {time:.1?}")
        }
        Kind::GroupCoordinatorKilled => {
            // Each group has its own.
            let group = match world.any_job(fault) {
                Job::Alarms => world.group.clone(),
                Job::Aggregates => aggregates::of(&world.group),
            };
            let node = world.cluster.group_coordinator(&group).unwrap_or(1);
            world.restart_broker(node, fault, |_| ())
        }
        Kind::TransactionCoordinatorKilled => {
            let node = world.cluster.transaction_coordinator().unwrap_or(1);
            world.restart_broker(node, fault, |_| ())
        }
        Kind::WorkerReplacedWhileBrokerDown => {
            let node = any_broker(fault);
            let mut victim = String::new();
            let told = world.restart_broker(node, fault, |world| {
                let (name, job) = world.kill_worker(fault);
                victim = name;
                world.workers.start(job);
                pause(Duration::from_secs(1));
            });
            format!("{told}; {victim}")
        }
        Kind::StoppedWhileRevoking => revocation::stop_while_revoking(world, fault),
        Kind::TopicGrown => world.grow_topic(fault),
        Kind::TopicMadeAnew => world.make_topic_anew(fault),
    }
}

fn any_broker(fault: &Fault) -> i32 {
    NODES[fault.choice % NODES.len()]
}

impl World {
    fn any_worker(&self, fault: &Fault) -> usize {
        let active = self.workers.active();
        active[fault.choice % active.len()]
    }

    /// What any worker does: of two groups, the one with more workers is chosen more often.
    pub fn any_job(&self, fault: &Fault) -> Job {
        self.workers.job(self.any_worker(fault))
    }

    fn any_of(&self, job: Job, fault: &Fault) -> usize {
        let active = self.workers.active_of(job);
        active[fault.choice % active.len()]
    }

    fn kill_worker(&mut self, fault: &Fault) -> (String, Job) {
        let number = self.any_worker(fault);
        let (name, job) = (self.workers.describe(number), self.workers.job(number));
        self.workers.kill(number);
        self.kills += 1;
        (name, job)
    }

    fn sizes(&self) -> String {
        let count = |job| self.workers.len(job);
        format!("to {} workers and {} of downsample", count(Job::Alarms), count(Job::Aggregates))
    }

    fn stop_and_continue(&mut self, fault: &Fault, shortest: f64, longest: f64) -> String {
        let number = self.any_worker(fault);
        let time = fault.between(shortest, longest);
        self.workers.pause(number);
        pause(time);
        self.workers.resume(number);
        format!("{} for {time:.1?}", self.workers.describe(number))
    }

    fn scale_down(&mut self, job: Job, fault: &Fault) {
        let number = self.any_of(job, fault);
        self.workers.stop(number);
    }

    fn disturb_link(&mut self, state: State, time: Duration) -> String {
        let cut = self.workers.remote();
        self.link.set(state);
        pause(time);
        self.link.set(State::Up);
        let names: Vec<String> = cut.iter().map(|number| self.workers.describe(*number)).collect();
        format!("{} for {time:.1?}", names.join(", "))
    }

    fn disturb_one(&mut self, state: State, fault: &Fault, time: Duration) -> String {
        let node = any_broker(fault);
        self.link.set_one(node, state);
        pause(time);
        self.link.set_one(node, State::Up);
        format!("broker {node} for {time:.1?}")
    }

    fn restart_broker(&mut self, node: i32, fault: &Fault, mut meanwhile: impl FnMut(&mut World)) -> String {
        let time = fault.between(0.0, 8.0);
        self.cluster.kill(node);
        self.kills += 1;
        pause(time);
        meanwhile(self);
        self.cluster.start_node(node);
        format!("broker {node}, started again after {time:.1?}")
    }

    /// Adds one or two partitions. New generators report there; the others stay where they are.
    fn grow_topic(&mut self, fault: &Fault) -> String {
        let before = self.partitions;
        self.partitions += if fault.severity > 0.5 { 2 } else { 1 };
        self.cluster.grow(&self.topic, self.partitions);
        self.monitor.grow(self.partitions);
        self.aggregates.grow(self.partitions);
        self.feed.grow(self.partitions);
        // Until they have something to process.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.monitor.ends().contains_key(&(self.partitions - 1)) {
            assert!(Instant::now() < deadline, "nothing is produced to the new partitions");
            pause(Duration::from_millis(50));
        }
        format!("from {before} to {} partitions", self.partitions)
    }

    /// Processes and judges everything that was produced before the topic goes: uncommitted records are lost with it.
    fn make_topic_anew(&mut self, fault: &Fault) -> String {
        let records = self.feed.finish();
        drain(self);
        past::judge(self, records);
        let time = fault.between(0.0, 5.0);
        self.cluster.delete_topic(&self.topic);
        pause(time);
        self.cluster.create_topic(&self.topic, self.partitions);
        for group in [self.group.clone(), aggregates::of(&self.group)] {
            self.cluster.wait_until_offsets_are_gone(&self.topic, &group, self.partitions);
        }
        self.begin_topic(self.options.seed.wrapping_add(records));
        format!("after {records} records, {time:.1?} without")
    }

    /// Starts producer, monitor and observer of a topic that has just been created.
    fn begin_topic(&mut self, seed: u64) {
        let brokers = &self.cluster.brokers;
        self.feed = Feed::start(brokers, &self.topic, self.partitions, self.options.rate, seed, self.begun);
        let delivered = self.feed.delivered.clone();
        let monitor =
            |group: &str| Monitor::start(brokers, &self.topic, group, self.partitions, delivered.clone());
        (self.monitor, self.aggregates) = (monitor(&self.group), monitor(&aggregates::of(&self.group)));
        let alerts = format!("{}_alerts", self.topic);
        self.observer = Observer::start(brokers, &alerts, self.past.alerts_end(), self.begun);
    }
}
