//! Relays between a worker and its broker; one is a slow link with a limited rate towards the broker.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Forwards a port of this machine to another one, for as long as the test's process lives: `serve` gets the client's
/// end and the broker's.
/// end and the broker's.
pub fn accept(here: u16, there: u16, serve: impl Fn(TcpStream, TcpStream) + Send + 'static) {
    let listener = TcpListener::bind(("127.0.0.1", here)).expect("the relay's port is free");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if let Ok(broker) = TcpStream::connect(("127.0.0.1", there)) {
                serve(client, broker);
            }
        }
    });
}

/// A slow link. Each connection has the whole rate; answers aren't delayed.
pub fn start(here: u16, there: u16, bytes_per_second: f64) {
    accept(here, there, move |client, broker| {
        let (Ok(from_broker), Ok(to_client)) = (broker.try_clone(), client.try_clone()) else { return };
        std::thread::spawn(move || pass(from_broker, to_client, f64::INFINITY));
        std::thread::spawn(move || pass(client, broker, bytes_per_second));
    });
}

fn pass(mut from: TcpStream, mut to: TcpStream, bytes_per_second: f64) {
    let mut buffer = vec![0; 16_384];
    let mut free_at = Instant::now();
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(free_at.saturating_duration_since(Instant::now()));
        free_at = free_at.max(Instant::now()) + Duration::from_secs_f64(size as f64 / bytes_per_second);
        if to.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
