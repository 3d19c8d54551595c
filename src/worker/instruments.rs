//! A worker's metrics, readiness conditions and reports.

use super::metrics::WorkerMetrics;
use super::{Observed, WorkerError};
use crate::service::reporter::Reporting;
use crate::service::{Context, Health, NotReady};

/// Outlives a worker that is replaced.
#[derive(Clone, Debug)]
pub(super) struct Instruments<M> {
    pub(super) context: Context,
    pub(super) metrics: WorkerMetrics,
    /// The handler's.
    pub(super) own: M,
    pub(super) not_ready: Conditions,
    pub(super) reporting: Reporting,
}

/// Reasons not to be ready, the most telling first.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    /// The worker drains.
    pub(super) draining: NotReady,
    /// The group has given no assignment, or taken it all back.
    pub(super) not_joined: NotReady,
    /// A topic was deleted.
    pub(super) topic_missing: NotReady,
    /// Some partition can't be processed.
    pub(super) refused: NotReady,
    /// Some partition waits for its alarm states.
    pub(super) restoring: NotReady,
    /// The leader of some partition doesn't answer.
    pub(super) leader_away: NotReady,
    /// Commits don't succeed at the moment.
    pub(super) commits_wait: NotReady,
}

impl<M> Instruments<M> {
    pub(super) fn register<H: Observed<Metrics = M>>(
        handler: &H,
        context: Context,
        reporting: Reporting,
    ) -> Result<Instruments<M>, WorkerError> {
        let metrics = WorkerMetrics::register(&context.metrics)?;
        let own = handler.register(&context.metrics)?;
        let not_ready = Conditions::register(&context.health);
        Ok(Instruments { context, metrics, own, not_ready, reporting })
    }
}

impl Conditions {
    fn register(health: &Health) -> Conditions {
        Conditions {
            draining: health.register("draining", false),
            not_joined: health.register("not joined the group yet", true),
            topic_missing: health.register("a topic does not exist any more: see the log", false),
            refused: health.register("a partition can't be processed: see the log", false),
            restoring: health.register("restoring alarm states", false),
            leader_away: health.register("the leader of a partition doesn't answer: see the log", false),
            commits_wait: health.register("commits wait for the cluster", false),
        }
    }
}
