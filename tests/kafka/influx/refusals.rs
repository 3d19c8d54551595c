//! A sink's rights in the database, and the certificates that it trusts.

use super::{progress, readings, sink_to_the_end};
use crate::world::World;
use crate::world::influxdb::{Server, shared};
use crate::world::system::{genwatch, genwatch_in_a_system_with};

#[test]
fn a_wrong_token_organization_or_bucket_is_one_clear_sentence() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let server = bucket.server;
    for (option, value, words) in [
        ("--token", "wr0ng-t0k3n", &["401", "unauthorized", "--token"][..]),
        ("--org", "nobody", &["404", "nobody", "--org"]),
        ("--bucket", "nowhere", &["404", "nowhere", "--bucket"]),
        ("--url", &format!("{}/elsewhere", server.url), &["404", "--url"]),
    ] {
        let mut options = bucket.options();
        let at = options.iter().position(|name| name == option).expect("an option");
        options[at + 1] = value.to_owned();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let ended = world.run("sink influx", &options).refused(1, words);
        assert!(!format!("{ended:?}").contains("wr0ng-t0k3n"), "{ended:?}");
    }
    let none = ["--url", &server.url, "--org", &server.org, "--bucket", &bucket.name];
    world.run("sink influx", &none).refused(1, &["wants a token", "--token-file"]);
}

#[test]
fn a_token_that_may_only_write_is_enough_and_one_for_another_bucket_is_not() {
    let world = World::new(1);
    let (bucket, other) = (shared().bucket(), shared().bucket());
    world.produce(&readings(10, 100));
    let with = |token: &str| {
        let mut options = bucket.options();
        let at = options.iter().position(|name| name == "--token").expect("an option");
        options[at + 1] = token.to_owned();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(["--exit-at-end"]).collect();
        world.run("sink influx", &options)
    };
    with(&other.write_only_token()).refused(1, &[&bucket.name, "--token"]);
    assert_eq!(progress(&world).done(), 0);
    with(&bucket.write_only_token()).success();
    assert_eq!(bucket.count_and_sum(&world.topic, "fuel").0, 100);
}

#[test]
fn https_is_written_to_by_who_knows_the_ca_and_by_nobody_else() {
    let world = World::new(1);
    let server = Server::start("tls", &["--tls"]);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    world.produce(&readings(10, 100));
    let arguments = |url: &str, more: &[&str]| -> Vec<String> {
        let usual = ["--url", url, "--org", &server.org, "--bucket", "genwatch", "--token", &server.token];
        usual.iter().chain(more).map(|text| (*text).to_owned()).collect()
    };
    let run = |url: &str, more: &[&str]| {
        let arguments = arguments(url, more);
        world.run("sink influx", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let ca_file = server.ca_file.clone().expect("a CA");
    let stranger = tempfile::tempdir().unwrap();
    let stranger = stranger.path().join("ca.pem");
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=no",
            "-keyout",
        ])
        .args(["/dev/null".as_ref(), "-out".as_ref(), stranger.as_os_str()])
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{made:?}");

    // The certificate is not for this name; it's of an untrusted CA; only one of the two speaks TLS.
    let trusted = ["--ca-file", ca_file.as_str()];
    let other_name = server.url.replace("127.0.0.1", "localhost");
    run(&other_name, &trusted).refused(1, &["is not to be trusted", "certificate", "localhost"]);
    run(&server.url, &["--ca-file", stranger.to_str().unwrap()]).refused(1, &["certificate", "--ca-file"]);
    run(&server.url, &[]).refused(1, &["certificate", "--ca-file"]);
    run(&server.url.replace("https", "http"), &[]).refused(1, &["HTTPS", "--url"]);
    let plain = shared().url.replace("http", "https");
    run(&plain, &trusted).refused(1, &["is not to be trusted", "--url"]);
    assert_eq!(progress(&world).done(), 0);

    let bucket = server.bucket();
    sink_to_the_end(&world, &bucket, &[]);
    assert_eq!(bucket.count_and_sum(&world.topic, "fuel").0, 100);

    // A CA in the system's store needs no option; without it there, nothing else helps.
    let bucket = server.bucket();
    let by_the_system = |mut command: std::process::Command, group: &str| {
        command
            .args(["sink", "influx", "--exit-at-end", "--url", &server.url, "--org", &server.org])
            .args(["--bucket", &bucket.name, "--token", &server.token])
            .args(["--brokers", &world.brokers, "--topic", &world.topic, "--group", group])
            .output()
            .expect("it runs")
    };
    let unknown = by_the_system(genwatch(), &world.group);
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(unknown.status.code() == Some(1) && said.contains("certificate"), "{unknown:?}");
    if let Some(command) = genwatch_in_a_system_with(&ca_file) {
        let known = by_the_system(command, &format!("{}-system", world.group));
        assert_eq!(known.status.code(), Some(0), "a CA of the system's store: {known:?}");
        assert_eq!(bucket.count_and_sum(&world.topic, "fuel").0, 100);
    }
}
