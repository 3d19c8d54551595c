//! `genwatch health`: a probe for machines without curl.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use genwatch::service::{self, Context};

use crate::{assert_refused, command, genwatch, nobody, text};

#[test]
fn health_asks_a_worker_whether_it_lives() {
    let context = Context::default();
    context.health.heartbeat();
    // A draining worker is alive, and not ready: its container must not be restarted.
    let _draining = context.health.register("draining", true);
    let address = service::http::serve(&"127.0.0.1:0".parse().unwrap(), &context).unwrap().to_string();
    let port = address.rsplit_once(':').unwrap().1;
    let by_option = genwatch(&["health", "--http", &address]);
    let by_name = genwatch(&["health", "--http", &format!("localhost:{port}")]);
    // A worker's listening address, in the environment that it shares with its health check.
    let everywhere = command(&["health"]).env("GENWATCH_HTTP", format!("0.0.0.0:{port}")).output().unwrap();
    let by_port = command(&["health"]).env("GENWATCH_HTTP", format!(":{port}")).output().unwrap();
    for output in [by_option, by_name, everywhere, by_port] {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("ok\n", ""));
    }
}

#[test]
fn health_fails_soon_when_there_is_no_live_worker() {
    assert_refused(&["health", "--http", &nobody()], 1, &["no answer from", "--http"]);
    for (answer, words) in [
        (Some("HTTP/1.1 503 Service Unavailable\r\n\r\nthe poll loop has not moved for 16 s\n"), "not moved"),
        (Some("220 mail.example ESMTP\r\n"), "not HTTP"),
        // Accepts and says nothing: a worker whose HTTP server hangs.
        (None, "no answer from"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = BufReader::new(stream.try_clone().unwrap()).lines();
            assert_eq!(question.next().unwrap().unwrap(), "GET /livez HTTP/1.0");
            while question.next().unwrap().is_ok_and(|line| !line.is_empty()) {}
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                None => drop(question.next()),
            }
        });
        let started = Instant::now();
        assert_refused(&["health", "--http", &address], 1, &[words]);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        server.join().unwrap();
    }
}
