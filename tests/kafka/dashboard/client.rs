//! A client of the dashboard: requests with headers, and the events as they come.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::process::Process;
use crate::world::{PATIENCE, until};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, in lower case.
    pub head: String,
    /// Its body, as text.
    pub body: String,
}

impl Answer {
    /// The JSON document in it.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))?;
        Some(line.trim())
    }
}

/// Sends a request to its end.
#[track_caller]
pub fn request(address: &str, request: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = if headers.iter().any(|header| header.starts_with("Host:")) {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// The document at a path.
#[track_caller]
pub fn document(address: &str, path: &str) -> Value {
    let answer = request(address, &format!("GET {path}"), &[], "");
    assert_eq!(answer.status, 200, "{path}: {answer:#?}");
    answer.json()
}

/// Waits until the dashboard is ready; returns its address.
pub fn ready(dashboard: &Process) -> String {
    let address = dashboard.http();
    until("the dashboard is ready", || request(&address, "GET /readyz", &[], "").status == 200);
    address
}

/// The events.
pub struct Events {
    stream: BufReader<TcpStream>,
    /// What has come and isn't taken yet.
    text: String,
}

impl Events {
    /// Begins to listen.
    pub fn listen(address: &str) -> Events {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        Events { stream, text: String::new() }
    }

    /// Waits for the next event: its name and its data.
    #[track_caller]
    pub fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let found = field("event: ").zip(field("data: ")).map(|(event, data)| {
                    (event.to_owned(), serde_json::from_str(data).expect("one line of JSON"))
                });
                self.text = rest.to_owned();
                match found {
                    Some(event) => return event,
                    None => continue,
                }
            }
            self.read_chunk();
        }
    }

    /// One piece of the body: its length in hexadecimal digits, then itself.
    #[track_caller]
    fn read_chunk(&mut self) {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).unwrap();
        self.text.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }

    /// Waits for an event for which this holds.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, holds: impl Fn(&str, &Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let (event, data) = self.next();
            if holds(&event, &data) {
                return data;
            }
        }
        panic!("waited {} s in vain for {what}", PATIENCE.as_secs())
    }
}

/// How long something takes.
pub fn time<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = what();
    (began.elapsed(), result)
}
