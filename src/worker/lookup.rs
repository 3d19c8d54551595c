//! A lookup of your own for each record: asynchronous, with a time limit and retries.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use genwatch_core::handler::Handler;
use genwatch_core::pool::Ticket;
use genwatch_core::types::GeneratorId;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::work::{Work, Worked};

/// How lookups are made.
#[derive(Clone, Copy, Debug)]
pub struct LookupConfig {
    /// How many generators are looked up at once; each of them one record after another.
    pub concurrency: usize,
    /// The time limit of one try.
    pub timeout: Duration,
    /// How often a failed try is repeated.
    pub retries: u32,
    /// The wait before the first repetition; twice as long before each next one.
    pub backoff: Duration,
}

/// Why a try failed, for the log.
pub type LookupError = Box<dyn std::error::Error + Send + Sync>;

type Answering<A> = Pin<Box<dyn Future<Output = Result<A, LookupError>> + Send>>;
/// One lookup, from its first try to its answer.
type Job = Pin<Box<dyn Future<Output = ()> + Send>>;
type Channel<T> = (Sender<T>, Receiver<T>);
type Ask<T, A> = dyn Fn(GeneratorId, T) -> Answering<A> + Send + Sync;

/// Looks something up for each record before it is handled, on a thread of its own. Blocking lookups belong into
/// [`tokio::task::spawn_blocking`].
///
/// A record whose lookup fails for good is handled with the default answer, and counted
/// (`genwatch_work_timeouts_total`). After a crash a record that wasn't committed is looked up again: the answer may be
/// another one, and what was said before wasn't visible.
pub struct Lookups<H: Handler> {
    config: LookupConfig,
    ask: Arc<Ask<H::Task, H::Answer>>,
    /// To the thread that makes the lookups; it ends when all of these are gone.
    jobs: mpsc::UnboundedSender<Job>,
    done: Channel<Worked<H::Answer>>,
}

impl<H: Handler> fmt::Debug for Lookups<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<H: Handler<Task: Send + Sync + 'static, Answer: Send + 'static>> Lookups<H> {
    /// Lookups by this function, which gets the generator and what its record asks for.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn new<F, A>(config: LookupConfig, ask: F) -> std::io::Result<Lookups<H>>
    where
        F: Fn(GeneratorId, H::Task) -> A + Send + Sync + 'static,
        A: Future<Output = Result<H::Answer, LookupError>> + Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (jobs, mut incoming) = mpsc::unbounded_channel::<Job>();
        std::thread::Builder::new().name("lookups".to_owned()).spawn(move || {
            runtime.block_on(async {
                while let Some(job) = incoming.recv().await {
                    tokio::spawn(job);
                }
            });
        })?;
        Ok(Lookups {
            config,
            ask: Arc::new(move |generator, task| Box::pin(ask(generator, task)) as Answering<H::Answer>),
            jobs,
            done: crossbeam_channel::unbounded(),
        })
    }
}

impl<H> Work<H> for Lookups<H>
where
    H: Handler<Task: Send + Sync + 'static, Answer: Send + 'static> + 'static,
{
    fn concurrency(&self) -> Option<usize> {
        Some(self.config.concurrency)
    }

    fn fresh(&self) -> Lookups<H> {
        Lookups {
            config: self.config,
            ask: Arc::clone(&self.ask),
            jobs: self.jobs.clone(),
            done: crossbeam_channel::unbounded(),
        }
    }

    fn begin(&mut self, ticket: Ticket, generator: &GeneratorId, task: H::Task, now: Instant) {
        let (config, ask, generator) = (self.config, Arc::clone(&self.ask), generator.clone());
        let (done, waker) = (self.done.0.clone(), std::thread::current());
        let job = async move {
            let found = answer(config, &*ask, &generator, &task).await;
            let cut_short = found.is_none().then_some(generator);
            let answer = found.unwrap_or_default();
            let worked = Worked { ticket, took: now.elapsed(), answer, cut_short };
            tell(&done, worked, &waker);
        };
        // The thread lives as long as this sender.
        let _ = self.jobs.send(Box::pin(job));
    }

    fn finished(&mut self, _: Instant) -> Option<Worked<H::Answer>> {
        self.done.1.try_recv().ok()
    }

    fn next(&self) -> Option<Instant> {
        None
    }
}

/// Tries until there is an answer, or no try is left.
async fn answer<T: Clone, A>(
    config: LookupConfig,
    ask: &Ask<T, A>,
    generator: &GeneratorId,
    task: &T,
) -> Option<A> {
    let mut wait = config.backoff;
    for tries_left in (0..=config.retries).rev() {
        match tokio::time::timeout(config.timeout, ask(generator.clone(), task.clone())).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%generator, %error, tries_left, "a lookup failed"),
            Err(_) => tracing::debug!(%generator, tries_left, "a lookup took too long"),
        }
        if tries_left > 0 {
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2);
        }
    }
    None
}

/// A worker that is gone needs no answer.
fn tell<A>(done: &Sender<Worked<A>>, worked: Worked<A>, waker: &Thread) {
    if done.send(worked).is_ok() {
        waker.unpark();
    }
}
