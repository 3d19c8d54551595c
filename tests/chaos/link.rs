//! The network between the brokers and the workers of a remote site: relays in front of the brokers, which can fail.
//!
//! The brokers advertise the relays to whoever comes through them (`scripts/kafka --relay`), so that a worker that knows
//! only relays never gets around them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// All passes.
    Up = 0,
    /// Nothing passes, and nobody is told, as when a cable is cut.
    Silent = 1,
    /// Connections are reset, and new ones too, as by a firewall.
    Refusing = 2,
}

/// How soon a change of state is seen.
const TURN: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct Link {
    state: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// `--brokers` of who comes through it.
    pub brokers: String,
}

impl Link {
    /// Starts relays: each listens on the first port and connects to the second.
    pub fn start(relays: &[(u16, u16)]) -> Link {
        let addresses: Vec<String> = relays.iter().map(|(here, _)| format!("127.0.0.1:{here}")).collect();
        let link = Link {
            state: Arc::new(AtomicU8::new(State::Up as u8)),
            open: Arc::default(),
            brokers: addresses.join(","),
        };
        for (address, (_, there)) in addresses.iter().zip(relays) {
            let listener = TcpListener::bind(address).expect("the relay's port is free");
            let (link, there) = (link.clone(), *there);
            std::thread::spawn(move || {
                for client in listener.incoming().map_while(Result::ok) {
                    let link = link.clone();
                    std::thread::spawn(move || link.relay(client, there));
                }
            });
        }
        link
    }

    pub fn set(&self, state: State) {
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

    fn relay(&self, client: TcpStream, there: u16) {
        while self.is(State::Silent) {
            std::thread::sleep(TURN);
        }
        if self.is(State::Refusing) {
            return;
        }
        // A broker that is down refuses; so do we, then.
        let Ok(broker) = TcpStream::connect(("127.0.0.1", there)) else { return };
        {
            let mut open = self.open.lock().unwrap();
            open.retain(|connection| connection.peer_addr().is_ok());
            open.extend([client.try_clone(), broker.try_clone()].into_iter().flatten());
        }
        let (Ok(from_client), Ok(to_client)) = (client.try_clone(), broker.try_clone()) else { return };
        let back = self.clone();
        std::thread::spawn(move || back.pass(to_client, client));
        self.pass(from_client, broker);
    }

    /// Passes bytes on, one way, until either end closes.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 65_536];
        let _ = from.set_nodelay(true);
        let _ = to.set_nodelay(true);
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            while self.is(State::Silent) {
                std::thread::sleep(TURN);
            }
            if to.write_all(&buffer[..size]).is_err() {
                break;
            }
        }
        // While the cable is cut nobody learns of the other's end.
        while self.is(State::Silent) {
            std::thread::sleep(TURN);
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
