//! The way of the data as a graph: from devices over topics and workers to stores, with what is wrong with
//! each.

use std::collections::{BTreeMap, BTreeSet};

use genwatch_core::lag::Verdict;
use genwatch_core::numbers::grouped;
use genwatch_core::report::Kind;
use genwatch_core::types::{Millis, PartitionId};
use genwatch_kafka::topics::{Role, Topics};
use serde::Serialize;

use super::connectors::{ConnectorFacts, ReadFacts};
use super::progress::{Total, tenth};
use super::workers::{Known, State, Workers, is_worker_of};

/// What is known of a topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicFacts {
    /// Whether it exists; `None`: not known yet.
    pub exists: Option<bool>,
    /// Its partitions.
    pub partitions: usize,
    /// Records that are written to it a second.
    pub rate: f64,
}

/// One partition of the readings, as far as the graph shows it.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionFacts {
    /// Its number.
    pub partition: PartitionId,
    /// Its worker.
    pub owner: Option<String>,
    /// Records that wait.
    pub lag: i64,
    /// What to think of it.
    pub verdict: Verdict,
    /// The age of the oldest waiting record.
    #[serde(skip)]
    pub time_lag_ms: i64,
    /// Records that are committed a second.
    #[serde(skip)]
    pub processed: f64,
}

/// All that the graph is made of.
pub struct Facts<'m> {
    /// When.
    pub at: Millis,
    /// The topics' names.
    pub names: &'m Topics,
    /// The workers' group.
    pub group: &'m str,
    /// What is known of each topic.
    pub topics: &'m BTreeMap<Role, TopicFacts>,
    /// The partitions of the readings.
    pub partitions: &'m [PartitionFacts],
    /// All partitions together.
    pub total: &'m Total,
    /// Who reports.
    pub workers: &'m Workers,
    /// The progress of the group of sinks, in the topics in which it has any.
    pub sinks: &'m BTreeMap<Role, Total>,
    /// The partitions of the readings as the group of one-minute aggregates sees them, if it has any progress.
    pub downsample: &'m [PartitionFacts],
    /// The connectors of Kafka Connect that read topics of ours.
    pub connectors: &'m [ConnectorFacts],
}

/// The graph.
#[derive(Debug, Serialize)]
pub struct Lineage {
    /// When.
    pub at: Millis,
    /// What there is.
    pub nodes: Vec<Node>,
    /// What flows.
    pub edges: Vec<Edge>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It works.
    Ok,
    /// It needs a look.
    Warn,
    /// It doesn't work.
    Error,
    /// It is there, and nothing flows.
    Idle,
    /// It isn't there.
    Absent,
}

/// A part of the system.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    id: String,
    kind: &'static str,
    name: String,
    /// Its column, from the left.
    rank: u8,
    status: Status,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<PartitionFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What flows from one part to another.
#[derive(Clone, Debug, Serialize)]
pub struct Edge {
    from: String,
    to: String,
    rate: Option<f64>,
    lag: Option<i64>,
    time_lag_ms: Option<i64>,
    status: Status,
    label: String,
}

const PARTITIONS_PAGE: &str = "#/partitions";
const ALARMS_PAGE: &str = "#/alarms";
const SLOW: &str =
    "readings wait for more than a minute; start another `genwatch downsample`, or see what holds it up";
const STANDS: &str = "readings wait for more than a minute, and it commits nothing; its log says why";
const NO_TASK: &str = "records wait, and none of its tasks runs: see its status in Kafka Connect; if it was deleted, \
                       delete its group, too (kafka-consumer-groups.sh --delete)";
const TASK_STANDS: &str =
    "records wait, and it has committed nothing for more than a minute: see its status in Kafka Connect";
const FLEET_PAGE: &str = "#/fleet";

impl Lineage {
    /// Makes the graph.
    #[must_use]
    pub fn of(facts: &Facts<'_>) -> Lineage {
        let mut lineage = Lineage { at: facts.at, nodes: Vec::new(), edges: Vec::new() };
        lineage.sources(facts);
        lineage.readings(facts);
        lineage.workers(facts);
        lineage.results(facts);
        lineage.downsamplers(facts);
        lineage.sinks(facts);
        lineage.connectors(facts);
        lineage.returns(facts);
        lineage.others(facts);
        lineage
    }

