//! Reads the past of the readings for the time machine, window by window, the newest first, in a share of a
//! core.

use std::collections::{BTreeSet, VecDeque};
use std::thread::Thread;
use std::time::{Duration, Instant};

use genwatch_core::types::{Millis, PartitionId};
use genwatch_kafka::config::Connection;
use genwatch_kafka::consumer::{Event, Record};
use genwatch_kafka::error::ClientError;
use genwatch_kafka::follower::{Fetching, Follower};

use super::observer::Window;

/// The share of a core that it takes.
const SHARE: f64 = 0.2;
/// Events of one turn.
const BURST: usize = 2000;
/// Time that isn't used is not saved up for longer.
const SAVED: Duration = Duration::from_millis(100);

/// What is left to read.
#[derive(Default)]
pub struct Past {
    windows: VecDeque<Window>,
    current: Option<Current>,
    /// Time that it may take.
    left: Duration,
    turned: Option<Instant>,
}

/// The window that is read.
struct Current {
    window: Window,
    follower: Follower,
    /// The partitions that aren't read to the window's end.
    open: BTreeSet<PartitionId>,
}

impl Past {
    /// Sets what is to be read.
    pub fn begin(&mut self, windows: Vec<Window>) {
        *self = Past { windows: windows.into(), ..Past::default() };
    }

    /// Forgets what is left: it is of a log that is gone.
    pub fn forget(&mut self) {
        *self = Past::default();
    }

    /// Whether there is something to read.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.current.is_some() || !self.windows.is_empty()
    }

    /// Reads on, unless it has taken its share. Returns the begin of a window that is done.
    ///
    /// # Errors
    /// When a client can't be created.
    pub fn turn(
        &mut self,
        connection: &Connection,
        topic: &str,
        waker: &Thread,
        mut each: impl FnMut(&Record<'_>),
    ) -> Result<Option<Millis>, ClientError> {
        let began = Instant::now();
        let since = self.turned.replace(began).map_or(Duration::ZERO, |turned| began - turned);
        self.left = (self.left + since.mul_f64(SHARE)).min(SAVED);
        if self.left.is_zero() || !self.goes_on() {
            return Ok(None);
        }
        let current = match self.current.take() {
            Some(current) => current,
            None => {
                let Some(window) = self.windows.pop_front() else { return Ok(None) };
                let unread = window.parts.iter().filter(|(_, (begin, end))| begin < end);
                let starts: Vec<_> = unread.map(|(id, (begin, _))| (*id, *begin)).collect();
                if starts.is_empty() {
                    return Ok(Some(window.from));
                }
                let open = starts.iter().map(|(id, _)| *id).collect();
                let follower =
                    Follower::start(connection, topic, &starts, Fetching::Together, waker.clone())?;
                Current { window, follower, open }
            }
        };
        let Current { window, mut follower, mut open } = current;
        let mut done = Vec::new();
        for event in follower.poll(BURST).events() {
            let (partition, reached) = match event {
                Event::Record(record) => {
                    let end = window.parts.get(&record.partition).map(|(_, end)| *end);
                    if open.contains(&record.partition) && end.is_some_and(|end| record.offset < end) {
                        each(&record);
                    }
                    (record.partition, record.offset.next())
                }
                Event::End(partition, end) => (partition, end),
                Event::Error(place, error) => {
                    tracing::debug!(%error, ?place, "reading the past");
                    continue;
                }
            };
            let is_over = window.parts.get(&partition).is_none_or(|(_, end)| reached >= *end);
            if is_over && open.remove(&partition) {
                done.push(partition);
            }
        }
        if !done.is_empty() && !open.is_empty() {
            follower.leave(&done)?;
        }
        self.left = self.left.saturating_sub(began.elapsed());
        if open.is_empty() {
            return Ok(Some(window.from));
        }
        self.current = Some(Current { window, follower, open });
        Ok(None)
    }
}
