//! `genwatch topics create`: checks everything before it creates anything.

use std::collections::BTreeMap;
use std::io::Write as _;

use clap::Args;
use genwatch_kafka::admin::{Cluster, ClusterError, TopicInfo, TopicPlan, default_replication};
use genwatch_kafka::topics::Role;

use super::settings::Settings;
use super::{all, check_sizes};
use crate::cli::{ClusterOptions, Failure};

/// Create the topics of readings, alerts, dead letters, states, status, aggregates and workers' reports.
///
/// Existing topics are left as they are; a second run changes nothing. Everything is checked first: if one topic
/// conflicts (other partitions, another cleanup policy) or the broker would refuse one, none is created.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Partitions of every topic but <GROUP>_workers, which has one: the most workers that can share the readings.
    #[arg(short, long, default_value_t = 12, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,

    /// How many brokers keep each record. Default: 3, or as many brokers as there are.
    #[arg(short, long, env = "GENWATCH_REPLICATION_FACTOR", value_parser = clap::value_parser!(i32).range(1..=100))]
    replication_factor: Option<i32>,

    /// How many of these must have a record before it counts as written. Default: one less than a replication factor of
    /// 3 or more, else 1.
    #[arg(short, long, env = "GENWATCH_MIN_INSYNC", value_parser = clap::value_parser!(i32).range(1..=100))]
    min_insync: Option<i32>,

    /// A property of the created topics, such as retention.ms=604800000; prefix it with a topic to set it for that one
    /// only: readings:, alerts:, dlq:, state:, status:, 1m:, workers:. May be repeated; in GENWATCH_CONFIG one a line.
    #[arg(short, long, value_name = "[TOPIC:]KEY=VALUE", env = "GENWATCH_CONFIG")]
    config: Vec<String>,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let settings = Settings::parse(&options.config).map_err(Failure::Usage)?;
    let topics = options.cluster.topics();
    let topics = all(&topics)?;
    let cluster = Cluster::connect(&options.cluster.connection()?)?;
    let (usual_replication, _) = default_replication(cluster.broker_count()?);
    let replication = options.replication_factor.unwrap_or(usual_replication);
    let min_insync = options.min_insync.unwrap_or(if replication >= 3 { replication - 1 } else { 1 });
    if min_insync > replication {
        return Err(Failure::usage(anyhow::anyhow!(
            "--min-insync {min_insync} is more than --replication-factor {replication}: nothing could ever be written"
        )));
    }
    let plans = topics.map(|(role, name)| Planned {
        role,
        settings: settings.of(role).map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        plan: TopicPlan {
            name: name.to_owned(),
            partitions: role.partitions(options.partitions),
            replication,
            config: settings.apply(role, role.config().min_insync(min_insync)),
        },
    });
    let checked = check(&cluster, plans)?;
    let mut out = std::io::stdout().lock();
    for topic in checked {
        writeln!(out, "{}", topic.bring_about(&cluster)?)?;
    }
    Ok(())
}

/// A topic as wanted.
struct Planned {
    role: Role,
    plan: TopicPlan,
    /// The user's additional properties.
    settings: BTreeMap<String, String>,
}

/// A topic without conflicts.
enum Checked {
    Exists { name: String, partitions: usize, notes: Vec<String> },
    Missing { planned: Planned, left_out: Vec<String> },
}

