//! `-X`: a mistake is found before a broker is asked, and is the same mistake for every command.

use crate::{assert_refused, command, genwatch, nobody, text};

const COMMANDS: [&[&str]; 9] = [
    &["worker"],
    &["simulate"],
    &["alerts"],
    &["status"],
    &["topics", "create"],
    &["bridge"],
    &["sink", "influx", "--org", "o", "--bucket", "b"],
    &["source", "influx", "--org", "o", "--query", "v.timeRangeStart v.timeRangeStop", "--to-topic", "t"],
    &["bench", "drain", "--results", "/tmp"],
];

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
    assert!(!text(&genwatch(&["worker", "-X", "ssl.key.pem=\nhunter2\n"]).stderr).contains("hunter2"));
    assert_refused(&["worker", "-X", "@/no/such/file"], 2, &["/no/such/file"]);
}

#[test]
fn what_genwatch_needs_otherwise_is_refused_by_every_command() {
    for command in COMMANDS {
        for (pair, words) in [
            ("acks=0", "acks"),
            ("request.required.acks=1", "request.required.acks"),
            ("max.poll.interval.ms=1000", "session.timeout.ms"),
            ("isolation.level=read_uncommitted", "isolation.level"),
            ("auto.offset.reset=latest", "auto.offset.reset"),
            ("transactional.id=x", "--group"),
            ("sasl.oauthbearer.method=oidc", "not compiled into genwatch"),
        ] {
            assert_refused(&[command, &["-X", pair, "--brokers", &nobody()]].concat(), 2, &[words]);
        }
    }
    // Too long only for a transaction.
    let longer = ["--brokers", &nobody(), "-X", "delivery.timeout.ms=900000"];
    assert_refused(&[&["worker"], &longer[..]].concat(), 2, &["transaction.timeout.ms"]);
    let classic_only =
        ["--brokers", &nobody(), "--group-protocol", "consumer", "-X", "session.timeout.ms=7000"];
    assert_refused(&[&["worker"], &classic_only[..]].concat(), 2, &["session.timeout.ms"]);
}

#[test]
fn a_mistake_in_a_file_or_in_the_environment_is_named_with_its_place() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\u{feff}# of Java\n! too\n\nclient.id=me\nsasl.pasword=hunter2\n").unwrap();
    let place = format!("{}:5: sasl.pasword", file.path().display());
    assert_refused(&["status", "-X", &format!("@{}", file.path().display())], 2, &[&place]);
    let output =
        command(&["status"]).env("GENWATCH_X", "client.id=me\n\nsasl.pasword=hunter2").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("-X sasl.pasword"), "{}", text(&output.stderr));
}
