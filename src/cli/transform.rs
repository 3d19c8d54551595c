//! `--transform`: shared by the commands that move records.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use genwatch_core::transform::Transform;
use genwatch_core::transform::record::Command;
use genwatch_kafka::topics::Topics;

use super::Failure;
use crate::service::targets::refuse_own;

/// The option.
#[derive(Debug, Args)]
pub(super) struct TransformOptions {
    /// A TOML file with the steps that change records on the way: rename, drop, keep, insert, cast, mask, flatten,
    /// convert, route, filter, timestamp, tag. A record that a step fails on goes to <TOPIC>_dlq, of
    /// a source to <TO_TOPIC>_dlq. See docs/transformations.md.
    #[arg(long, value_name = "FILE", env = "GENWATCH_TRANSFORM")]
    transform: Option<PathBuf>,
}

impl TransformOptions {
    /// Reads and checks the file, if there is one.
    pub(super) fn load(&self, command: Command) -> Result<Option<Arc<Transform>>, Failure> {
        let load = |path| Transform::load(path, command).map(Arc::new).map_err(Failure::usage);
        self.transform.as_deref().map(load).transpose()
    }

    /// The same for a command whose routes lead to topics: none that the file names may be one of the group's own.
    pub(super) fn load_routes(
        &self,
        command: Command,
        topics: &Topics,
    ) -> Result<Option<Arc<Transform>>, Failure> {
        let transform = self.load(command)?;
        for (topic, step) in transform.iter().flat_map(|transform| transform.fixed_targets()) {
            refuse_own(&step.to_string(), topic, &topics.own()).map_err(Failure::usage)?;
        }
        Ok(transform)
    }
}
