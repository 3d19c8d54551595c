//! Replaces a client that can't be used any more, and the engine with it.

use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use genwatch_kafka::admin::ClusterError;
use genwatch_kafka::commit::CommitError;
use genwatch_kafka::error::Chain;

use super::work::Work;
use super::{Observed, Worker, WorkerError, WorkerSummary};

/// Delay before retrying a start that an outage prevented.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often the wait is logged.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Why the client is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is out of its group and won't rejoin: see `deaf.rs`.
    Deaf,
    /// It is in its group and will join no rebalance: see `deaf.rs`.
    Overtaken,
    /// It may have missed an assignment: see `deaf.rs`.
    Unheard,
    /// It knows another topic of the same name: see [`genwatch_core::engine::Engine::topic`].
    OtherTopic,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Deaf => "it has left the group and doesn't rejoin",
            Reason::Overtaken => {
                "the topic grew while it gave partitions back, so it would hold up its group"
            }
            Reason::Unheard => "it may have missed an assignment of its group",
            Reason::OtherTopic => {
                "the topic that it knows was deleted and recreated, or a mirror has taken its place"
            }
        })
    }
}

impl<H: Observed, W: Work<H>> Worker<H, W> {
    /// Starts another worker in place of this one. Waits out an outage, until a stop request. Saves nothing: the next
    /// owner processes what isn't committed.
    pub(super) fn replaced(
        self: Box<Self>,
        reason: Reason,
    ) -> Result<ControlFlow<WorkerSummary, Worker<H, W>>, WorkerError> {
        tracing::warn!(
            worker = self.config.name,
            %reason,
            "the client can't be used any more: another client takes its place"
        );
        for slot in self.engine.slots() {
            self.instruments.metrics.forget(slot.partition);
        }
        let (config, handler, work) = (self.config.clone(), self.handler.clone(), self.work.fresh());
        let instruments = self.instruments.clone();
        let (first_record, last_commit, summary) =
            (self.first_record, self.last_commit, self.summary.clone());
        // Its end may take long, or hang.
        let former = std::thread::Builder::new().name("former".to_owned()).spawn(move || {
            if let Err(error) = self.consumer.abandon() {
                tracing::debug!(%error, "the former client doesn't leave the group");
            }
            drop(self);
        });
        if let Err(error) = former {
            tracing::warn!(%error, "cannot start a thread to end the former client");
        }
        instruments.not_ready.not_joined.set(true);
        let mut told: Option<Instant> = None;
        loop {
            let error =
                match Worker::start(config.clone(), handler.clone(), work.fresh(), instruments.clone()) {
                    Ok(mut worker) => {
                        (worker.first_record, worker.last_commit, worker.summary) =
                            (first_record, last_commit, summary);
                        return Ok(ControlFlow::Continue(worker));
                    }
                    Err(error) => error,
                };
            if !mends_itself(&error) {
                return Err(error);
            }
            if instruments.context.is_stopping() {
                return Ok(ControlFlow::Break(summary));
            }
            if told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
                told = Some(Instant::now());
                tracing::warn!(worker = config.name, error = %Chain(&error), "the new client waits for the cluster");
            }
            instruments.context.health.heartbeat();
            std::thread::sleep(TRY_AGAIN);
        }
    }
}

/// Whether a running worker would wait out this error, too.
fn mends_itself(error: &WorkerError) -> bool {
    matches!(
        error,
        WorkerError::Cluster(ClusterError::Unreachable { .. } | ClusterError::MissingTopic { .. })
            | WorkerError::Commit(CommitError::Producer(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_running_worker_would_wait_for_its_successor_waits_for_too() {
        let topic = || "t".to_owned();
        assert!(mends_itself(&ClusterError::MissingTopic { topic: topic() }.into()));
        assert!(mends_itself(&CommitError::Producer("no coordinator".to_owned()).into()));
        assert!(!mends_itself(&ClusterError::Unauthorized { topic: topic() }.into()));
        assert!(!mends_itself(&CommitError::InDoubt("no answer".to_owned()).into()));
        let group = "g".to_owned();
        assert!(!mends_itself(&WorkerError::GroupUnauthorized { group }));
    }
}
