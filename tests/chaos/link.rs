//! The network between the brokers and the workers of a remote site: relays in front of the brokers, which can fail.
//!
//! The brokers advertise the relays to clients that connect through them (`scripts/kafka --relay`), so that a worker
//! that knows only relays never bypasses them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Everything passes.
    Up = 0,
    /// Nothing passes, and nobody gets an error, as when a cable is cut.
    Silent = 1,
    /// Connections are reset, new ones too, as by a firewall.
    Refusing = 2,
    /// Each connection carries few bytes a second in each direction.
    Slow = 3,
    /// The brokers' answers come late.
    Late = 4,
}

/// How soon a change of state takes effect.
const TURN: Duration = Duration::from_millis(50);
/// What a slow connection carries in a second.
const SLOW: f64 = 24_000.0;
/// How late a late answer is.
const LATE: Duration = Duration::from_millis(700);

/// All relays, one per broker.
pub struct Link {
    relays: Vec<Relay>,
    /// `--brokers` for clients that connect through it.
    pub brokers: String,
}

/// The relay in front of one broker.
#[derive(Clone)]
struct Relay {
    state: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

/// The direction of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToBroker,
    ToClient,
}

impl Link {
    /// Starts relays: each listens on the first port and connects to the second.
    pub fn start(ports: &[(u16, u16)]) -> Link {
        let addresses: Vec<String> = ports.iter().map(|(here, _)| format!("127.0.0.1:{here}")).collect();
        let start = |(address, (_, there)): (&String, &(u16, u16))| Relay::start(address, *there);
        let relays = addresses.iter().zip(ports).map(start).collect();
        Link { relays, brokers: addresses.join(",") }
    }

    /// Sets the state of all relays.
    pub fn set(&self, state: State) {
        self.relays.iter().for_each(|relay| relay.set(state));
    }

    /// Sets the state of the relay in front of a broker, by its number from 1 on.
    pub fn set_one(&self, node: i32, state: State) {
        let index = usize::try_from(node - 1).expect("a node");
        self.relays[index].set(state);
    }
}

impl Relay {
    fn start(here: &str, there: u16) -> Relay {
        let relay = Relay { state: Arc::new(AtomicU8::new(State::Up as u8)), open: Arc::default() };
        let listener = TcpListener::bind(here).expect("the relay's port is free");
        let accepting = relay.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let relay = accepting.clone();
                std::thread::spawn(move || relay.serve(client, there));
            }
        });
        relay
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        if state == State::Refusing {
            for connection in open.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
    }

    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::SeqCst) == state as u8
    }

    fn serve(&self, client: TcpStream, there: u16) {
        while self.is(State::Silent) {
            std::thread::sleep(TURN);
        }
        if self.is(State::Refusing) {
            return;
        }
        // A broker that is down refuses connections; then the relay does, too.
        let Ok(broker) = TcpStream::connect(("127.0.0.1", there)) else { return };
        {
            let mut open = self.open.lock().unwrap();
            open.retain(|connection| connection.peer_addr().is_ok());
            open.extend([client.try_clone(), broker.try_clone()].into_iter().flatten());
        }
        let (Ok(from_client), Ok(to_client)) = (client.try_clone(), broker.try_clone()) else { return };
        let back = self.clone();
        std::thread::spawn(move || back.pass(to_client, client, Way::ToClient));
        self.pass(from_client, broker, Way::ToBroker);
    }

    /// Passes bytes on in one direction, until either end closes.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let mut buffer = vec![0; 65_536];
        let _ = from.set_nodelay(true);
        let _ = to.set_nodelay(true);
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            while self.is(State::Silent) {
                std::thread::sleep(TURN);
            }
            if self.is(State::Slow) {
                std::thread::sleep(Duration::from_secs_f64(size as f64 / SLOW));
            }
            if self.is(State::Late) && way == Way::ToClient {
                std::thread::sleep(LATE);
            }
            if to.write_all(&buffer[..size]).is_err() {
                break;
            }
        }
        // While the cable is cut, neither end learns that the other has closed.
        while self.is(State::Silent) {
            std::thread::sleep(TURN);
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