    /// Devices, the MQTT broker and bridges.
    fn sources(&mut self, facts: &Facts<'_>) {
        let arrivals = facts.total.arrivals;
        let bridges: Vec<&Known> =
            facts.workers.iter().filter(|known| shown_as(known, &Kind::Bridge)).collect();
        let bridged: f64 =
            bridges.iter().filter(|bridge| bridge.is_there(facts.at)).map(|bridge| bridge.rate()).sum();
        let fed: f64 = facts
            .workers
            .iter()
            .filter(|known| shown_as(known, &Kind::Source) && known.is_there(facts.at))
            .filter(|known| known.report.to.as_ref() == Some(&facts.names.readings))
            .map(Known::rate)
            .sum();
        let direct = if bridges.is_empty() { arrivals - fed } else { arrivals - fed - bridged }.max(0.0);
        if bridges.is_empty() || direct > 1.0 + bridged * 0.5 {
            let mut node = Node::new("producers", "devices", "producers", 0, flow(direct));
            node.detail = per_second(direct);
            (node.rate, node.link) = (Some(tenth(direct)), Some(FLEET_PAGE));
            self.nodes.push(node);
            self.flow("producers", &topic_id(&facts.names.readings), direct);
        }
        for bridge in bridges {
            let (report, there) = (&bridge.report, bridge.is_there(facts.at));
            let rate = if there { bridge.rate() } else { 0.0 };
            let id = format!("bridge:{}", report.worker);
            let broker = report.peer.as_deref().unwrap_or("MQTT");
            let broker_id = format!("mqtt:{broker}");
            if !self.nodes.iter().any(|node| node.id == broker_id) {
                let status = if there { Status::Ok } else { Status::Warn };
                self.nodes.push(Node::new(&broker_id, "mqtt", broker, 1, status));
                let mut devices =
                    Node::new(&format!("devices:{broker}"), "devices", "generators", 0, flow(rate));
                devices.detail = "by MQTT".to_owned();
                devices.link = Some(FLEET_PAGE);
                self.flow(&devices.id.clone(), &broker_id, rate);
                self.nodes.push(devices);
            }
            self.nodes.push(Node::of(bridge, "bridge", 2, &id, facts.at));
            self.flow(&broker_id, &id, rate);
            self.flow(&id, &topic_id(&facts.names.readings), rate);
            if topic(facts, Role::Status, 3).status != Status::Absent {
                self.flow(&id, &topic_id(&facts.names.status), 0.0);
            }
        }
    }

    /// The topics of readings and of statuses.
    fn readings(&mut self, facts: &Facts<'_>) {
        let mut node = topic(facts, Role::Readings, 3);
        if node.status != Status::Absent {
            let (status, reason) = judge(facts.partitions);
            if status != Status::Ok || facts.total.arrivals > 0.0 {
                (node.status, node.reason) = (status, reason);
            }
            node.rate = Some(facts.total.arrivals);
        } else {
            node.status = Status::Error;
        }
        node.partitions = Some(facts.partitions.to_vec());
        node.link = Some(PARTITIONS_PAGE);
        self.nodes.push(node);
        let status = topic(facts, Role::Status, 3);
        // Without MQTT nobody needs it.
        if status.status != Status::Absent {
            self.nodes.push(status);
        }
    }

    /// Workers, and what they take in.
    fn workers(&mut self, facts: &Facts<'_>) {
        let readings = topic_id(&facts.names.readings);
        let listed = facts
            .workers
            .iter()
            .filter(|known| is_worker_of(&known.report, facts.group) && known.state(facts.at) != State::Left);
        let mut some = false;
        for known in listed {
            some |= known.is_there(facts.at);
            let id = format!("worker:{}", known.report.worker);
            let mut node = Node::of(known, "worker", 4, &id, facts.at);
            let own: Vec<&PartitionFacts> = facts
                .partitions
                .iter()
                .filter(|partition| partition.owner.as_deref() == Some(&known.report.worker))
                .collect();
            let processed: f64 = own.iter().map(|partition| partition.processed).sum();
            (node.rate, node.link) = (Some(tenth(processed)), Some(PARTITIONS_PAGE));
            self.nodes.push(node);
            self.edges.push(Edge {
                lag: Some(own.iter().map(|partition| partition.lag).sum()),
                time_lag_ms: own.iter().map(|partition| partition.time_lag_ms).max(),
                status: judge(own).0,
                ..Edge::new(&readings, &id, processed)
            });
            self.effects(facts, &id, processed);
        }
        if some {
            return;
        }
        let silent = facts.workers.iter().all(|known| !is_worker_of(&known.report, facts.group));
        let works = silent && facts.total.processed > 0.0;
        let mut node = Node::new("workers", "workers", "no worker", 4, Status::Error);
        node.link = Some(PARTITIONS_PAGE);
        if works {
            node.name = "workers".to_owned();
            (node.status, node.rate) = (Status::Warn, Some(facts.total.processed));
            let reason = "the group commits offsets, but no worker says who it is: they are of an older release, or \
                          may not write to the topic of workers";
            node.reason = Some(reason.to_owned());
        } else {
            node.reason = Some(
                "nobody works the readings: start `genwatch worker`, and look at its log if it ends"
                    .to_owned(),
            );
        }
        node.detail = format!("group {}", facts.group);
        self.nodes.push(node);
        self.edges.push(Edge {
            lag: Some(facts.total.lag),
            time_lag_ms: Some(facts.total.time_lag_ms),
            status: if works { Status::Ok } else { Status::Error },
            ..Edge::new(&readings, "workers", facts.total.processed)
        });
        self.effects(facts, "workers", facts.total.processed);
    }

    /// The edges from a worker to what it writes: its share, by the readings that it processes.
    fn effects(&mut self, facts: &Facts<'_>, id: &str, processed: f64) {
        let share =
            if facts.total.processed > 0.0 { (processed / facts.total.processed).min(1.0) } else { 0.0 };
        for role in [Role::Alerts, Role::State, Role::DeadLetters] {
            let rate = facts.topics.get(&role).map_or(0.0, |topic| topic.rate);
            self.flow(id, &topic_id(facts.names.name(role)), rate * share);
        }
    }

