//! Help, and usage errors: the message names the wrong option.

use std::collections::{BTreeMap, BTreeSet};

use crate::{COMMANDS, assert_refused, command, genwatch, nobody, text};

/// What a command must offer: its words, and its options in addition to those of every command that connects to Kafka.
const OFFERED: [(&str, &str); 16] = [
    ("demo", "--replicas --generators --rate --duration --http"),
    ("topics create", "--partitions --replication-factor --min-insync"),
    ("topics describe", "--json"),
    ("topics grow", "--partitions"),
    ("topics plan", "--target-rate --for --json"),
    ("simulate", "--generators --rate --count --duration --seed --to --faults"),
    (
        "worker",
        "--rules --concurrency --delivery --commit-interval --group-protocol --work --rate-limit --http --exit-at-end --forget-silent-after",
    ),
    ("alerts", "--from --follow --exit-at-end --json"),
    ("status", "--json --watch --rules"),
    ("bench verify", ""),
    ("bridge", "--mqtt --mqtt-topic --client-id --transform"),
    ("sink influx", "--url --org --bucket --token --precision --measurement --transform"),
    (
        "source influx",
        "--url --org --database --query --query-file --every --rescan --align --from --to-topic --name --token --key-column --transform",
    ),
    ("downsample", "--window --grace --late --from --to-topic"),
    ("dashboard", "--http --http-token"),
    ("health", "--http"),
];
const OF_THE_CLUSTER: &str = "--brokers --topic --group -X";
/// These don't connect to Kafka.
const WITHOUT_KAFKA: [&str; 2] = ["demo", "health"];

/// Planned: a whole command, or an option of one. Remove it from this list when it is added.
const NOT_YET: [&str; 1] = ["topics grow"];

/// The options that a command's help lists, each with its environment variable; `None` if there's no such command.
fn options(of: &str) -> Option<BTreeMap<String, Option<String>>> {
    let words: Vec<&str> = of.split(' ').collect();
    let output = genwatch(&[&words[..], &["--help"]].concat());
    let help = text(&output.stdout);
    if !help.contains(&format!("Usage: genwatch {of}")) {
        return None;
    }
    let mut options = BTreeMap::new();
    let mut names: Vec<String> = Vec::new();
    for line in help.lines().map(str::trim) {
        if line.starts_with('-') && line.split([' ', ',']).next().is_some_and(|word| word.len() > 1) {
            // Such as `-b, --brokers <BROKERS>`.
            let said = line.split("  ").next().unwrap_or(line).split([' ', ',']);
            names = said.filter(|word| word.starts_with('-')).map(str::to_owned).collect();
            options.extend(names.iter().map(|name| (name.clone(), None)));
        }
        if let Some((_, rest)) = line.split_once("[env: ") {
            let variable = rest.split(['=', ']']).next().map(str::to_owned);
            options.extend(names.iter().map(|name| (name.clone(), variable.clone())));
        }
    }
    Some(options)
}

#[test]
fn to_follow_alerts_and_to_stop_at_their_end_exclude_each_other() {
    assert_refused(&["alerts", "--follow", "--exit-at-end"], 2, &["--follow", "--exit-at-end"]);
}

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS.into_iter().chain([
        &["health"][..],
        &["sink", "influx"],
        &["source", "influx"],
        &["dashboard"],
    ]) {
        let output = genwatch(&[command, &["--help"]].concat());
        let help = text(&output.stdout);
        assert!(output.status.success(), "{command:?}");
        assert!(help.contains(&format!("Usage: genwatch {}", command.join(" "))), "{help}");
        assert!(help.lines().next().is_some_and(|line| line.len() > 20), "it says what it does: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 110), "{help}");
    }
    let help = text(&genwatch(&["--help"]).stdout);
    for command in [
        "demo",
        "topics",
        "simulate",
        "worker",
        "alerts",
        "status",
        "bridge",
        "sink",
        "source",
        "dashboard",
        "health",
        "bench",
    ] {
        assert!(
            help.lines().any(|line| line.split_whitespace().next() == Some(command)),
            "{command} in: {help}"
        );
    }
    assert!(help.contains("Exit codes"), "{help}");
    assert!(text(&genwatch(&["--version"]).stdout).starts_with("genwatch "));
}

#[test]
fn every_command_offers_its_options_each_with_its_variable() {
    let mut missing = BTreeSet::new();
    for (command, own) in OFFERED {
        let Some(found) = options(command) else {
            missing.insert(command.to_owned());
            continue;
        };
        let of_the_cluster = if WITHOUT_KAFKA.contains(&command) { "" } else { OF_THE_CLUSTER };
        for option in own.split(' ').chain(of_the_cluster.split(' ')).filter(|option| !option.is_empty()) {
            let Some(variable) = found.get(option) else {
                missing.insert(format!("{command} {option}"));
                continue;
            };
            let name = option.trim_start_matches('-').replace('-', "_").to_uppercase();
            assert_eq!(variable.as_deref(), Some(format!("GENWATCH_{name}").as_str()), "{command} {option}");
        }
    }
    let not_yet: BTreeSet<String> = NOT_YET.map(str::to_owned).into();
    assert_eq!(missing, not_yet, "what is missing (left) is what is known to be (right)");
}

