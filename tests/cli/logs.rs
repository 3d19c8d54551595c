//! Log lines that can't be written are dropped: exit codes and results stay as promised.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use crate::{command, nobody, text};

/// Starts a command with this file as its stderr.
fn start(mut command: Command, stderr: impl Into<Stdio>) -> Child {
    command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("the binary runs")
}

fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), text(&output.stdout))
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("Linux has it")
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_command_that_fails_fails_with_its_code_where_it_can_not_say_why() {
    let brokers = nobody();
    let cases = [
        (&["worker", "--brokers", &brokers][..], 1),
        (&["bridge", "--brokers", &brokers], 1),
        (&["health", "--http", &brokers], 1),
        (&["worker", "-X", "acks=0"], 2),
        (&["worker", "--concurrency", "0"], 2),
    ];
    let mut children = Vec::new();
    for (arguments, code) in cases {
        for format in ["text", "json"] {
            let command = || command(&[arguments, &["--log-format", format]].concat());
            children.push((arguments, code, start(command(), full())));
            children.push((arguments, code, start(command(), closed())));
        }
    }
    for (arguments, code, child) in children {
        assert_eq!(end(child), (Some(code), String::new()), "{arguments:?}");
    }
}

#[test]
fn a_demo_goes_on_without_its_log() {
    for stderr in [full().into(), closed()] {
        let mut demo = command(&["demo", "--duration", "2s", "--rate", "100"]);
        // At this level there are log lines all the time.
        demo.env("RUST_LOG", "debug");
        let (code, stdout) = end(start(demo, stderr));
        assert_eq!(code, Some(0), "{stdout}");
        assert!(stdout.contains("verified:"), "{stdout}");
    }
}

#[test]
fn help_that_can_not_be_written_is_no_crash() {
    let mut child = command(&["--help"]).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().code().is_some_and(|code| code < 3), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