    /// The topics that workers write, and aggregates.
    fn results(&mut self, facts: &Facts<'_>) {
        for role in [Role::Alerts, Role::State, Role::DeadLetters, Role::Aggregates] {
            let mut node = topic(facts, role, 5);
            match role {
                Role::Alerts => node.link = Some(ALARMS_PAGE),
                Role::DeadLetters if node.rate.unwrap_or(0.0) > 0.0 => {
                    node.status = Status::Warn;
                    node.reason = Some(format!(
                        "bad records arrive: `dlq.error.message` in the headers of {} says what is wrong with each",
                        node.name
                    ));
                }
                _ => {}
            }
            self.nodes.push(node);
        }
    }

    /// Workers that make aggregates. What they read and write is in their reports; the lag is that of the group of
    /// one-minute windows.
    fn downsamplers(&mut self, facts: &Facts<'_>) {
        let minutes = format!("{}_1m", facts.group);
        let shown = facts.workers.iter().filter(|known| shown_as(known, &Kind::Downsample));
        let all: Vec<&Known> = shown.collect();
        let is_of_minutes = |known: &Known| known.report.group.as_ref() == Some(&minutes);
        // It commits every few seconds: its reports jump, and its group's offsets over half a minute don't.
        let rate_of = |known: &Known| {
            let own = facts.downsample.iter().filter(|of| known.held.contains(&of.partition));
            let committed: f64 = own.map(|of| of.processed).sum();
            match known.is_there(facts.at) {
                true if is_of_minutes(known) && committed > 0.0 => committed,
                true => known.rate(),
                false => 0.0,
            }
        };
        for known in &all {
            let report = &known.report;
            let from = report.from.as_ref().unwrap_or(&facts.names.readings);
            let to = report.to.as_ref().unwrap_or(&facts.names.aggregates);
            let id = format!("downsample:{}", report.worker);
            let mut node = Node::of(known, "downsample", 4, &id, facts.at);
            let rate = rate_of(known);
            node.rate = Some(tenth(rate));
            let mut taken = Edge::new(&self.topic_named(from, 3, rate), &id, rate);
            if is_of_minutes(known) && *from == facts.names.readings {
                let own = || facts.downsample.iter().filter(|of| known.held.contains(&of.partition));
                taken.lag = Some(own().map(|of| of.lag).sum());
                taken.time_lag_ms = own().map(|of| of.time_lag_ms).max();
                if node.status == Status::Ok {
                    (node.status, node.reason) = match own().map(|of| of.verdict).max() {
                        None | Some(Verdict::Ok) => (Status::Ok, None),
                        Some(Verdict::Behind) => (Status::Warn, Some(SLOW.to_owned())),
                        Some(_) => (Status::Error, Some(STANDS.to_owned())),
                    };
                }
            }
            taken.status = node.status;
            self.edges.push(taken);
            self.nodes.push(node);
            let beside: f64 = all
                .iter()
                .filter(|other| other.report.to.as_ref().unwrap_or(&facts.names.aggregates) == to)
                .map(|other| rate_of(other))
                .sum();
            let written = Role::ALL.into_iter().find(|role| facts.names.name(*role) == to);
            let written = written.and_then(|role| facts.topics.get(&role)).map_or(0.0, |topic| topic.rate);
            let share = if beside > 0.0 { rate / beside } else { 0.0 };
            let to = self.topic_named(to, 5, rate);
            self.flow(&id, &to, written * share);
        }
        let nobody = !all.iter().any(|known| is_of_minutes(known));
        if nobody && !facts.downsample.is_empty() {
            // The group has committed offsets, and nobody says that he is in it.
            let lag: i64 = facts.downsample.iter().map(|of| of.lag).sum();
            let processed: f64 = facts.downsample.iter().map(|of| of.processed).sum();
            let stands = processed == 0.0 && lag > 0;
            let status = if stands { Status::Warn } else { flow(processed) };
            let mut node = Node::new("downsample", "downsample", "downsample", 4, status);
            node.detail = format!("group {minutes}");
            node.reason = stands.then(|| {
                "readings wait and none is aggregated: is `genwatch downsample` running?".to_owned()
            });
            self.nodes.push(node);
            self.edges.push(Edge {
                lag: Some(lag),
                time_lag_ms: facts.downsample.iter().map(|of| of.time_lag_ms).max(),
                status,
                ..Edge::new(&topic_id(&facts.names.readings), "downsample", processed)
            });
            let written = facts.topics.get(&Role::Aggregates).map_or(0.0, |topic| topic.rate);
            self.flow("downsample", &topic_id(&facts.names.aggregates), written);
        }
    }

    /// Sources: from a store back into a topic.
    fn returns(&mut self, facts: &Facts<'_>) {
        for source in facts.workers.iter().filter(|known| shown_as(known, &Kind::Source)) {
            let id = format!("source:{}", source.report.worker);
            let node = Node::of(source, "source", 6, &id, facts.at);
            let rate = if source.is_there(facts.at) { source.rate() } else { 0.0 };
            let store = self.store(source.report.peer.as_deref(), node.status);
            self.nodes.push(node);
            self.flow(&store, &id, rate);
            if let Some(to) = &source.report.to {
                let to = self.topic_named(to, 5, rate);
                self.flow(&id, &to, rate);
            }
        }
    }

