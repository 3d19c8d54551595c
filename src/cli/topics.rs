//! `genwatch topics`: makes and shows the topics.

use std::io::Write as _;

use clap::{Args, Subcommand};

use super::{ClusterOptions, Failure};
use crate::kafka::admin::{Cluster, ClusterError, MAX_RECORD_BYTES, TopicPlan, default_replication};

/// Make or show the topics.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    Describe(Describe),
}

/// Make the topics of readings, alerts, dead letters, states, status and aggregates.
///
/// Those that exist are left as they are, if they have the partitions asked for; a second run changes nothing.
#[derive(Debug, Args)]
struct Create {
    /// Partitions of every topic: the most replicas that can share the work.
    #[arg(short, long, default_value_t = 12, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,

    /// On how many brokers each record is kept. Without it: 3, or as many brokers as there are.
    #[arg(short, long, env = "GENWATCH_REPLICATION_FACTOR", value_parser = clap::value_parser!(i32).range(1..=100))]
    replication_factor: Option<i32>,

    /// How many of these must have a record before it counts as written. Without it: one less than a replication factor
    /// of 3 or more, else 1.
    #[arg(short, long, env = "GENWATCH_MIN_INSYNC", value_parser = clap::value_parser!(i32).range(1..=100))]
    min_insync: Option<i32>,

    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Show the topics: partitions, leaders, replicas, and whether all replicas are in sync.
#[derive(Debug, Args)]
struct Describe {
    /// One JSON document.
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    match &options.action {
        Action::Create(create) => run_create(create),
        Action::Describe(describe) => run_describe(describe),
    }
}

fn run_create(options: &Create) -> Result<(), Failure> {
    let cluster = Cluster::connect(&options.cluster.connection()?)?;
    let topics = options.cluster.topics();
    let (usual_replication, _) = default_replication(cluster.broker_count()?);
    let replication = options.replication_factor.unwrap_or(usual_replication);
    let min_insync = options.min_insync.unwrap_or(if replication >= 3 { replication - 1 } else { 1 });
    if min_insync > replication {
        return Err(Failure::usage(anyhow::anyhow!(
            "--min-insync {min_insync} is more than --replication-factor {replication}: nothing could ever be written"
        )));
    }
    let mut out = std::io::stdout().lock();
    for (name, cleanup) in topics.all() {
        let plan = TopicPlan {
            name: name.to_owned(),
            partitions: options.partitions,
            replication,
            min_insync,
            cleanup,
            max_message_bytes: MAX_RECORD_BYTES,
        };
        if let Some(found) = cluster.topic(name)? {
            check_partitions(name, found.partitions.len(), options.partitions)?;
            writeln!(out, "{name}: exists, {} partitions", found.partitions.len())?;
        } else if cluster.create(&plan)? {
            writeln!(
                out,
                "{name}: created, {} partitions, replication factor {replication}, {}",
                plan.partitions,
                cleanup.as_str()
            )?;
        } else {
            writeln!(out, "{name}: exists")?;
        }
    }
    Ok(())
}

fn check_partitions(name: &str, found: usize, wanted: i32) -> Result<(), ClusterError> {
    if i32::try_from(found) == Ok(wanted) {
        return Ok(());
    }
    Err(ClusterError::NotCreated {
        topic: name.to_owned(),
        reason: format!(
            "it exists with {found} partitions, not {wanted}; pass --partitions {found}, or delete it first \
             (a key's partition depends on the number of partitions)"
        ),
    })
}

fn run_describe(options: &Describe) -> Result<(), Failure> {
    let cluster = Cluster::connect(&options.cluster.connection()?)?;
    let topics = options.cluster.topics();
    let mut documents = Vec::new();
    let mut out = std::io::stdout().lock();
    for (name, _) in topics.all() {
        let Some(topic) = cluster.topic(name)? else {
            documents.push(serde_json::json!({ "topic": name, "exists": false }));
            if !options.json {
                writeln!(out, "{name}: missing (create it by `genwatch topics create`)")?;
            }
            continue;
        };
        let replicas = topic.partitions.iter().map(|p| p.replicas.len()).min().unwrap_or(0);
        let lagging = topic.partitions.iter().filter(|p| p.in_sync.len() < p.replicas.len()).count();
        let leaderless = topic.partitions.iter().filter(|p| p.leader < 0).count();
        let config = |key| cluster.topic_config(name, key);
        let (cleanup, min_insync) = (config("cleanup.policy"), config("min.insync.replicas"));
        if !options.json {
            writeln!(
                out,
                "{name}: {} partitions, replication factor {replicas}, min in-sync {}, {}{}{}",
                topic.partitions.len(),
                min_insync.as_deref().unwrap_or("?"),
                cleanup.as_deref().unwrap_or("?"),
                if lagging > 0 { format!(", {lagging} under-replicated") } else { String::new() },
                if leaderless > 0 { format!(", {leaderless} without a leader") } else { String::new() },
            )?;
        }
        let partitions: Vec<_> = topic
            .partitions
            .iter()
            .enumerate()
            .map(|(id, p)| {
                serde_json::json!({ "partition": id, "leader": p.leader, "replicas": p.replicas, "in_sync": p.in_sync })
            })
            .collect();
        documents.push(serde_json::json!({
            "topic": name, "exists": true, "cleanup_policy": cleanup, "min_insync_replicas": min_insync,
            "replication_factor": replicas, "partitions": partitions,
        }));
    }
    if options.json {
        serde_json::to_writer(&mut out, &documents)?;
        writeln!(out)?;
    }
    Ok(())
}
