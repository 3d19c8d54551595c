//! Whether a group's members have taken its topic. Asks the coordinator; waits for no program's log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use genwatch_core::types::PartitionId;
use genwatch_kafka::group::Group;

use super::contender::Running;
use super::{BenchError, go_on};

const LOOK: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns who owns which partition of the topic.
pub(super) fn owners(group: &Group<'_>) -> Result<BTreeMap<PartitionId, String>, BenchError> {
    Ok(group.owners()?.remove(group.topic()).unwrap_or_default())
}

/// Returns how many members own partitions of the topic, if every partition has an owner.
pub(super) fn sharing(group: &Group<'_>) -> Result<Option<usize>, BenchError> {
    let owners = owners(group)?;
    let distinct: BTreeSet<&String> = owners.values().collect();
    Ok((owners.len() == group.partition_count()?).then_some(distinct.len()))
}

/// Whether every partition of the topic has an owner, and at least `members` members own some.
pub(super) fn is_taken(group: &Group<'_>, members: usize) -> Result<bool, BenchError> {
    Ok(sharing(group)?.is_some_and(|sharing| sharing >= members))
}

/// Waits until the program has taken all partitions; returns when.
///
/// # Errors
/// When it ends before, doesn't within a minute, or when stopped.
pub(super) fn wait_until_taken(
    group: &Group<'_>,
    running: &Running,
    stop: &AtomicBool,
) -> Result<Instant, BenchError> {
    let deadline = Instant::now() + TIMEOUT;
    while !is_taken(group, 1)? {
        go_on(stop)?;
        if running.has_ended() || Instant::now() > deadline {
            return Err(running.failed("did not take all partitions of its topic".to_owned()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(Instant::now())
}
