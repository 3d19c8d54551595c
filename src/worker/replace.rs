//! Another client in the place of one that won't do what it should, and another engine with it.

use super::{Worker, WorkerError};

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It won't join its group again: see `deaf.rs`.
    Deaf,
    /// It knows another topic of the same name: see [`crate::engine::Engine::topic`].
    OtherTopic,
}

impl Reason {
    fn in_words(self) -> &'static str {
        match self {
            Reason::Deaf => "it has left the group and doesn't join again",
            Reason::OtherTopic => {
                "the topic that it knows was deleted and made anew, or a mirror has taken its place"
            }
        }
    }
}

impl Worker {
    /// Another worker in the place of this one. Nothing is to be saved: what isn't committed is the next owner's.
    pub(super) fn replaced(self: Box<Self>, reason: Reason) -> Result<Worker, WorkerError> {
        tracing::warn!(
            worker = self.config.name,
            reason = reason.in_words(),
            "the client can't be used any more: another client takes its place"
        );
        for slot in self.engine.slots() {
            self.observers.metrics.forget(slot.partition);
        }
        let (config, observers) = (self.config.clone(), self.observers.clone());
        let (first_record, last_commit, summary) =
            (self.first_record, self.last_commit, self.summary.clone());
        // Its end may take its time, or not come.
        let former = std::thread::Builder::new().name("former".to_owned()).spawn(move || {
            if let Err(error) = self.consumer.abandon() {
                tracing::debug!(%error, "the former client doesn't leave the group");
            }
            drop(self);
        });
        if let Err(error) = former {
            tracing::warn!(%error, "no thread to end the former client");
        }
        let mut worker = Worker::start(config, observers)?;
        (worker.first_record, worker.last_commit, worker.summary) = (first_record, last_commit, summary);
        Ok(worker)
    }
}
