//! A link on which the end of a transaction gets stuck: its connection breaks, the client repeats the request on
//! another one and gets its answer, and the stuck request arrives when the next transaction has written its records and
//! not its offsets.
//!
//! A relay that reads the protocol, see `cut`.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::{io::Write as _, thread};

use super::cut::{frame, lock};

const PRODUCE: i16 = 0;
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;
/// How long the offsets of a transaction wait for its records to be written.
const WRITTEN: Duration = Duration::from_millis(300);

/// The relay.
#[derive(Clone, Default)]
pub struct Late(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many are still to get stuck.
    to_come: usize,
    stuck: Option<Stuck>,
    /// How many came late and were answered.
    arrived: usize,
    /// Whether records were written since the last end of a transaction.
    written: bool,
}

/// Unanswered requests of one connection, by number.
#[derive(Default)]
struct Connection {
    produces: Mutex<Vec<[u8; 4]>>,
    stuck: Mutex<Option<[u8; 4]>>,
}

/// The request, and the way to the broker.
struct Stuck {
    frame: Vec<u8>,
    broker: Arc<Mutex<TcpStream>>,
}

impl Late {
    /// Forwards a port of this machine to another one, for as long as the test's process lives.
    pub fn start(here: u16, there: u16) -> Late {
        let late = Late::default();
        let relay = late.clone();
        super::relay::accept(here, there, move |client, broker| {
            let (Ok(from_broker), Ok(to_client)) = (broker.try_clone(), client.try_clone()) else { return };
            let (asked, answered) = (Arc::<Connection>::default(), relay.clone());
            let (connection, requests) = (Arc::clone(&asked), relay.clone());
            thread::spawn(move || answered.pass_answers(from_broker, to_client, &connection));
            thread::spawn(move || requests.pass_requests(client, broker, &asked));
        });
        late
    }

    /// Makes the next `count` ends of transactions get stuck, one after the other.
    pub fn expect(&self, count: usize) {
        lock(&self.0.state).to_come = count;
    }

    /// How many have come late.
    pub fn arrived(&self) -> usize {
        lock(&self.0.state).arrived
    }

    fn pass_requests(&self, mut client: TcpStream, broker: TcpStream, connection: &Connection) {
        let broker = Arc::new(Mutex::new(broker));
        while let Ok(frame) = frame(&mut client) {
            let number = [frame[8], frame[9], frame[10], frame[11]];
            match i16::from_be_bytes([frame[4], frame[5]]) {
                PRODUCE => lock(&connection.produces).push(number),
                END_TXN => {
                    let mut state = lock(&self.0.state);
                    state.written = false;
                    if state.to_come > 0 && state.stuck.is_none() {
                        state.to_come -= 1;
                        *lock(&connection.stuck) = Some(number);
                        state.stuck = Some(Stuck { frame, broker });
                        drop(state);
                        let _ = client.shutdown(Shutdown::Both);
                        return;
                    }
                }
                TXN_OFFSET_COMMIT => {
                    // The records may use the same connection.
                    let (relay, broker) = (self.clone(), Arc::clone(&broker));
                    thread::spawn(move || {
                        relay.let_arrive();
                        let _ = lock(&broker).write_all(&frame);
                    });
                    continue;
                }
                _ => {}
            }
            if lock(&broker).write_all(&frame).is_err() {
                break;
            }
        }
        let _ = lock(&broker).shutdown(Shutdown::Both);
    }

    /// The stuck request arrives, and is answered, before anything else goes on.
    fn let_arrive(&self) {
        let mut state = lock(&self.0.state);
        if state.stuck.is_none() {
            return;
        }
        let unwritten = |state: &mut State| !state.written;
        state = self
            .0
            .changed
            .wait_timeout_while(state, WRITTEN, unwritten)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let Some(stuck) = state.stuck.take() else { return };
        let before = state.arrived;
        lock(&stuck.broker).write_all(&stuck.frame).expect("the broker is there");
        let unanswered = |state: &mut State| state.arrived == before;
        drop(self.0.changed.wait_while(state, unanswered).unwrap_or_else(PoisonError::into_inner));
    }

    fn pass_answers(&self, mut broker: TcpStream, mut client: TcpStream, connection: &Connection) {
        while let Ok(frame) = frame(&mut broker) {
            let stuck = *lock(&connection.stuck);
            if stuck.is_some_and(|number| number == frame[4..8]) {
                lock(&self.0.state).arrived += 1;
                self.0.changed.notify_all();
                break;
            }
            let is_answer = |number: &[u8; 4]| number[..] == frame[4..8];
            let written = lock(&connection.produces).extract_if(.., |number| is_answer(number)).count();
            if written > 0 {
                lock(&self.0.state).written = true;
                self.0.changed.notify_all();
            }
            if client.write_all(&frame).is_err() && stuck.is_none() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}
