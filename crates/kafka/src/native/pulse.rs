//! Keeps a group member prompt: without it a rebalance takes seconds, most of which librdkafka sleeps or waits.
//!
//! librdkafka 2.12.1 serves its membership on its main thread, which sleeps for up to a second unless something comes
//! (`rd_kafka_thread_main`): so heartbeats, by which a member hears of a rebalance, are up to a second late. And it joins
//! at most once a second (`rkcg_join_intvl`): whoever has just joined, and is to join again because another member gave up
//! partitions, lets the whole group wait. Any answer to a question about metadata ends that wait
//! (`rd_kafka_parse_Metadata`).
//!
//! So a thread wakes the main thread at each heartbeat, by asking for the membership, which only reads it. For a while
//! after each rebalance it asks a broker for the topic's metadata instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::handle::Handle;
use super::known_topic::KnownTopic;
use crate::config::PULSE;
use crate::error::ClientError;

/// How long after a rebalance another may follow from it: a little more than librdkafka waits between two joins.
const RESTLESS: Duration = Duration::from_millis(1500);
/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// The thread. Ends when dropped.
#[derive(Debug)]
pub(super) struct Pulse {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Starts the thread.
    pub(super) fn start(handle: Arc<Handle>) -> Result<Pulse, ClientError> {
        let over = Arc::<AtomicBool>::default();
        let ends = Arc::clone(&over);
        let beat = move || {
            // Of our topic alone: librdkafka would take a list of all topics for news of the subscription.
            let topic = KnownTopic::of(&handle);
            while !ends.load(Ordering::Acquire) {
                let stirred = *handle.inbox.stirred.lock().unwrap_or_else(PoisonError::into_inner);
                match &topic {
                    Some(topic) if stirred.is_some_and(|at| at.elapsed() < RESTLESS) => topic.refresh(ANSWER),
                    // Any question does.
                    _ => drop(handle.member()),
                }
                std::thread::park_timeout(PULSE);
            }
        };
        let thread = std::thread::Builder::new().name("pulse".to_owned()).spawn(beat);
        let thread = thread.map_err(|error| ClientError::of_ours(format!("no thread: {error}")))?;
        Ok(Pulse { over, thread: Some(thread) })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Within `ANSWER`. The panic hook has reported any panic.
            let _ = thread.join();
        }
    }
}
