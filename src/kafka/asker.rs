//! Asks the cluster something on a thread of its own, one question at a time, so that the worker goes on polling.

use std::thread::{JoinHandle, Thread};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::error::KafkaError;

/// The thread that asks, and the way to it.
#[derive(Debug)]
pub struct Asker<Q, A> {
    questions: Option<Sender<Q>>,
    answers: Receiver<A>,
    /// A question is under way: the next one would only queue behind it.
    asking: bool,
    thread: Option<JoinHandle<()>>,
}

impl<Q: Send + 'static, A: Send + 'static> Asker<Q, A> {
    /// Starts the thread, which answers each question by `ask`. `waker` is unparked when an answer is there.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn start(
        name: &str,
        waker: Thread,
        mut ask: impl FnMut(Q) -> A + Send + 'static,
    ) -> Result<Asker<Q, A>, KafkaError> {
        let (questions, incoming) = crossbeam_channel::unbounded::<Q>();
        let (outgoing, answers) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for question in incoming {
                if outgoing.send(ask(question)).is_err() {
                    return;
                }
                waker.unpark();
            }
        });
        let thread = thread.map_err(|error| KafkaError::ClientCreation(format!("no thread: {error}")))?;
        Ok(Asker { questions: Some(questions), answers, asking: false, thread: Some(thread) })
    }
}

impl<Q, A> Asker<Q, A> {
    /// Asks, unless the last question is still open.
    pub fn ask(&mut self, question: Q) {
        if let Some(questions) = self.questions.as_ref().filter(|_| !self.asking) {
            // The receiver lives as long as the thread, which ends only after `questions` is dropped.
            self.asking = questions.send(question).is_ok();
        }
    }

    /// The answer, if there is one.
    #[must_use]
    pub fn answer(&mut self) -> Option<A> {
        let answer = self.answers.try_recv().ok()?;
        self.asking = false;
        Some(answer)
    }
}

impl<Q, A> Drop for Asker<Q, A> {
    fn drop(&mut self) {
        self.questions = None;
        // Detached: a question under way may wait for a broker, and nobody needs the answer any more.
        drop(self.thread.take());
    }
}
