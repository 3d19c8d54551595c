//! What one worker can do on this machine: measured on topics of its own, which are deleted afterwards.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use genwatch_core::plan::seen::Seen;
use genwatch_kafka::config::Connection;
use genwatch_kafka::group::Group;

use super::contender::{Contender, ContenderJob};
use super::scratch_topics::ScratchTopics;
use super::{BenchError, Tell, go_on, lag};

/// Readings that wait for the worker, at first and at most: from a hundred a second to some millions.
const BACKLOGS: [u64; 3] = [20_000, 400_000, 5_000_000];
/// A backlog that is worked off in less says little.
const LEAST: Duration = Duration::from_secs(3);
/// How long the worker may take to begin.
const BEGINS: Duration = Duration::from_secs(60);

/// What to try.
#[derive(Clone, Debug)]
pub struct CalibrationConfig {
    /// The cluster.
    pub connection: Connection,
    /// The worker.
    pub worker: Contender,
    /// Work per reading.
    pub work: Duration,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Generators that report.
    pub generators: u32,
    /// The longest time to measure for.
    pub span: Duration,
}

/// Lets one worker work off a backlog, and returns what was seen of it.
///
/// # Errors
/// When the worker fails, the cluster fails, or when stopped.
pub fn run(config: &CalibrationConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Seen, BenchError> {
    let arena = ScratchTopics::new(&config.connection, config.partitions)?;
    let job = ContenderJob { work: config.work, count: None };
    let mut seen = Seen::default();
    for (done, backlog) in (0..).zip(BACKLOGS) {
        tell(
            &format!("one worker and {backlog} readings on topics of their own"),
            done,
            BACKLOGS.len() as u64,
        );
        arena.fill(1, config.generators, backlog, stop, |_| ())?;
        let name = arena.new_group();
        let group = Group::new(&config.connection, &arena.cluster, &name, &arena.topic)?;
        let lag = || -> Result<i64, BenchError> { Ok(lag(&group.progress()?)) };
        let whole = lag()?;
        let running = config.worker.start(&arena, &name, &job)?;
        while lag()? >= whole {
            go_on(stop)?;
            if running.has_ended() || running.begun().elapsed() > BEGINS {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut failed = None;
        seen = arena.measure(&name, config.span, |_| match (go_on(stop), lag()) {
            (Ok(()), Ok(lag)) => lag > 0 && !running.has_ended(),
            (Err(error), _) | (_, Err(error)) => {
                failed = Some(error);
                false
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        running.ask_to_end();
        running.wait(stop)?;
        if seen.seconds >= LEAST.min(config.span).as_secs_f64() {
            break;
        }
    }
    Ok(seen)
}
