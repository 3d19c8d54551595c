//! A stand-in for InfluxDB's v2 write API with the answers, and their timing, that a test chooses. Otherwise it
//! behaves as InfluxDB: it keeps points by their identity and fields by their types, and writes the good part of a
//! batch that it refuses.

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use flate2::read::GzDecoder;

use super::http::HttpRequest;

/// The token that it accepts.
pub const TOKEN: &str = "s3cr3t-t0k3n==";

/// A server on its own port. Stops, and breaks its connections, when dropped.
pub struct Influx {
    /// `--url`
    pub url: String,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A write request.
#[derive(Clone, Debug)]
pub struct Write {
    /// The query string.
    pub query: String,
    /// Its lines.
    pub lines: Vec<String>,
    /// When it arrived.
    pub at: Instant,
}

/// An answer that replaces taking the lines.
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u32>,
    pub message: String,
}

type Rule = dyn Fn(&Write) -> Option<Answer> + Send + Sync;

#[derive(Default)]
struct Shared {
    rule: Mutex<Option<Arc<Rule>>>,
    writes: Mutex<Vec<Write>>,
    /// Measurement, tags and time; and the fields.
    points: Mutex<BTreeMap<(String, i64), String>>,
    /// For each field of a measurement whether it is a number, a string or a boolean.
    types: Mutex<BTreeMap<(String, String), char>>,
    streams: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Influx {
    /// On a free port.
    pub fn start() -> Influx {
        Influx::at("127.0.0.1:0".parse().unwrap())
    }

    /// On this port, which must be free.
    pub fn at(address: SocketAddr) -> Influx {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                accepting.streams.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&accepting);
                // An error is a client that has gone.
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Influx { url: format!("http://{address}"), address, shared }
    }

    /// From now on this decides; `None` takes the lines.
    pub fn answer(&self, rule: impl Fn(&Write) -> Option<Answer> + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Some(Arc::new(rule));
    }

    /// From now on every write is taken.
    pub fn recover(&self) {
        *self.shared.rule.lock().unwrap() = None;
    }

    /// All requests with lines so far.
    pub fn writes(&self) -> Vec<Write> {
        self.shared.writes.lock().unwrap().clone()
    }

    /// The points that it has.
    pub fn points(&self) -> BTreeMap<(String, i64), String> {
        self.shared.points.lock().unwrap().clone()
    }
}

impl Drop for Influx {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then closes the port.
        drop(TcpStream::connect(self.address));
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let Some(request) = HttpRequest::read(&mut reader)? else { return Ok(()) };
            let header = |name: &str| request.header(name);
            assert_eq!(header("content-encoding").as_deref(), Some("gzip"));
            let mut text = String::new();
            GzDecoder::new(&request.body[..]).read_to_string(&mut text)?;
            let query = request.line.strip_prefix("POST /api/v2/write?").expect("a write");
            let query = query.split(' ').next().unwrap().to_owned();
            let lines = text.lines().map(str::to_owned).collect();
            let write = Write { query, lines, at: Instant::now() };
            let answer = if header("authorization") == Some(format!("Token {TOKEN}")) {
                self.judge(&write)
            } else {
                // As some proxies do, it returns the request's body.
                Some(Answer { status: 401, retry_after: None, message: "unauthorized access".to_owned() })
            };
            let (status, retry_after, message) = match answer {
                None => (204, None, String::new()),
                Some(answer) => (answer.status, answer.retry_after, answer.message),
            };
            let body = match message.as_str() {
                "" => String::new(),
                message => {
                    let sent = header("authorization").unwrap_or_default();
                    serde_json::json!({"code": "some", "message": message, "sent": sent}).to_string()
                }
            };
            let retry_after = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n"));
            write!(
                stream,
                "HTTP/1.1 {status} Some\r\nContent-Length: {}\r\n{}\r\n{body}",
                body.len(),
                retry_after.unwrap_or_default(),
            )?;
        }
    }

    fn judge(&self, write: &Write) -> Option<Answer> {
        if write.lines.is_empty() {
            let rule = self.rule.lock().unwrap().clone();
            let answer = rule.and_then(|rule| rule(write)).filter(|answer| answer.status != 204);
            // As InfluxDB, it requires points.
            return answer.or(Some(Answer {
                status: 400,
                retry_after: None,
                message: "no points".to_owned(),
            }));
        }
        self.writes.lock().unwrap().push(write.clone());
        let rule = self.rule.lock().unwrap().clone();
        if let Some(answer) = rule.and_then(|rule| rule(write)) {
            return Some(answer);
        }
        let mut points = self.points.lock().unwrap();
        let mut dropped = 0;
        for line in &write.lines {
            // The tests' points contain no spaces.
            let parts: Vec<&str> = line.split(' ').collect();
            let [series, fields, time] = parts[..] else { panic!("not a point: {line}") };
            if self.has_other_types(series, fields) {
                dropped += 1;
                continue;
            }
            points.insert((series.to_owned(), time.parse().expect("a time")), fields.to_owned());
        }
        let message = format!("partial write: field type conflict dropped={dropped}");
        (dropped > 0).then_some(Answer { status: 422, retry_after: None, message })
    }

    fn has_other_types(&self, series: &str, fields: &str) -> bool {
        let measurement = series.split(',').next().expect("a measurement");
        let mut types = self.types.lock().unwrap();
        let mut conflicts = |field: &str| {
            let (name, value) = field.split_once('=').expect("a value");
            let kind = match value.as_bytes()[0] {
                b'"' => 's',
                b't' | b'f' => 'b',
                _ => 'f',
            };
            *types.entry((measurement.to_owned(), name.to_owned())).or_insert(kind) != kind
        };
        fields.split(',').any(&mut conflicts)
    }
}