#[test]
fn a_wrong_command_line_is_bad_usage_and_names_what_is_wrong() {
    let sink = ["sink", "influx", "--org", "o", "--bucket", "b"];
    let source = ["source", "influx", "--org", "o", "--to-topic", "t"];
    let range = "v.timeRangeStart v.timeRangeStop";
    for (arguments, named) in [
        (&["no-such-command"][..], "no-such-command"),
        (&[], "Usage: genwatch"),
        (&["topics"], "Usage: genwatch topics"),
        (&["sink"], "Usage: genwatch sink"),
        (&["worker", "--no-such-option"], "--no-such-option"),
        (&["worker", "stray"], "stray"),
        (&["worker", "--concurrency", "0"], "--concurrency"),
        (&["worker", "--concurrency", "many"], "--concurrency"),
        (&["worker", "--delivery", "at-most-once"], "--delivery"),
        (&["worker", "--group-protocol", "none"], "--group-protocol"),
        (&["worker", "--work", "2 parsecs"], "--work"),
        (&["worker", "--work", "1000years"], "longer than a year"),
        (&["worker", "--http", "nowhere"], "--http"),
        (&["worker", "--http", "::1:8080"], "--http"),
        (&["worker", "--rate-limit", "0"], "--rate-limit"),
        (&["worker", "--topic", "no/topic"], "--topic"),
        (&["worker", "--group", ""], "--group"),
        (&["worker", "--brokers", ""], "--brokers"),
        (&["worker", "--on-out-of-range", "latest"], "--on-out-of-range"),
        (&["simulate", "--generators", "0"], "--generators"),
        (&["simulate", "--to", "pigeon"], "--to"),
        (&["simulate", "--duration=-1s"], "--duration"),
        (&["topics", "create", "--partitions", "0"], "--partitions"),
        (&["alerts", "--from", "yesterday"], "--from"),
        (&["status", "--brokers"], "--brokers"),
        (&["bench", "drain", "--peer", "nameless"], "--peer"),
        (&["bench", "drain", "--brokers", "a:1,,b:2"], "--brokers"),
        // Before anything is measured: that port has no listener.
        (&["bench", "drain", "--brokers", &nobody(), "--results", "/dev/null/results"], "--results"),
        (&["bench", "scale", "--replicas", "3,1"], "--replicas"),
        (&["bench", "partitions", "--partitions", "0"], "--partitions"),
        (&["bridge", "--mqtt", "http://localhost"], "--mqtt "),
        (&["bridge", "--mqtt", "mqtt://me:hunter2@localhost"], "--mqtt "),
        (&["bridge", "--mqtt-topic", "a/#/b"], "--mqtt-topic"),
        (&["bridge", "--mqtt-topic", "$share/bridges/a/+"], "--mqtt-topic"),
        (&["bridge", "--client-id", ""], "--client-id"),
        (&["bridge", "--mqtt-password-file", "/no/such/file"], "--mqtt-user"),
        (&["bridge", "--mqtt-user", "me", "--mqtt-password-file", "/no/such/file"], "--mqtt-password-file"),
        (&["bridge", "--mqtt", "mqtts://localhost", "--mqtt-ca-file", "/no/such/file"], "--mqtt-ca-file"),
        (&["bridge", "--mqtt-ca-file", "/no/such/file"], "--mqtt-ca-file"),
        (&["simulate", "--to", "mqtt", "--faults"], "--faults"),
        (&["simulate", "--to", "mqtt", "--generators", "20001"], "20000"),
        (&["simulate", "--to", "mqtt", "--mqtt-topic", "generators/+/telemetry"], "--mqtt-topic"),
        (&["sink", "influx"], "--bucket"),
        (&[&sink[..], &["--url", "localhost:8086"]].concat(), "--url"),
        (&[&sink[..], &["--url", "http://me:hunter2@localhost:8086"]].concat(), "--url"),
        (&[&sink[..], &["--token", "hunter2", "--token-file", "/dev/null"]].concat(), "--token-file"),
        (&[&sink[..], &["--token", "-hunter2", "--token-file", "/dev/null"]].concat(), "cannot be used with"),
        (&[&sink[..], &["--token-file", "/no/such/file"]].concat(), "--token-file"),
        (&[&sink[..], &["--token-file", "/dev/null"]].concat(), "token is empty"),
        (&[&sink[..], &["--ca-file", "/no/such/file"]].concat(), "--ca-file"),
        (&[&sink[..], &["--precision", "days"]].concat(), "--precision"),
        (&[&sink[..], &["--measurement", "#m"]].concat(), "--measurement"),
        (&[&sink[..], &["--batch", "0"]].concat(), "--batch"),
        (&["source", "influx"], "--to-topic"),
        (&["source", "influx", "--to-topic", "t", "--query", "q"], "--org"),
        (&["source", "influx", "--to-topic", "t", "--org", "o"], "--query"),
        (&[&source[..], &["--query", "from() |> range(start: -1h)"]].concat(), "v.timeRangeStart"),
        (&[&source[..], &["--query-file", "/no/such/file"]].concat(), "--query-file"),
        (&[&source[..], &["--query", "q", "--query-file", "f"]].concat(), "cannot be used with"),
        (&[&source[..], &["--query", range, "--database", "d"]].concat(), "cannot be used with"),
        (&[&source[..], &["--query", range, "--url", "http://me:hunter2@localhost:8086"]].concat(), "--url"),
        (
            &[&source[..], &["--query", range, "--token", "x", "--token-file", "/dev/null"]].concat(),
            "cannot be used",
        ),
        (&[&source[..], &["--query", range, "--name", "a/b"]].concat(), "--name"),
        (&[&source[..], &["--query", range, "--align", "0s"]].concat(), "--align"),
        (&[&source[..], &["--query", range, "--from", "yesterday"]].concat(), "--from"),
        (
            &["source", "influx", "--org", "o", "--query", range, "--group", "g", "--to-topic", "g_sources"],
            "keeps its own records",
        ),
        (&["health", "--http", "8080"], "--http"),
        (&["health", "--brokers", "localhost:9092"], "--brokers"),
    ] {
        assert_refused(arguments, 2, &[named]);
    }
}

