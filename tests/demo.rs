//! `genwatch demo`, as a newcomer runs it: nothing but the binary.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::Command;

fn demo(arguments: &[&str]) -> (String, Option<i32>) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_genwatch")).arg("demo").args(arguments).output().expect("runs");
    let text = String::from_utf8(output.stdout).expect("text") + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.code())
}

#[test]
fn the_demo_adds_and_removes_a_replica_and_keeps_every_promise() {
    let (text, code) = demo(&["--duration", "12s"]);
    assert_eq!(code, Some(0), "{text}");
    for words in [
        "replica-4 is added",
        "replica-1 is removed",
        " RAISED ",
        "readings sent",
        "order kept",
        "alerts",
        "aggregates of 5s windows",
    ] {
        assert!(text.contains(words), "no '{words}' in:\n{text}");
    }
    assert_eq!(text.matches("[ok]").count(), 4, "{text}");
    let aggregates = text.lines().find(|line| line.contains("aggregates of")).unwrap();
    assert!(!aggregates.contains(" 0 aggregates"), "a window closes within 12 s: {text}");
    assert!(!text.contains('\u{1b}'), "piped, it is plain text:\n{text}");
}

#[test]
fn one_replica_is_a_demo_too() {
    let (text, code) = demo(&["--duration", "4s", "--replicas", "1", "--generators", "10", "--rate", "200"]);
    assert_eq!(code, Some(0), "{text}");
}