/// Checks all topics; the broker validates the missing ones.
fn check(cluster: &Cluster, plans: [Planned; 7]) -> Result<Vec<Checked>, Failure> {
    let names = plans.each_ref().map(|planned| planned.plan.name.clone());
    let mut found = BTreeMap::new();
    for name in &names {
        if let Some(info) = cluster.topic(name)? {
            found.insert(name.clone(), info);
        }
    }
    let configs = cluster.topic_configs(&found.keys().map(String::as_str).collect::<Vec<_>>());
    let wanted = plans[0].plan.partitions;
    let mut parallel = found.clone();
    for planned in plans.iter().filter(|planned| planned.role == Role::Workers) {
        parallel.remove(&planned.plan.name);
    }
    let mut conflicts: Vec<String> = partition_conflict(&names[0], wanted, &parallel).into_iter().collect();
    let size = |role: Role| {
        let planned = plans.iter().find(|planned| planned.role == role)?;
        let existing = configs.get(&planned.plan.name).and_then(|config| config.get("max.message.bytes"));
        Some(existing.map_or_else(|| planned.plan.config.get("max.message.bytes").to_owned(), Clone::clone))
    };
    let sizes = check_sizes(size(Role::Readings).as_deref(), size(Role::DeadLetters).as_deref());
    let mut checked = Vec::new();
    let mut refused: Vec<(String, Vec<String>)> = Vec::new();
    for planned in plans {
        let Planned { role, plan, settings } = &planned;
        let name = &plan.name;
        let sizes = sizes.clone().filter(|_| *role == Role::DeadLetters);
        if let Some(info) = found.get(name) {
            let empty = BTreeMap::new();
            let config = configs.get(name).unwrap_or(&empty);
            let (fatal, others): (Vec<_>, Vec<_>) =
                role.faults(config).into_iter().partition(|fault| fault.fatal);
            conflicts.extend(fatal.into_iter().map(|fault| format!("{name} has {}", fault.text)));
            let mut notes: Vec<String> = others.into_iter().map(|fault| fault.text).chain(sizes).collect();
            notes.extend(differences(info, config, plan, settings));
            checked.push(Checked::Exists { name: name.clone(), partitions: info.partitions.len(), notes });
        } else {
            conflicts.extend(sizes.map(|fault| format!("{name} would have {fault}")));
            match cluster.validate(plan.clone()) {
                Ok(plan) => {
                    let asked = planned.plan.config.iter().map(|(key, _)| key.to_owned());
                    let left_out = asked.filter(|key| !plan.config.has(key)).collect();
                    checked.push(Checked::Missing { planned: Planned { plan, ..planned }, left_out });
                }
                Err(ClusterError::NotCreated { topic, reason }) => {
                    match refused.iter_mut().find(|(known, _)| *known == reason) {
                        Some((_, topics)) => topics.push(topic),
                        None => refused.push((reason, vec![topic])),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    conflicts.extend(refused.into_iter().map(|(reason, topics)| {
        let topic = topics.join(", ");
        ClusterError::NotCreated { topic, reason }.to_string()
    }));
    match &conflicts[..] {
        [] => Ok(checked),
        [one] => Err(anyhow::anyhow!("nothing was created: {one}").into()),
        several => {
            let count = several.len();
            let lines = several.join("\n  ");
            Err(anyhow::anyhow!("nothing was created, for {count} reasons:\n  {lines}").into())
        }
    }
}

/// Lists topics whose partitions differ from those wanted, and one way to make all equal. Any number of partitions will
/// do for workers' reports, which aren't among `found`.
fn partition_conflict(readings: &str, wanted: i32, found: &BTreeMap<String, TopicInfo>) -> Option<String> {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let mut names: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (name, info) in found {
        names.entry(info.partitions.len()).or_default().push(name);
    }
    if names.keys().all(|count| *count == wanted) {
        return None;
    }
    // The readings topic stays as it is; without one, the number that all others agree on.
    let of_readings = found.get(readings).map(|info| info.partitions.len());
    let only = names.keys().next().copied().filter(|_| names.len() == 1);
    let target = of_readings.or(only).unwrap_or(wanted);
    let wrong: Vec<&str> =
        names.iter().filter(|(count, _)| **count != target).flat_map(|(_, of)| of.clone()).collect();
    let there: Vec<String> =
        names.iter().map(|(count, of)| format!("{count} partitions ({})", of.join(", "))).collect();
    let mut advice = Vec::new();
    if !wrong.is_empty() {
        advice.push(format!("delete {}, with what they hold", wrong.join(", ")));
    }
    if target != wanted {
        advice.push(format!("pass --partitions {target}"));
    }
    Some(format!(
        "all topics need the same number of partitions; --partitions is {wanted}, and there are topics with {}: {}",
        there.join(" and "),
        advice.join(" and ")
    ))
}

/// Returns how an existing topic differs from what was asked for.
fn differences(
    info: &TopicInfo,
    config: &BTreeMap<String, String>,
    plan: &TopicPlan,
    settings: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut differences = Vec::new();
    let replication = info.replication();
    if i32::try_from(replication) != Ok(plan.replication) {
        differences.push(format!("replication factor {replication}, not {}", plan.replication));
    }
    let min_insync = "min.insync.replicas";
    let asked = settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, wanted) in asked.chain([(min_insync, plan.config.get(min_insync))]) {
        if let Some(found) = config.get(key).filter(|found| *found != wanted) {
            differences.push(format!("{key}={found}, not {wanted}"));
        }
    }
    differences
}

impl Checked {
    /// Creates the topic if missing, and describes it.
    fn bring_about(self, cluster: &Cluster) -> Result<String, ClusterError> {
        let (Planned { plan, settings, .. }, left_out) = match self {
            Checked::Exists { name, partitions, notes } => {
                return Ok(with_notes(format!("{name}: exists, {partitions} partitions"), notes));
            }
            Checked::Missing { planned, left_out } => (planned, left_out),
        };
        let name = &plan.name;
        if !cluster.create(&plan)? {
            return Ok(format!("{name}: exists, just created by another client"));
        }
        let made = format!(
            "{name}: created, {} partitions, replication factor {}, {}",
            plan.partitions,
            plan.replication,
            plan.config.get("cleanup.policy")
        );
        let set = settings.iter().map(|(key, value)| format!("{key}={value}"));
        let without = left_out.iter().map(|key| format!("without {key}, which the brokers do not know"));
        Ok(with_notes(made, set.chain(without).collect()))
    }
}

fn with_notes(line: String, notes: Vec<String>) -> String {
    notes.into_iter().fold(line, |line, note| line + "; " + &note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use genwatch_kafka::admin::PartitionInfo;

    fn conflict(wanted: i32, found: &[(&str, usize)]) -> Option<String> {
        let partition = PartitionInfo { leader: 1, replicas: vec![1], in_sync: vec![1] };
        let info = |name: &str, count| TopicInfo {
            name: name.to_owned(),
            partitions: vec![partition.clone(); count],
        };
        let found = found.iter().map(|(name, count)| ((*name).to_owned(), info(name, *count))).collect();
        partition_conflict("r", wanted, &found)
    }

    #[test]
    fn the_advice_leads_to_topics_that_agree() {
        assert_eq!(conflict(2, &[]), None);
        assert_eq!(conflict(2, &[("r", 2), ("r_dlq", 2)]), None);
        let advice = |wanted, found: &[(&str, usize)]| {
            let text = conflict(wanted, found).expect("a conflict");
            text.rsplit_once(": ").expect("advice").1.to_owned()
        };
        assert_eq!(advice(2, &[("g_state", 3)]), "pass --partitions 3");
        assert_eq!(advice(2, &[("r", 2), ("g_state", 3)]), "delete g_state, with what they hold");
        assert_eq!(
            advice(3, &[("r", 2), ("r_dlq", 2), ("g_state", 3)]),
            "delete g_state, with what they hold and pass --partitions 2"
        );
        assert_eq!(advice(4, &[("r_dlq", 2), ("g_state", 3)]), "delete r_dlq, g_state, with what they hold");
    }
}
