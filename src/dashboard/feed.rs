//! The events for all clients: each is serialized once, and kept for a while.
//!
//! The dashboard's loop writes; each client reads at its own pace, from where it was. A client that is so
//! slow that what it needs is gone gets a new snapshot: there is one queue, and it doesn't grow.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use tokio::sync::watch;

/// How many events are kept, and how many bytes of them.
const EVENTS: usize = 256;
const BYTES: usize = 4 << 20;

/// The last events.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    /// The number of the last event: clients wait for it to change.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

/// What a client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// These events, and the number of the last one.
    Events(Bytes, u64),
    /// A snapshot: what it needs is gone.
    Snapshot,
    /// Nothing.
    Nothing,
}

impl Default for Feed {
    fn default() -> Self {
        Feed { ring: Mutex::default(), last: watch::Sender::new(0) }
    }
}

impl Feed {
    /// Whether somebody listens.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        self.last.receiver_count() > 0
    }

    /// Returns the number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Adds an event for all clients.
    pub fn publish(&self, event: &str, json: &[u8]) {
        let number = self.last() + 1;
        let bytes = frame(number, event, json);
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.bytes += bytes.len();
            ring.events.push_back((number, bytes));
            while ring.events.len() > EVENTS || (ring.bytes > BYTES && ring.events.len() > 1) {
                let Some((_, oldest)) = ring.events.pop_front() else { break };
                ring.bytes -= oldest.len();
            }
        }
        self.last.send_replace(number);
    }

    /// Returns a receiver that wakes a client when there is something new.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Returns what a client needs that has all up to this number.
    #[must_use]
    pub fn after(&self, number: u64) -> Due {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some((oldest, _)), Some((last, _))) = (ring.events.front(), ring.events.back()) else {
            return Due::Nothing;
        };
        if number >= *last {
            return Due::Nothing;
        }
        if number + 1 < *oldest {
            return Due::Snapshot;
        }
        let due: Vec<&Bytes> =
            ring.events.iter().filter(|(of, _)| *of > number).map(|(_, bytes)| bytes).collect();
        match due.as_slice() {
            // Usually: shared, not copied.
            [one] => Due::Events((*one).clone(), *last),
            many => Due::Events(many.iter().flat_map(|bytes| bytes.iter().copied()).collect(), *last),
        }
    }
}

/// Encodes a server-sent event. JSON has no line feed in it.
#[must_use]
pub fn frame(number: u64, event: &str, json: &[u8]) -> Bytes {
    let mut bytes = format!("id: {number}\nevent: {event}\ndata: ").into_bytes();
    bytes.extend_from_slice(json);
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_has_missed() {
        let feed = Feed::default();
        assert_eq!(feed.after(0), Due::Nothing);
        feed.publish("a", b"{}");
        feed.publish("b", b"[]");
        let both = b"id: 1\nevent: a\ndata: {}\n\nid: 2\nevent: b\ndata: []\n\n";
        assert_eq!(feed.after(0), Due::Events(Bytes::from_static(both), 2));
        assert_eq!(feed.after(1), Due::Events(Bytes::from_static(&both[25..]), 2));
        assert_eq!(feed.after(2), Due::Nothing);
    }

    #[test]
    fn a_client_that_is_too_slow_gets_a_snapshot_and_nothing_grows() {
        let feed = Feed::default();
        for _ in 0..10 * EVENTS {
            feed.publish("state", &[b'1'; 100]);
        }
        assert_eq!(feed.after(1), Due::Snapshot);
        assert_eq!(feed.ring.lock().unwrap().events.len(), EVENTS);
        for _ in 0..20 {
            feed.publish("state", &vec![b'1'; BYTES / 4]);
        }
        assert!(feed.ring.lock().unwrap().bytes <= BYTES);
    }
}
