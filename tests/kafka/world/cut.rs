//! A link that breaks for some requests: for a record that the broker has written, and whose answer is lost on the way;
//! or for everything that only the leader of a partition can answer.
//!
//! A relay that reads the protocol: size, then for a request its kind, version and number; an answer begins with the
//! number.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const ADD_OFFSETS_TO_TXN: i16 = 25;
const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
const GROUP_AUTHORIZATION_FAILED: i16 = 30;

/// The relay.
#[derive(Clone, Default)]
pub struct Cut(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether requests that only leaders answer are lost.
    leader_away: AtomicBool,
    /// Whether the next heartbeat answer that carries an assignment is lost (KIP-848).
    lose_assignment: AtomicBool,
    /// How many heartbeats of KIP-848 were answered.
    heartbeats: AtomicUsize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Whole,
    /// The next records for this topic are written, and the producer gets no answer.
    Armed(String),
    /// New connections are closed; counts how many.
    Broken(usize),
}

impl Cut {
    /// Forwards a port of this machine to another one, for as long as the test's process lives.
    pub fn start(here: u16, there: u16) -> Cut {
        let cut = Cut::default();
        let relay = cut.clone();
        super::relay::accept(here, there, move |client, broker| {
            if let State::Broken(turned_away) = &mut *relay.state() {
                *turned_away += 1;
                relay.0.changed.notify_all();
                return;
            }
            relay.pass_both_ways(client, broker);
        });
        cut
    }

    /// The next records for this topic are written and their answer is lost. Their connection closes then, and new ones
    /// are refused until the link is whole again. Once a client has noticed that, a request to add a group's offsets to
    /// a transaction is refused, and mends the link by it.
    pub fn break_when_written(&self, topic: &str) {
        *self.state() = State::Armed(topic.to_owned());
    }

    /// Waits until that has happened and a client has tried to connect, so has noticed it.
    pub fn until_noticed(&self) {
        let unnoticed = |state: &mut State| !matches!(state, State::Broken(1..));
        drop(self.0.changed.wait_while(self.state(), unnoticed).unwrap_or_else(PoisonError::into_inner));
    }

    /// Restores the link.
    pub fn mend(&self) {
        *self.state() = State::Whole;
    }

    /// Sets whether fetches, and queries for the ends of partitions, get no answer, as if their leader couldn't be
    /// reached; all other requests do.
    pub fn hide_leaders(&self, hidden: bool) {
        self.0.leader_away.store(hidden, Ordering::Relaxed);
    }

    /// Loses the next answer to a heartbeat of KIP-848 that carries an assignment; its connection stays.
    pub fn lose_assignment(&self) {
        self.0.lose_assignment.store(true, Ordering::Relaxed);
    }

    /// Whether that has happened.
    pub fn has_lost_assignment(&self) -> bool {
        !self.0.lose_assignment.load(Ordering::Relaxed)
    }

    /// How many heartbeats of KIP-848 were answered.
    pub fn heartbeats(&self) -> usize {
        self.0.heartbeats.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Whether the answer to these records is to be lost.
    fn is_about(&self, frame: &[u8]) -> bool {
        let state = self.state();
        let State::Armed(topic) = &*state else { return false };
        frame.windows(topic.len()).any(|window| window == topic.as_bytes())
    }

    fn pass_both_ways(&self, client: TcpStream, broker: TcpStream) {
        let (Ok(from_broker), Ok(to_client)) = (broker.try_clone(), client.try_clone()) else { return };
        let connection = Arc::new(Connection {
            to_client: Mutex::new(to_client),
            lost: Mutex::new(None),
            heartbeats: Mutex::default(),
        });
        let (relay, answered) = (self.clone(), Arc::clone(&connection));
        thread::spawn(move || relay.pass_answers(from_broker, &answered));
        let relay = self.clone();
        thread::spawn(move || relay.pass_requests(client, broker, &connection));
    }

    fn pass_requests(&self, mut client: TcpStream, mut broker: TcpStream, connection: &Arc<Connection>) {
        while let Ok(frame) = frame(&mut client) {
            let kind = i16::from_be_bytes([frame[4], frame[5]]);
            let number = [frame[8], frame[9], frame[10], frame[11]];
            if kind == CONSUMER_GROUP_HEARTBEAT {
                lock(&connection.heartbeats).push(number);
            }
            if kind == PRODUCE && self.is_about(&frame) {
                *lock(&connection.lost) = Some(number);
            }
            if matches!(kind, FETCH | LIST_OFFSETS) && self.0.leader_away.load(Ordering::Relaxed) {
                continue;
            }
            if kind == ADD_OFFSETS_TO_TXN && *self.state() != State::Whole {
                self.refuse_when_noticed(number, Arc::clone(connection));
            } else if broker.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = broker.shutdown(Shutdown::Both);
    }

    /// The coordinator refuses at that moment, as when the group's generation is over; then all is well again.
    fn refuse_when_noticed(&self, number: [u8; 4], connection: Arc<Connection>) {
        let relay = self.clone();
        thread::spawn(move || {
            relay.until_noticed();
            relay.mend();
            let (size, time, code) = (10_i32.to_be_bytes(), [0; 4], GROUP_AUTHORIZATION_FAILED.to_be_bytes());
            connection.answer(&[&size[..], &number, &time, &code].concat());
        });
    }

    fn pass_answers(&self, mut broker: TcpStream, connection: &Connection) {
        while let Ok(frame) = frame(&mut broker) {
            if lock(&connection.lost).is_some_and(|number| number == frame[4..8]) {
                *self.state() = State::Broken(0);
                break;
            }
            if connection.answers_heartbeat(&frame) {
                // Without an assignment it ends with "null" and no tags.
                let bears_assignment = !frame.ends_with(&[0xff, 0]);
                if bears_assignment && self.0.lose_assignment.swap(false, Ordering::Relaxed) {
                    continue;
                }
                self.0.heartbeats.fetch_add(1, Ordering::Relaxed);
            }
            if !connection.answer(&frame) {
                break;
            }
        }
        let _ = lock(&connection.to_client).shutdown(Shutdown::Both);
    }
}

struct Connection {
    to_client: Mutex<TcpStream>,
    /// The request whose answer is to be lost.
    lost: Mutex<Option<[u8; 4]>>,
    /// Heartbeats of KIP-848 that weren't answered.
    heartbeats: Mutex<Vec<[u8; 4]>>,
}

impl Connection {
    fn answers_heartbeat(&self, frame: &[u8]) -> bool {
        let is_answer = |number: &[u8; 4]| number[..] == frame[4..8];
        lock(&self.heartbeats).extract_if(.., |number| is_answer(number)).count() > 0
    }

    fn answer(&self, frame: &[u8]) -> bool {
        lock(&self.to_client).write_all(frame).is_ok()
    }
}

/// Also if another thread has panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next frame, with its size.
pub fn frame(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame)?;
    let size = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + size.max(8), 0);
    from.read_exact(&mut frame[4..4 + size])?;
    Ok(frame)
}