#[test]
fn nobody_may_be_forgotten_before_it_is_missed() {
    let rules = tempfile::NamedTempFile::new().unwrap();
    let text =
        ["10s", "90s"].map(|time| format!("[[rule]]\nname = \"gone-{time}\"\nsilent_for = \"{time}\"\n"));
    std::fs::write(rules.path(), text.concat()).unwrap();
    let worker = ["worker", "--rules", rules.path().to_str().unwrap(), "--forget-silent-after"];
    let wanted = ["--forget-silent-after 1m 29s", "silent_for", "give 1m 30s or more"];
    assert_refused(&[&worker[..], &["89s"]].concat(), 2, &wanted);
    assert_refused(&[&worker[..], &["0s"]].concat(), 2, &["--forget-silent-after"]);
    // Goes on to check its properties, and refuses them.
    let wrong = ["-X", "isolation.level=read_uncommitted"];
    assert_refused(&[&worker[..], &["90s"], &wrong].concat(), 2, &["isolation.level"]);
    let without = [&["worker", "--forget-silent-after", "1s"], &wrong[..]].concat();
    assert_refused(&without, 2, &["no rule has silent_for", "isolation.level"]);
}

#[test]
fn a_password_in_an_url_is_not_repeated() {
    let with_password = "mqtt://me:hunter2@localhost";
    for arguments in [
        &["bridge", "--mqtt", with_password][..],
        &["bridge", "--mqtt", "me:hunter2@localhost"],
        &["bridge", "--mqtt", "mqtt://localhost", with_password],
        &["simulate", "--to", with_password],
        &[
            "sink",
            "influx",
            "--url",
            "http://me:hunter2@localhost:8086",
            "--org",
            "o",
            "--bucket",
            "b",
            "--token",
            "t",
        ],
        &["sink", "influx", "--batch", "http://me:hunter2@localhost:8086"],
    ] {
        assert_refused(arguments, 2, &[]);
        let said = text(&genwatch(arguments).stderr);
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_refused(&["bridge", "--mqtt", with_password], 2, &["'mqtt://...@localhost' for '--mqtt <URL>'"]);

    for (name, command_line) in [("GENWATCH_MQTT", &["bridge"][..]), ("GENWATCH_URL", &["sink", "influx"])] {
        for arguments in [command_line.to_vec(), [command_line, &["--help"]].concat()] {
            let output = command(&arguments).env(name, with_password).output().unwrap();
            let said = text(&output.stderr) + &text(&output.stdout);
            assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn an_environment_variable_is_an_option_and_checked_as_one() {
    let output = command(&["worker"]).env("GENWATCH_CONCURRENCY", "none").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--concurrency"), "{}", text(&output.stderr));
}

#[test]
fn a_flag_is_switched_by_its_variable_as_people_write_it() {
    // Without the flag `simulate --to mqtt` goes on to check its topic, and refuses it.
    let simulate = ["simulate", "--to", "mqtt", "--mqtt-topic", "generators/+/telemetry"];
    for (values, named) in [
        (["1", "true", "yes", "on", "TRUE"], "--faults"),
        (["0", "false", "no", "off", "False"], "--mqtt-topic"),
    ] {
        for value in values {
            let output = command(&simulate).env("GENWATCH_FAULTS", value).output().unwrap();
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{value}: {said}");
            assert!(said.starts_with("genwatch: ") && said.contains(named), "{value}: {said}");
        }
    }
    let output = command(&simulate).env("GENWATCH_FAULTS", "perhaps").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("invalid value 'perhaps' for '--faults'"), "{output:?}");
}

#[test]
fn an_invalid_log_level_is_told() {
    for (level, code) in [("genwatch=loud", 2), ("", 1), ("warn,genwatch=debug", 1)] {
        let output = command(&["health", "--http", &nobody()]).env("RUST_LOG", level).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{level}: {said}");
        assert_eq!(said.contains("RUST_LOG"), code == 2, "{level}: {said}");
    }
}
