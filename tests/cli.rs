//! The command line without a Kafka: help, mistakes, an unreachable broker, a reader that goes away.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use genwatch::health::{Health, Obstacle};

/// Runs the binary to its end, as the user of an empty environment.
fn genwatch(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_genwatch"));
    command.args(arguments).stdin(Stdio::null());
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GENWATCH_") || key == "RUST_LOG") {
        command.env_remove(key);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Fails unless the command ended with this code, printed no result, and said these words.
#[track_caller]
fn assert_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = genwatch(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?} said: {said}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    for words in words {
        assert!(said.contains(words), "{arguments:?} doesn't say '{words}': {said}");
    }
    for noise in ["panicked", "backtrace"] {
        assert!(!said.contains(noise), "{said}");
    }
}

/// A port of this machine on which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Those that speak to Kafka, and the demo.
const COMMANDS: [&[&str]; 8] = [
    &["demo"],
    &["topics", "create"],
    &["topics", "describe"],
    &["simulate"],
    &["worker"],
    &["alerts"],
    &["status"],
    &["bridge"],
];

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS.into_iter().chain([&["health"][..], &["sink", "influx"]]) {
        let output = genwatch(&[command, &["--help"]].concat());
        let help = text(&output.stdout);
        assert!(output.status.success(), "{command:?}");
        assert!(help.contains(&format!("Usage: genwatch {}", command.join(" "))), "{help}");
        assert!(help.lines().next().is_some_and(|line| line.len() > 20), "it says what it does: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 110), "{help}");
    }
    let help = text(&genwatch(&["--help"]).stdout);
    for command in
        ["demo", "topics", "simulate", "worker", "alerts", "status", "bridge", "sink", "health", "bench"]
    {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command} in: {help}");
    }
    assert!(help.contains("Exit codes"), "{help}");
    assert!(text(&genwatch(&["--version"]).stdout).starts_with("genwatch "));
}

