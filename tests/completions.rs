//! Completions, man pages and the version, as packagers and shells use them.

#![allow(clippy::expect_used, missing_docs)]

use std::process::{Command, Output};

fn genwatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_genwatch")).args(arguments).output().expect("the binary runs")
}

fn printed(arguments: &[&str]) -> String {
    let output = genwatch(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

const COMMANDS: [&str; 7] = ["worker", "topics", "simulate", "alerts", "status", "bridge", "sink"];

#[test]
fn every_shell_is_told_the_commands_and_their_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} doesn't know {command}");
        }
        for option in ["group-protocol", "min-insync"] {
            assert!(script.contains(option), "{shell} doesn't know --{option}");
        }
    }
    assert_eq!(genwatch(&["completions", "dos"]).status.code(), Some(2));
}

#[test]
fn bash_completes_a_command_and_an_option() {
    let script = printed(&["completions", "bash"]);
    let completes = |words: &str| {
        let count = words.split(' ').count();
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={}; _genwatch genwatch \"${{COMP_WORDS[COMP_CWORD]}}\" x; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            count - 1
        );
        let output = Command::new("bash").args(["-c", &ask]).output().expect("bash runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(completes("genwatch wor"), "worker\n");
    assert_eq!(completes("genwatch worker --deliv"), "--delivery\n");
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("share/man/man1");
    printed(&["man", pages.to_str().expect("UTF-8")]);
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).expect(name);
    for command in COMMANDS {
        assert!(page(&format!("genwatch-{command}.1")).starts_with(".ie"), "{command}");
    }
    for words in ["GENWATCH_MIN_INSYNC", "\\-\\-config"] {
        assert!(page("genwatch-topics-create.1").contains(words), "{words}");
    }
    assert!(page("genwatch.1").contains("Exit codes"));

    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").expect("written");
    let refused = genwatch(&["man", blocked.to_str().expect("UTF-8")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("man pages"));
}

#[test]
fn the_version_names_librdkafkas() {
    let version = printed(&["--version"]);
    let (ours, theirs) = version.trim().split_once(" (librdkafka ").expect("librdkafka's version");
    assert_eq!(ours, concat!("genwatch ", env!("CARGO_PKG_VERSION")));
    assert!(theirs.ends_with(')') && theirs.starts_with("2."), "{version}");
}
