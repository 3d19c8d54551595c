//! `genwatch topics`: creates and shows the topics, and plans how many partitions and workers they need.

mod create;
mod describe;
mod plan;
mod plan_table;
mod settings;

use clap::{Args, Subcommand};
use genwatch_kafka::topics::{Role, Topics};

use super::Failure;

/// Create or show the topics, or plan partitions and workers.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(create::Options),
    Describe(describe::Options),
    Plan(plan::Options),
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    match &options.action {
        Action::Create(options) => create::run(options),
        Action::Describe(options) => describe::run(options),
        Action::Plan(options) => plan::run(options),
    }
}

/// Returns all topics of these names, unless one name would stand for two of them.
fn all(topics: &Topics) -> Result<[(Role, &str); 7], Failure> {
    if let Some(name) = topics.clash() {
        return Err(Failure::usage(anyhow::anyhow!(
            "{name} would be both the topic of readings and a topic of its group: give another --topic or --group"
        )));
    }
    Ok(Role::ALL.map(|role| (role, topics.name(role))))
}

/// Compares the record size limits: a dead letter must fit wherever its record did.
fn check_sizes(readings: Option<&str>, dead_letters: Option<&str>) -> Option<String> {
    let (readings, dead_letters) = (readings?.parse::<u64>().ok()?, dead_letters?.parse::<u64>().ok()?);
    (dead_letters < readings).then(|| {
        format!(
            "max.message.bytes={dead_letters}, less than the {readings} of the readings topic: \
             a large dead letter would end the worker"
        )
    })
}