#[test]
fn help_names_the_options_of_the_contract() {
    let options: [(&[&str], &str); 7] = [
        (&["topics", "create"], "--partitions --replication-factor --min-insync"),
        (&["simulate"], "--generators --rate --count --duration --seed --to --faults"),
        (
            &["worker"],
            "--rules --concurrency --delivery --commit-interval --group-protocol --work --rate-limit --http --exit-at-end",
        ),
        (&["alerts"], "--from --exit-at-end --json"),
        (&["status"], "--json --watch"),
        (&["bridge"], "--mqtt --mqtt-topic --client-id"),
        (&["sink", "influx"], "--url --org --bucket --token --precision --measurement"),
    ];
    for (command, options) in options {
        let help = text(&genwatch(&[command, &["--help"]].concat()).stdout);
        for option in options.split(' ').chain(["--brokers", "--topic", "--group", "-X"]) {
            assert!(help.contains(option), "{option} in the help of {command:?}");
            let variable = option.trim_start_matches('-').replace('-', "_").to_uppercase();
            assert!(help.contains(&format!("GENWATCH_{variable}")), "{variable} in the help of {command:?}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_bad_usage() {
    for arguments in [
        &["no-such-command"][..],
        &[],
        &["topics"],
        &["worker", "--no-such-option"],
        &["worker", "--concurrency", "0"],
        &["worker", "--concurrency", "many"],
        &["worker", "--delivery", "at-most-once"],
        &["worker", "--group-protocol", "none"],
        &["worker", "--work", "2 parsecs"],
        &["worker", "--http", "nowhere"],
        &["worker", "--rate-limit", "0"],
        &["worker", "--topic", "no/topic"],
        &["worker", "--group", ""],
        &["worker", "--on-out-of-range", "latest"],
        &["worker", "stray"],
        &["simulate", "--generators", "0"],
        &["simulate", "--to", "pigeon"],
        &["simulate", "--duration", "-1s"],
        &["worker", "--work", "1000years"],
        &["topics", "create", "--partitions", "0"],
        &["alerts", "--from", "yesterday"],
        &["status", "--brokers"],
        &["bench", "drain", "--peer", "nameless"],
        &["bench", "scale", "--replicas", "3,1"],
        &["bench", "partitions", "--partitions", "0"],
        &["bridge", "--mqtt", "http://localhost"],
        &["bridge", "--mqtt", "mqtt://me:hunter2@localhost"],
        &["bridge", "--mqtt-topic", "a/#/b"],
        &["bridge", "--mqtt-topic", "$share/bridges/a/+"],
        &["bridge", "--client-id", ""],
        &["bridge", "--mqtt-password-file", "/no/such/file"],
        &["bridge", "--mqtt-user", "me", "--mqtt-password-file", "/no/such/file"],
        &["bridge", "--mqtt", "mqtts://localhost", "--mqtt-ca-file", "/no/such/file"],
        &["bridge", "--mqtt-ca-file", "/no/such/file"],
        &["simulate", "--to", "mqtt", "--faults"],
        &["simulate", "--to", "mqtt", "--generators", "20001"],
        &["simulate", "--to", "mqtt", "--mqtt-topic", "generators/+/telemetry"],
        &["sink"],
        &["sink", "influx"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--url", "localhost:8086"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--url", "http://me:hunter2@localhost:8086"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--token", "hunter2", "--token-file", "/dev/null"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--token-file", "/no/such/file"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--token-file", "/dev/null"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--ca-file", "/no/such/file"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--precision", "days"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--measurement", "#m"],
        &["sink", "influx", "--org", "o", "--bucket", "b", "--batch", "0"],
        &["health", "--http-address", "8080"],
        &["health", "--brokers", "localhost:9092"],
    ] {
        assert_refused(arguments, 2, &[]);
    }
}

#[test]
fn an_environment_variable_is_an_option_and_checked_as_one() {
    let output = command(&["worker"]).env("GENWATCH_CONCURRENCY", "none").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--concurrency"), "{}", text(&output.stderr));
}

#[test]
fn an_unknown_property_is_bad_usage_and_its_value_is_not_shown() {
    for command in [&["worker"][..], &["simulate"], &["alerts"], &["status"], &["topics", "create"]] {
        let arguments = [command, &["-X", "sasl.pasword=hunter2"]].concat();
        assert_refused(&arguments, 2, &["sasl.pasword"]);
        for arguments in [arguments, [command, &["-X", "hunter2"]].concat()] {
            assert!(!text(&genwatch(&arguments).stderr).contains("hunter2"), "{arguments:?}");
        }
    }
    assert_refused(&["worker", "-X", "acks=hunter2"], 2, &["acks"]);
    assert!(!text(&genwatch(&["worker", "-X", "acks=hunter2"]).stderr).contains("hunter2"));
    assert_refused(&["worker", "-X", "@/no/such/file"], 2, &["/no/such/file"]);
}

#[test]
fn a_wrong_rules_file_is_named_with_its_line() {
    let file = |rules: &str| {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(rules.as_bytes()).unwrap();
        file
    };
    let rule = "[[rule]]\nname = \"low\"\nfield = \"fuel\"\nraise_below = 200.0\n";
    for (rules, line, words) in [
        ("[[rule]\n".to_owned(), 1, ""),
        ("[[rule]]\nname = \"low\"\nfield = \"oil\"\nraise_below = 1\n".to_owned(), 3, "oil"),
        (format!("{rule}clear_above = 100.0\n"), 5, "inverted"),
        (format!("{rule}clear_below = 100.0\n"), 5, "never clear"),
        (format!("{rule}colour = \"red\"\n"), 5, "colour"),
        (format!("{rule}on_delay = \"a while\"\n"), 5, "a while"),
        (format!("{rule}\n{rule}"), 7, "low"),
    ] {
        let file = file(&rules);
        let path = file.path().to_str().unwrap();
        // No broker is asked before the rules are known to be good.
        assert_refused(
            &["worker", "--rules", path, "--brokers", &nobody()],
            2,
            &[&format!("{path}:{line}:"), words],
        );
    }
    assert_refused(&["worker", "--rules", "/no/such/rules.toml"], 2, &["/no/such/rules.toml"]);
}

#[test]
fn a_missing_broker_is_told_in_one_line_within_15_s() {
    let brokers = nobody();
    let sink: &[&str] = &["sink", "influx", "--org", "o", "--bucket", "b"];
    let children: Vec<_> = COMMANDS[1..]
        .iter()
        .copied()
        .chain([sink])
        .map(|arguments| {
            let child = command(&[arguments, &["--brokers", &brokers][..]].concat())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            (arguments, child, Instant::now())
        })
        .collect();
    for (arguments, child, started) in children {
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert!(started.elapsed() < Duration::from_secs(15), "{arguments:?} took {:?}", started.elapsed());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(said.starts_with("genwatch: no broker answers at") && said.contains(&brokers), "{said}");
        assert!(said.contains("--brokers"), "it says what to do: {said}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn health_asks_a_worker_whether_it_lives() {
    let metrics = Arc::new(genwatch::metrics::Metrics::new().unwrap());
    let health = Arc::new(Health::new(Obstacle::NotJoined));
    health.turned();
    // Draining is alive, and not ready: a container must not be restarted while it drains.
    health.set(Obstacle::Draining, true);
    let address = genwatch::web::serve("127.0.0.1:0".parse().unwrap(), move || metrics.render(), health)
        .unwrap()
        .to_string();
    let by_option = genwatch(&["health", "--http-address", &address]);
    let by_variable = command(&["health"]).env("GENWATCH_HTTP_ADDRESS", &address).output().unwrap();
    for output in [by_option, by_variable] {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("ok\n", ""));
    }
}

#[test]
fn health_fails_soon_when_there_is_no_live_worker() {
    assert_refused(&["health", "--http-address", &nobody()], 1, &["no answer from", "--http"]);
    for (answer, words) in [
        (Some("HTTP/1.1 503 Service Unavailable\r\n\r\nthe poll loop has not moved for 16 s\n"), "not moved"),
        (Some("220 mail.example ESMTP\r\n"), "not HTTP"),
        // Accepts and says nothing: a worker whose HTTP hangs.
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
        assert_refused(&["health", "--http-address", &address], 1, &[words]);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        server.join().unwrap();
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for arguments in [&["--help"][..], &["worker", "--help"]] {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(8, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(text(&output.stderr), "");
    }
}
