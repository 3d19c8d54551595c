//! Questions of HTTP to the loop that owns the model, and the answers: by message, as the model has one
//! owner.

use std::thread::Thread;
use std::time::Duration;

use axum::body::Bytes;
use crossbeam_channel::{Receiver, Sender};
use genwatch_core::types::Millis;
use tokio::sync::oneshot;

/// The loop answers within a turn; if it doesn't, it hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that wait, at most.
const WAITING: usize = 256;

/// What HTTP may ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// `/api/partitions`
    Partitions,
    /// `/api/lineage`
    Lineage,
    /// `/api/fleet`
    Fleet {
        /// As it was then.
        at: Option<Millis>,
    },
    /// `/api/generators/{id}`
    Generator {
        /// Its id.
        id: String,
        /// The series from this time.
        from: Option<Millis>,
        /// To this time.
        to: Option<Millis>,
    },
    /// `/api/alerts`
    Alerts {
        /// How many recent ones.
        limit: usize,
    },
    /// `/api/time`
    Time,
    /// `/api/plan`
    Plan {
        /// Readings a second to plan for; what arrives if there is none.
        target_rate: Option<f64>,
    },
    /// The first event of a client, and the number of the last event that it covers.
    Snapshot,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// A JSON document, or an event.
    pub body: Bytes,
    /// The number of the last event that it covers.
    pub number: u64,
}

/// A question that waits.
pub struct Asked {
    /// The question.
    pub question: Question,
    answer: oneshot::Sender<Result<Answer, Unanswered>>,
}

impl Asked {
    /// Answers.
    pub fn answer(self, answer: Result<Answer, Unanswered>) {
        // The client may be gone.
        let _ = self.answer.send(answer);
    }
}

/// Asks the loop.
#[derive(Clone, Debug)]
pub struct Asker {
    questions: Sender<Asked>,
    waker: Thread,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no such thing.
    Unknown,
    /// There is nothing to say yet, for this reason.
    NotYet(String),
    /// The loop is busy, or has ended.
    Busy,
}

impl Asker {
    /// Creates the questions' two ends; `waker` is the loop's thread.
    #[must_use]
    pub fn new(waker: Thread) -> (Asker, Receiver<Asked>) {
        let (questions, asked) = crossbeam_channel::bounded(WAITING);
        (Asker { questions, waker }, asked)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When there is no such thing, nothing to say, or no answer.
    pub async fn ask(&self, question: Question) -> Result<Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Asked { question, answer }).map_err(|_| Unanswered::Busy)?;
        self.waker.unpark();
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(Unanswered::Busy),
        }
    }
}