    /// What a newer version knows and this one doesn't: by its name, with the topics that it names.
    fn others(&mut self, facts: &Facts<'_>) {
        for known in facts.workers.iter().filter(|known| known.left.is_none()) {
            let Kind::Other(name) = &known.report.kind else { continue };
            let id = format!("process:{}", known.report.worker);
            let mut node = Node::of(known, "process", 4, &id, facts.at);
            node.detail.clone_from(name);
            let rate = node.rate.unwrap_or_default();
            self.nodes.push(node);
            if let Some(from) = &known.report.from {
                let from = self.topic_named(from, 3, rate);
                self.flow(&from, &id, rate);
            }
            if let Some(to) = &known.report.to {
                let to = self.topic_named(to, 5, rate);
                self.flow(&id, &to, rate);
            }
        }
    }

    /// Returns the id of a topic's node; adds one, in this column, for a topic that isn't one of ours. Of that, all that
    /// is known is what flows.
    fn topic_named(&mut self, name: &str, rank: u8, rate: f64) -> String {
        let id = topic_id(name);
        match self.nodes.iter_mut().find(|node| node.id == id) {
            Some(node) if node.rate.is_none() && rate > 0.0 => node.status = Status::Ok,
            Some(_) => {}
            None => self.nodes.push(Node::new(&id, "topic", name, rank, flow(rate))),
        }
        id
    }

    /// Returns the id of a store's node; adds it if it is missing.
    fn store(&mut self, peer: Option<&str>, status: Status) -> String {
        let store = peer.unwrap_or("InfluxDB");
        let id = format!("store:{store}");
        if !self.nodes.iter().any(|node| node.id == id) {
            let mut node = Node::new(&id, "store", store, 7, status);
            node.detail = "InfluxDB".to_owned();
            self.nodes.push(node);
        }
        id
    }

    /// Sinks and what they write to.
    fn sinks(&mut self, facts: &Facts<'_>) {
        let sinks: Vec<&Known> = facts.workers.iter().filter(|known| shown_as(known, &Kind::Sink)).collect();
        let there = sinks.iter().filter(|sink| sink.is_there(facts.at)).count().max(1);
        let sources = [Role::Readings, Role::Alerts, Role::Aggregates];
        for sink in &sinks {
            let id = format!("sink:{}", sink.report.worker);
            let node = Node::of(sink, "sink", 6, &id, facts.at);
            let status = node.status;
            self.nodes.push(node);
            for role in sources.into_iter().filter(|role| exists(facts, *role)) {
                let total = facts.sinks.get(&role);
                let mut rate = total.map_or(0.0, |total| total.processed);
                if let (Role::Aggregates, Some(0)) = (role, total.map(|total| total.lag)) {
                    // They come in bursts, and all that have come are written.
                    rate = facts.topics.get(&role).map_or(0.0, |topic| topic.rate);
                }
                let mut edge = Edge::new(&topic_id(facts.names.name(role)), &id, rate / there as f64);
                edge.status = status;
                if let Some(total) = total {
                    edge.lag = Some(total.lag);
                    edge.time_lag_ms = (role == Role::Readings).then_some(total.time_lag_ms);
                }
                self.edges.push(edge);
            }
            let store_id = self.store(sink.report.peer.as_deref(), status);
            self.flow(&id, &store_id, if sink.is_there(facts.at) { sink.rate() } else { 0.0 });
        }
        if let (true, Some(total)) = (sinks.is_empty(), facts.sinks.get(&Role::Readings)) {
            // It has committed offsets, and nobody says that he is a sink.
            let stands = total.processed == 0.0 && total.lag > 0;
            let mut node = Node::new(
                "sink",
                "sink",
                "InfluxDB",
                6,
                if stands { Status::Warn } else { flow(total.processed) },
            );
            node.detail = format!("group {}_influx", facts.group);
            node.reason = stands
                .then(|| "readings wait and none is written: is `genwatch sink influx` running?".to_owned());
            self.edges.push(Edge {
                lag: Some(total.lag),
                time_lag_ms: Some(total.time_lag_ms),
                status: node.status,
                ..Edge::new(&topic_id(&facts.names.readings), "sink", total.processed)
            });
            self.nodes.push(node);
        }
    }

    /// Connectors of Kafka Connect. Where they write to, nobody says.
    fn connectors(&mut self, facts: &Facts<'_>) {
        for ConnectorFacts { name, has_members, reads } in facts.connectors {
            let id = format!("connector:{name}");
            // Without a task nothing moves, whatever the rate of the last minutes is.
            let rate_of = |read: &ReadFacts| if *has_members == Some(false) { 0.0 } else { read.rate };
            let rate = reads.iter().map(rate_of).sum();
            let waits = reads.iter().any(|read| read.lag > 0);
            let stands = reads.iter().any(|read| read.lag > 0 && read.stands);
            let (status, reason) = match has_members {
                Some(false) if waits => (Status::Warn, Some(NO_TASK)),
                Some(false) => (Status::Idle, None),
                _ if stands => (Status::Warn, Some(TASK_STANDS)),
                Some(true) => (Status::Ok, None),
                None => (flow(rate), None),
            };
            let mut node = Node::new(&id, "connector", name, 6, status);
            node.rate = Some(tenth(rate));
            node.reason = reason.map(str::to_owned);
            node.detail = match has_members {
                Some(true) => "live".to_owned(),
                Some(false) => "no task runs".to_owned(),
                None => String::new(),
            };
            self.nodes.push(node);
            for read in reads.iter().filter(|read| exists(facts, read.role)) {
                let edge = Edge::new(&topic_id(facts.names.name(read.role)), &id, rate_of(read));
                let status = if status == Status::Warn { status } else { edge.status };
                self.edges.push(Edge { lag: Some(read.lag), time_lag_ms: read.time_lag_ms, status, ..edge });
            }
        }
    }

