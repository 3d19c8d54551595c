//! The command line without a Kafka: help, mistakes, an unreachable broker, a reader that goes away.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod health;
mod logs;
mod properties;
mod usage;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs the binary to its end, with an empty environment.
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

/// Fails unless the command ended with this code, printed no result, and its message contains these words.
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

/// A port of this machine without a listener.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Commands that connect to Kafka, and the demo.
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
        (format!("{rule}enabled = false\n"), 1, "disabled"),
    ] {
        let file = file(&rules);
        let path = file.path().to_str().unwrap();
        // The rules are checked before any broker is asked.
        assert_refused(
            &["worker", "--rules", path, "--brokers", &nobody()],
            2,
            &[&format!("{path}:{line}:"), words],
        );
    }
    assert_refused(&["worker", "--rules", "/no/such/rules.toml"], 2, &["/no/such/rules.toml"]);
}

#[test]
fn a_wrong_transformations_file_is_named_with_its_line_before_any_server_is_asked() {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(b"[[step]]\nkind = \"mask\"\nfields = \"a\"\nwith = \"*\"\nwhen = { filed = \"b\" }\n")
        .unwrap();
    let path = file.path().to_str().unwrap();
    let place = format!("{path}:5: unknown key `filed`; known here: above, absent");
    let sink = ["sink", "influx", "--org", "o", "--bucket", "b"];
    let query = "v.timeRangeStart v.timeRangeStop";
    let source = ["source", "influx", "--org", "o", "--query", query, "--to-topic", "t", "--token", "x"];
    for command in [&["bridge"][..], &sink, &source] {
        assert_refused(&[command, &["--transform", path, "--brokers", &nobody()]].concat(), 2, &[&place]);
        let by_environment = command_of(command).env("GENWATCH_TRANSFORM", path).output().unwrap();
        assert_eq!(by_environment.status.code(), Some(2), "{by_environment:?}");
        assert!(text(&by_environment.stderr).contains(&place), "{by_environment:?}");
    }
}

fn command_of(arguments: &[&str]) -> Command {
    command(&[arguments, &["--brokers", &nobody()]].concat())
}

#[test]
fn a_missing_broker_is_told_in_one_line_within_15_s() {
    let brokers = nobody();
    let sink: &[&str] = &["sink", "influx", "--org", "o", "--bucket", "b"];
    let query = "v.timeRangeStart v.timeRangeStop";
    let source: &[&str] = &["source", "influx", "--org", "o", "--query", query, "--to-topic", "t"];
    let children: Vec<_> = COMMANDS[1..]
        .iter()
        .copied()
        .chain([sink, source])
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
