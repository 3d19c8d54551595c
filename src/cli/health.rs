//! `genwatch health`: asks whether a worker is alive, where there is no curl.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Failure;
use crate::service::http::HttpAddress;

/// Per step: connecting, asking, each part of the answer. A worker on the same machine answers within milliseconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// More than any answer of a worker.
const LONGEST_ANSWER: u64 = 16 * 1024;

/// Ask a worker whether it is alive: exit code 0 if it is, else 1.
///
/// Asks for /livez, so that a container image needs no HTTP client for its health check.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Address of the worker, bridge or sink: the same as its --http.
    #[arg(
        long,
        alias = "http-address",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8080",
        env = "GENWATCH_HTTP"
    )]
    http: HttpAddress,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let address = &options.http;
    let answer = ask(address).with_context(|| {
        format!("no answer from http://{address}/livez; is there a worker with --http on this port?")
    })?;
    judge(&answer).with_context(|| format!("http://{address}/livez"))?;
    writeln!(std::io::stdout(), "ok")?;
    Ok(())
}

/// HTTP/1.0, so that the server closes after its answer.
fn ask(address: &HttpAddress) -> std::io::Result<String> {
    let mut connected = Err(std::io::Error::other("the name has no address"));
    for address in address.to_ask()? {
        connected = TcpStream::connect_timeout(&address, STEP_TIMEOUT);
        if connected.is_ok() {
            break;
        }
    }
    let mut stream = connected?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    stream.write_all(format!("GET /livez HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Alive if the status is 200; else the error is the worker's own answer.
fn judge(answer: &str) -> anyhow::Result<()> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    match (words.next(), words.next()) {
        (Some(version), Some("200")) if version.starts_with("HTTP/1.") => Ok(()),
        (Some(version), Some(status)) if version.starts_with("HTTP/") => bail!("{status}: {}", body.trim()),
        _ => bail!("the answer is not HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn only_status_200_is_alive() {
        assert!(judge("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nok\n").is_ok());
        assert!(judge("HTTP/1.1 200\r\n\r\n").is_ok());
        let stuck = judge("HTTP/1.1 503 Service Unavailable\r\n\r\nthe poll loop has not moved for 16 s\n");
        assert_eq!(stuck.unwrap_err().to_string(), "503: the poll loop has not moved for 16 s");
        for answer in ["", "200", "\r\n\r\n200", "SSH-2.0-OpenSSH_9.2 200\r\n", "HTTP/1.1"] {
            assert_eq!(judge(answer).unwrap_err().to_string(), "the answer is not HTTP", "{answer:?}");
        }
    }
}