    fn flow(&mut self, from: &str, to: &str, rate: f64) {
        self.edges.push(Edge::new(from, to, rate));
    }
}

impl Node {
    fn new(id: &str, kind: &'static str, name: &str, rank: u8, status: Status) -> Node {
        Node {
            id: id.to_owned(),
            kind,
            name: name.to_owned(),
            rank,
            status,
            detail: String::new(),
            rate: None,
            partitions: None,
            link: None,
            reason: None,
        }
    }

    /// One that reports.
    fn of(known: &Known, kind: &'static str, rank: u8, id: &str, now: Millis) -> Node {
        let report = &known.report;
        let state = known.state(now);
        let has_moved = known.held.is_empty() && !report.held.is_empty();
        let status = match state {
            State::Active => Status::Ok,
            State::Idle => Status::Idle,
            State::Restoring | State::Draining | State::NotReady => Status::Warn,
            State::Overdue if has_moved => Status::Warn,
            State::Overdue => Status::Error,
            State::Left => Status::Absent,
        };
        let mut node = Node::new(id, kind, &report.worker, rank, status);
        node.rate = Some(tenth(if known.is_there(now) { known.rate() } else { 0.0 }));
        let partitions = known.held.len();
        node.detail = match kind {
            "bridge" => format!("{} in flight", report.in_flight),
            "source" => String::new(),
            _ if partitions == 1 => "1 partition".to_owned(),
            _ => format!("{partitions} partitions"),
        };
        node.reason = match state {
            State::Overdue => Some(format!(
                "it has said nothing for {} s: it was killed, hangs, or can't reach Kafka{}",
                now.since(report.at) / 1000,
                if !report.can_hold() {
                    ""
                } else if has_moved {
                    "; its partitions have moved to others"
                } else {
                    "; the group gives its partitions to others when its session times out"
                }
            )),
            State::Idle if kind == "worker" || kind == "downsample" => Some(
                "it has no partition: there are more workers than partitions, or it has just joined"
                    .to_owned(),
            ),
            State::NotReady | State::Restoring | State::Draining => report.not_ready.clone(),
            _ => None,
        };
        node
    }
}

impl Edge {
    fn new(from: &str, to: &str, rate: f64) -> Edge {
        Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            rate: Some(tenth(rate)),
            lag: None,
            time_lag_ms: None,
            status: flow(rate),
            label: if rate > 0.0 { per_second(rate) } else { String::new() },
        }
    }
}

/// One that is listed: it hasn't left.
fn shown_as(known: &Known, kind: &Kind) -> bool {
    known.report.kind == *kind && known.left.is_none()
}

fn topic_id(name: &str) -> String {
    format!("topic:{name}")
}

fn exists(facts: &Facts<'_>, role: Role) -> bool {
    facts.topics.get(&role).is_some_and(|topic| topic.exists == Some(true))
}

fn topic(facts: &Facts<'_>, role: Role, rank: u8) -> Node {
    let name = facts.names.name(role);
    let known = facts.topics.get(&role).cloned().unwrap_or_default();
    let status = match known.exists {
        Some(true) => flow(known.rate),
        Some(false) => Status::Absent,
        None => Status::Idle,
    };
    let mut node = Node::new(&topic_id(name), "topic", name, rank, status);
    node.rate = Some(tenth(known.rate));
    if known.exists == Some(true) {
        let partitions = known.partitions;
        node.detail = format!("{partitions} partition{}", if partitions == 1 { "" } else { "s" });
    } else if known.exists == Some(false) {
        node.detail = "does not exist".to_owned();
        let reason = format!("topic {name} does not exist: create it by `genwatch topics create`");
        node.reason = (role != Role::Status).then_some(reason);
    }
    node
}

/// Judges partitions: the status of the worst, and what to do.
fn judge<'p>(partitions: impl IntoIterator<Item = &'p PartitionFacts>) -> (Status, Option<String>) {
    let mut verdicts: BTreeMap<Verdict, BTreeSet<PartitionId>> = BTreeMap::new();
    for partition in partitions {
        verdicts.entry(partition.verdict).or_default().insert(partition.partition);
    }
    let Some((worst, partitions)) = verdicts.last_key_value() else { return (Status::Idle, None) };
    let ids: Vec<PartitionId> = partitions.iter().copied().collect();
    let which =
        format!("partition{} {}", if ids.len() == 1 { "" } else { "s" }, genwatch_core::ranges::listed(&ids));
    match worst {
        Verdict::Ok => (Status::Ok, None),
        Verdict::Behind => (
            Status::Warn,
            Some(format!(
                "{which}: readings wait for more than 10 s; add workers, or see what holds them up"
            )),
        ),
        Verdict::Stalled => (
            Status::Error,
            Some(format!("{which}: readings wait, and the worker commits nothing; its log says why")),
        ),
        Verdict::Unowned => {
            (Status::Error, Some(format!("{which}: readings wait, and no worker has it; start one")))
        }
    }
}

