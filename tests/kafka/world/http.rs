//! HTTP/1.1 by hand: one GET, as a probe or a scraper sends it; a request, as a stand-in reads it.

use std::io::{BufRead, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Status and body of `GET path`.
pub fn get(address: &str, path: &str) -> (u16, String) {
    try_get(address, path).unwrap_or_else(|error| panic!("GET {path} from {address}: {error}"))
}

/// As [`get`], for a server that may have ended.
pub fn try_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let bad = || std::io::Error::other(format!("no HTTP answer: {answer}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    Ok((status, body.to_owned()))
}

/// The samples of a metrics page whose series begins with `name`: the series and its value.
pub fn samples(page: &str, name: &str) -> Vec<(String, f64)> {
    let lines = page.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// A request that a stand-in has read.
pub struct HttpRequest {
    /// Its first line.
    pub line: String,
    headers: Vec<String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// Reads the next request of a connection; `None` at its end. Its body must have a length.
    pub fn read(reader: &mut impl BufRead) -> std::io::Result<Option<HttpRequest>> {
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            if line.trim_end().is_empty() {
                break;
            }
            headers.push(line.trim_end().to_owned());
        }
        let mut request = HttpRequest { line: headers.remove(0), headers, body: Vec::new() };
        let length = request.header("content-length").expect("a length").parse().expect("a number");
        request.body = vec![0; length];
        reader.read_exact(&mut request.body)?;
        Ok(Some(request))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
}
