//! `genwatch topics describe`: what topics there are, and what is wrong with them.

use std::collections::BTreeMap;
use std::io::Write as _;

use clap::Args;
use genwatch_kafka::admin::{Cluster, TopicInfo};
use genwatch_kafka::topics::Role;
use serde::Serialize;

use super::{all, check_sizes};
use crate::cli::{ClusterOptions, Failure};

/// Show the topics: partitions, leaders, replicas, whether all replicas are in sync, and what is wrong with them.
///
/// Exit code 1 if a topic is missing, has a partition without a leader, or is configured so that genwatch can't keep
/// its guarantees.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print one JSON document.
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Description {
    Missing { topic: String, exists: bool },
    Found(Found),
}

#[derive(Serialize)]
struct Found {
    topic: String,
    exists: bool,
    cleanup_policy: Option<String>,
    min_insync_replicas: Option<String>,
    replication_factor: usize,
    partitions: Vec<Partition>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Partition {
    partition: usize,
    leader: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let topics = options.cluster.topics();
    let topics = all(&topics)?;
    let cluster = Cluster::connect(&options.cluster.connection()?)?;
    let configs = cluster.topic_configs(&topics.map(|(_, name)| name));
    let size = |name: &str| Some(configs.get(name)?.get("max.message.bytes")?.as_str());
    let readings = cluster.topic(topics[0].1)?;
    let mut descriptions = Vec::new();
    for (role, name) in topics {
        let Some(info) = cluster.topic(name)? else {
            descriptions.push(Description::Missing { topic: name.to_owned(), exists: false });
            continue;
        };
        let mut found = describe(role, info, configs.get(name), readings.as_ref());
        if role == Role::DeadLetters {
            found.problems.extend(check_sizes(size(topics[0].1), size(name)));
        }
        descriptions.push(Description::Found(found));
    }
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer(&mut out, &descriptions)?;
        writeln!(out)?;
    } else {
        descriptions.iter().try_for_each(|description| description.print(&mut out))?;
    }
    out.flush()?;
    match descriptions.iter().filter(|description| !description.is_fine()).count() {
        0 => Ok(()),
        wrong => Err(anyhow::anyhow!(
            "{wrong} of {} topics are missing or not as genwatch needs them",
            descriptions.len()
        )
        .into()),
    }
}

fn describe(
    role: Role,
    info: TopicInfo,
    config: Option<&BTreeMap<String, String>>,
    readings: Option<&TopicInfo>,
) -> Found {
    let mut problems = Vec::new();
    let differs =
        |readings: &&TopicInfo| role != Role::Workers && readings.partitions.len() != info.partitions.len();
    if let Some(readings) = readings.filter(differs) {
        problems.push(format!(
            "{} partitions, and {} has {}: a record keeps its partition number",
            info.partitions.len(),
            readings.name,
            readings.partitions.len()
        ));
    }
    let leaderless = info.partitions.iter().filter(|partition| partition.leader < 0).count();
    if leaderless > 0 {
        problems.push(format!("{leaderless} partitions have no leader: are all brokers up?"));
    }
    let faults = config.map(|config| role.faults(config)).unwrap_or_default();
    problems.extend(faults.into_iter().map(|fault| fault.text));
    let property = |key: &str| config.and_then(|config| config.get(key)).cloned();
    Found {
        exists: true,
        cleanup_policy: property("cleanup.policy"),
        min_insync_replicas: property("min.insync.replicas"),
        replication_factor: info.replication(),
        topic: info.name,
        partitions: (0..).zip(info.partitions).map(|(id, of)| Partition::new(id, of)).collect(),
        problems,
    }
}

impl Partition {
    fn new(partition: usize, info: genwatch_kafka::admin::PartitionInfo) -> Partition {
        Partition { partition, leader: info.leader, replicas: info.replicas, in_sync: info.in_sync }
    }
}

impl Description {
    fn is_fine(&self) -> bool {
        matches!(self, Description::Found(found) if found.problems.is_empty())
    }

    fn print(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let found = match self {
            Description::Missing { topic, .. } => {
                return writeln!(out, "{topic}: missing (create it by `genwatch topics create`)");
            }
            Description::Found(found) => found,
        };
        let lagging = found.partitions.iter().filter(|of| of.in_sync.len() < of.replicas.len()).count();
        let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        writeln!(
            out,
            "{}: {} partitions, replication factor {}, min in-sync {}, {}{}",
            found.topic,
            found.partitions.len(),
            found.replication_factor,
            or_unknown(&found.min_insync_replicas),
            or_unknown(&found.cleanup_policy),
            if lagging > 0 { format!(", {lagging} under-replicated") } else { String::new() },
        )?;
        found.problems.iter().try_for_each(|problem| writeln!(out, "  WRONG: {problem}"))
    }
}