fn flow(rate: f64) -> Status {
    if rate > 0.0 { Status::Ok } else { Status::Idle }
}

/// Formats a rate for people: `1,000/s`.
fn per_second(rate: f64) -> String {
    if rate < 10.0 {
        return format!("{}/s", tenth(rate.max(0.0)));
    }
    grouped(rate) + "/s"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use genwatch_core::report::Report;
    use genwatch_core::types::Offset;

    use super::super::progress::{Bounds, GroupProgress};
    use super::*;

    const NOW: Millis = Millis(1_766_400_000_000);

    fn report(worker: &str, kind: &str, at: i64, more: &str) -> Report {
        let json = format!(
            r#"{{"worker":"{worker}","kind":"{kind}","at":{at},"since":1,"every":1000,"version":"1","host":"h",
                "rate":500.0,"busy":0.1,"cpu":0.1,"records":1{more}}}"#
        );
        Report::from_json(json.as_bytes()).unwrap()
    }

    /// The graph of these reports, with readings that arrive in one partition of this owner.
    fn lineage(reports: &[Report], owner: Option<&str>, verdict: Verdict) -> serde_json::Value {
        with_aggregates(reports, owner, verdict, None, &[])
    }

    /// The same, where aggregates are written at this rate, and their group is so far.
    fn with_aggregates(
        reports: &[Report],
        owner: Option<&str>,
        verdict: Verdict,
        rate: Option<f64>,
        downsample: &[PartitionFacts],
    ) -> serde_json::Value {
        graph(reports, owner, verdict, rate, downsample, &[])
    }

    /// The same beside these connectors.
    fn graph(
        reports: &[Report],
        owner: Option<&str>,
        verdict: Verdict,
        rate: Option<f64>,
        downsample: &[PartitionFacts],
        connectors: &[ConnectorFacts],
    ) -> serde_json::Value {
        let mut workers = Workers::default();
        reports.iter().for_each(|report| drop(workers.report(report.clone())));
        let mut progress = GroupProgress::default();
        for second in 0..3 {
            let bounds = Bounds {
                start: Offset(0),
                end: Offset(1000 * second),
                committed: Some(Offset(900 * second)),
            };
            progress.look(Millis(NOW.0 + second * 1000 - 2000), &BTreeMap::from([(PartitionId(0), bounds)]));
        }
        let partitions = [PartitionFacts {
            partition: PartitionId(0),
            owner: owner.map(str::to_owned),
            lag: 200,
            verdict,
            time_lag_ms: 100,
            processed: 900.0,
        }];
        let there = TopicFacts { exists: Some(true), partitions: 1, rate: 2.0 };
        let mut topics: BTreeMap<Role, TopicFacts> =
            Role::ALL.into_iter().map(|role| (role, there.clone())).collect();
        let rate = rate.map(|rate| TopicFacts { rate, ..there });
        let missing = TopicFacts { exists: Some(false), ..TopicFacts::default() };
        topics.insert(Role::Aggregates, rate.unwrap_or(missing));
        let facts = Facts {
            at: NOW,
            names: &Topics::new("t", "g"),
            group: "g",
            topics: &topics,
            partitions: &partitions,
            total: &progress.total(),
            workers: &workers,
            sinks: &BTreeMap::new(),
            downsample,
            connectors,
        };
        serde_json::to_value(Lineage::of(&facts)).unwrap()
    }

    fn node<'l>(lineage: &'l serde_json::Value, id: &str) -> &'l serde_json::Value {
        let nodes = lineage["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["id"] == id).unwrap_or_else(|| panic!("no {id} in {lineage:#}"))
    }

    #[test]
    fn readings_go_from_producers_over_a_worker_to_its_topics() {
        let lineage = lineage(&[report("w", "worker", NOW.0, r#","held":"0""#)], Some("w"), Verdict::Ok);
        assert_eq!(node(&lineage, "producers")["detail"], "1,000/s");
        assert_eq!(
            (&node(&lineage, "topic:t")["status"], &node(&lineage, "topic:t")["rank"]),
            (&"ok".into(), &3.into())
        );
        assert_eq!(node(&lineage, "worker:w")["status"], "ok");
        assert_eq!(node(&lineage, "topic:t_1m")["status"], "absent");
        let edges = lineage["edges"].as_array().unwrap();
        let edge = edges.iter().find(|edge| edge["to"] == "worker:w").unwrap();
        assert_eq!((&edge["lag"], &edge["label"]), (&200.into(), &"900/s".into()));
        assert!(edges.iter().any(|edge| edge["from"] == "worker:w" && edge["to"] == "topic:t_alerts"));
        for edge in edges {
            for end in ["from", "to"] {
                node(&lineage, edge[end].as_str().unwrap());
            }
        }
    }

    #[test]
    fn without_a_worker_the_graph_says_what_to_do() {
        let none = lineage(&[], None, Verdict::Unowned);
        assert_eq!(node(&none, "topic:t")["status"], "error");
        assert!(node(&none, "topic:t")["reason"].as_str().unwrap().contains("partition 0"));
        let dead = lineage(&[report("w", "worker", NOW.0 - 9000, "")], None, Verdict::Unowned);
        assert_eq!(node(&dead, "worker:w")["status"], "error");
        assert!(node(&dead, "worker:w")["reason"].as_str().unwrap().contains("9 s"));
        assert_eq!(node(&dead, "workers")["name"], "no worker");
    }

    #[test]
    fn a_bridge_and_a_sink_bring_what_they_connect() {
        let reports = [
            report("b", "bridge", NOW.0, r#","peer":"mqtt://broker:1883""#),
            report("s", "sink", NOW.0, r#","held":"0","peer":"http://influxdb:8086""#),
        ];
        let lineage = lineage(&reports, None, Verdict::Ok);
        for (id, rank) in [
            ("mqtt:mqtt://broker:1883", 1),
            ("bridge:b", 2),
            ("sink:s", 6),
            ("store:http://influxdb:8086", 7),
        ] {
            assert_eq!(node(&lineage, id)["rank"], rank, "{id}");
        }
    }

    fn edge<'l>(lineage: &'l serde_json::Value, from: &str, to: &str) -> &'l serde_json::Value {
        let edges = lineage["edges"].as_array().unwrap();
        let found = edges.iter().find(|edge| edge["from"] == from && edge["to"] == to);
        found.unwrap_or_else(|| panic!("no edge from {from} to {to} in {lineage:#}"))
    }

    fn behind(partition: i32, lag: i64, verdict: Verdict) -> PartitionFacts {
        let (partition, time_lag_ms) = (PartitionId(partition), lag * 10);
        PartitionFacts { partition, owner: None, lag, verdict, time_lag_ms, processed: 100.0 }
    }

    #[test]
    fn aggregates_go_from_readings_over_downsamplers_to_their_topic() {
        let minutes = |name: &str, held: &str| {
            let more = format!(r#","group":"g_1m","held":"{held}","from":"t","to":"t_1m""#);
            report(name, "downsample", NOW.0, &more)
        };
        let reports = [
            report("w", "worker", NOW.0, r#","group":"g","held":"0""#),
            minutes("d1", "0"),
            minutes("d2", "1-2"),
            report("h", "downsample", NOW.0, r#","group":"g_1h","held":"0-2","from":"t_1m","to":"t_1h""#),
        ];
        let progress =
            [behind(0, 7, Verdict::Ok), behind(1, 20, Verdict::Stalled), behind(2, 30, Verdict::Ok)];
        let lineage = with_aggregates(&reports, Some("w"), Verdict::Ok, Some(4.0), &progress);
        assert_eq!(
            (&node(&lineage, "downsample:d1")["rank"], &node(&lineage, "topic:t_1m")["status"]),
            (&4.into(), &"ok".into())
        );
        let taken = edge(&lineage, "topic:t", "downsample:d1");
        assert_eq!(
            (&taken["lag"], &taken["time_lag_ms"], &taken["rate"]),
            (&7.into(), &70.into(), &100.0.into())
        );
        let stalled = edge(&lineage, "topic:t", "downsample:d2");
        assert_eq!((&stalled["lag"], &stalled["status"]), (&50.into(), &"error".into()));
        assert_eq!(node(&lineage, "downsample:d2")["reason"], STANDS);
        assert_eq!(edge(&lineage, "topic:t", "downsample:d2")["rate"], 200.0, "of two partitions");
        assert_eq!(edge(&lineage, "downsample:d1", "topic:t_1m")["rate"], 1.3, "its third");
        assert!(edge(&lineage, "topic:t_1m", "downsample:h")["lag"].is_null(), "that group isn't followed");
        assert_eq!(node(&lineage, "topic:t_1h")["rank"], 5);
        edge(&lineage, "downsample:h", "topic:t_1h");
        let edges = lineage["edges"].as_array().unwrap();
        let of_workers = edges.iter().filter(|edge| edge["from"] == "topic:t" && edge["to"] == "worker:w");
        assert_eq!(of_workers.count(), 1);
        assert_eq!(edge(&lineage, "topic:t", "worker:w")["lag"], 200, "as without any downsampler");
    }

    #[test]
    fn a_downsampler_that_is_gone_leaves_its_group() {
        let nobody = with_aggregates(&[], None, Verdict::Ok, Some(0.0), &[]);
        assert!(!nobody["nodes"].as_array().unwrap().iter().any(|node| node["kind"] == "downsample"));
        let mut stands = behind(0, 7, Verdict::Stalled);
        stands.processed = 0.0;
        let gone = with_aggregates(&[], None, Verdict::Ok, Some(0.0), &[stands]);
        assert_eq!(node(&gone, "downsample")["status"], "warn");
        assert!(node(&gone, "downsample")["reason"].as_str().unwrap().contains("genwatch downsample"));
        assert_eq!(edge(&gone, "topic:t", "downsample")["lag"], 7);
        let killed = report("d", "downsample", NOW.0 - 9000, r#","group":"g_1m","held":"0""#);
        let killed = with_aggregates(&[killed], None, Verdict::Ok, None, &[behind(0, 7, Verdict::Ok)]);
        assert_eq!(node(&killed, "downsample:d")["status"], "error");
        assert_eq!(edge(&killed, "topic:t", "downsample:d")["status"], "error");
    }

    #[test]
    fn a_source_closes_the_loop() {
        let database = r#","peer":"http://influxdb:8086""#;
        let reports = [
            report("s", "sink", NOW.0, &format!(r#"{database},"group":"g_influx","held":"0""#)),
            report("r", "source", NOW.0, &format!(r#"{database},"to":"t""#)),
            report("q", "source", NOW.0, &format!(r#"{database},"to":"rows""#)),
        ];
        let lineage = lineage(&reports, None, Verdict::Ok);
        let store = "store:http://influxdb:8086";
        edge(&lineage, "sink:s", store);
        assert_eq!(edge(&lineage, store, "source:r")["rate"], 500.0);
        assert_eq!(edge(&lineage, "source:r", "topic:t")["rate"], 500.0);
        edge(&lineage, "source:q", "topic:rows");
        assert_eq!(
            (&node(&lineage, "topic:rows")["status"], &node(&lineage, "topic:rows")["rank"]),
            (&"ok".into(), &5.into())
        );
        assert_eq!(node(&lineage, "source:r")["status"], "ok", "it has no partitions, and isn't idle");
        assert_eq!(node(&lineage, "producers")["rate"], 500.0, "half of what arrives is the source's");
    }

    #[test]
    fn a_connector_has_the_topics_that_it_reads_and_says_what_is_wrong() {
        let read = |role, lag, stands| ReadFacts { role, lag, time_lag_ms: Some(70), rate: 5.0, stands };
        let connector = |name: &str, has_members, reads: &[ReadFacts]| ConnectorFacts {
            name: name.to_owned(),
            has_members,
            reads: reads.to_vec(),
        };
        let connectors = [
            connector("s3", Some(true), &[read(Role::Readings, 7, false), read(Role::Alerts, 0, true)]),
            connector("stuck", Some(true), &[read(Role::Readings, 7, true)]),
            connector("stopped", Some(false), &[read(Role::Readings, 7, false)]),
            connector("done", Some(false), &[read(Role::Readings, 0, true)]),
            connector("old", None, &[read(Role::Aggregates, 0, false)]),
        ];
        let lineage = graph(&[], None, Verdict::Ok, None, &[], &connectors);
        let told = |name: &str| {
            let node = node(&lineage, &format!("connector:{name}"));
            [node["status"].as_str().unwrap(), node["detail"].as_str().unwrap()].map(str::to_owned)
        };
        assert_eq!(told("s3"), ["ok", "live"]);
        assert_eq!(told("stuck"), ["warn", "live"]);
        assert_eq!(told("stopped"), ["warn", "no task runs"]);
        assert_eq!(told("done"), ["idle", "no task runs"]);
        assert_eq!(node(&lineage, "connector:stopped")["rate"], 0.0);
        assert_eq!(told("old"), ["ok", ""]);
        let s3 = node(&lineage, "connector:s3");
        assert_eq!(
            (&s3["rank"], &s3["rate"], &s3["reason"]),
            (&6.into(), &10.0.into(), &serde_json::Value::Null)
        );
        assert!(node(&lineage, "connector:stopped")["reason"].as_str().unwrap().contains("Kafka Connect"));
        let taken = edge(&lineage, "topic:t", "connector:s3");
        assert_eq!((&taken["lag"], &taken["time_lag_ms"]), (&7.into(), &70.into()));
        edge(&lineage, "topic:t_alerts", "connector:s3");
        assert_eq!(edge(&lineage, "topic:t", "connector:stuck")["status"], "warn");
        let edges = lineage["edges"].as_array().unwrap();
        assert!(edges.iter().all(|edge| edge["to"] != "connector:old"), "that topic isn't there");
    }

    #[test]
    fn a_process_of_an_unknown_kind_is_shown_and_changes_nothing() {
        let known = [report("w", "worker", NOW.0, r#","group":"g","held":"0""#)];
        let newer = report("m", "mirror", NOW.0, r#","group":"g","held":"0","to":"elsewhere""#);
        let before = lineage(&known, Some("w"), Verdict::Ok);
        let after = lineage(&[known[0].clone(), newer], Some("w"), Verdict::Ok);
        assert_eq!(
            (&node(&after, "process:m")["detail"], &node(&after, "process:m")["kind"]),
            (&"mirror".into(), &"process".into())
        );
        edge(&after, "process:m", "topic:elsewhere");
        for list in ["nodes", "edges"] {
            for part in before[list].as_array().unwrap() {
                assert!(after[list].as_array().unwrap().contains(part), "{part}");
            }
        }
    }

    #[test]
    fn rates_are_for_people() {
        assert_eq!(
            [0.0, 0.25, 12.0, 1234.5, 1_000_000.0].map(per_second),
            ["0/s", "0.3/s", "12/s", "1,234/s", "1,000,000/s"]
        );
    }
}
