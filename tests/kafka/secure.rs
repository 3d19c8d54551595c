//! A secured broker: each service does its job with the rights from `deploy/compose/secure/principals`, by password and
//! by certificate, and nothing else. A refused client soon gets a clear error.

use std::path::Path;
use std::process::Command;

use crate::world::broker::{self, Cluster};
use crate::world::influx::{Influx, TOKEN};
use crate::world::influxdb::shared;
use crate::world::mosquitto::Mosquitto;
use crate::world::process::{Ended, Process};
use crate::world::until;

const READINGS: &str = "2000";

#[test]
fn each_principal_does_its_job_and_no_other() {
    let cluster = Cluster::start_secure("secure");
    make_principals(&cluster);
    let (sasl, tls) = cluster.secure_ports();
    let by_password = |command: &str, principal: &str, more: &[&str]| {
        let properties = cluster.secret(&format!("{principal}.properties"));
        genwatch(command, &sasl, &[&format!("@{properties}")], more)
    };
    let by_certificate = |command: &str, principal: &str, more: &[&str]| {
        let properties = cluster.secret(&format!("{principal}.mtls.properties"));
        genwatch(command, &tls, &[&format!("@{properties}")], more)
    };
    let to_the_end = &["--exit-at-end"][..];

    // The jobs.
    by_password("topics create", "topics", &["--partitions", "3"]).wait().success();
    let simulated = by_password("simulate", "simulator", &["--count", READINGS, "--rate", "0"]).wait();
    assert_eq!(simulated.success().number("delivered").to_string(), READINGS);
    let worked = by_password("worker", "worker", to_the_end).wait().success();
    assert_eq!(worked.number("records").to_string(), READINGS);
    by_certificate("simulate", "simulator", &["--count", READINGS, "--rate", "0"]).wait().success();
    let worked = by_certificate("worker", "worker", to_the_end).wait().success();
    assert_eq!(worked.number("records").to_string(), READINGS, "the group goes on, whatever the way in");
    let mqtt = Mosquitto::start();
    let url = mqtt.url();
    let bridge = by_password("bridge", "bridge", &["--mqtt", &url]);
    bridge.wait_until_it_says("connected to the MQTT broker");
    let simulated = Process::start(
        "simulate",
        &["simulate", "--to", "mqtt", "--mqtt", &url, "--generators", "20", "--count", READINGS],
    );
    simulated.wait().success();
    let worker = by_password("worker", "worker", &[]);
    until("the readings from MQTT are processed", || {
        let status = by_password("status", "operator", &["--json"]).wait().success().json();
        let committed =
            status["partitions"].as_array().unwrap().iter().map(|of| of["committed"].as_u64().unwrap_or(0));
        committed.sum::<u64>() == 3 * READINGS.parse::<u64>().unwrap()
    });
    worker.stop();
    let bridged = bridge.stop();
    assert_eq!(bridged.number("readings").to_string(), READINGS);
    assert_eq!(bridged.number("statuses"), 40, "online and offline");
    let status = by_password("status", "operator", &[]).wait().success();
    assert!(status.stdout.contains("lag in all: 0"), "{}", status.stdout);
    by_password("alerts", "operator", to_the_end).wait().success();
    let aggregated = by_password("downsample", "downsample", to_the_end).wait().success();
    assert_eq!(aggregated.number("records"), 3 * READINGS.parse::<u64>().unwrap());
    by_certificate("downsample", "downsample", to_the_end).wait().success();
    let of_aggregates = by_password("status", "operator", &["--group", "genwatch_1m"]).wait().success();
    assert!(of_aggregates.stdout.contains("lag in all: 0"), "{}", of_aggregates.stdout);
    let influx = Influx::start();
    let database = ["--exit-at-end", "--url", &influx.url, "--org", "o", "--bucket", "b", "--token", TOKEN];
    let sunk = by_password("sink influx", "sink", &database).wait().success();
    assert!(sunk.number("points") > 3 * READINGS.parse::<u64>().unwrap(), "readings and alerts: {sunk:?}");
    assert!(!influx.points().is_empty());
    let of_sinks = by_password("status", "operator", &["--group", "genwatch_influx"]).wait().success();
    assert!(of_sinks.stdout.contains("lag in all: 0"), "{}", of_sinks.stdout);

    let bucket = shared().bucket();
    bucket.write("plant,generatorID=g fuel=1 1766400000000000000");
    let access = bucket.access();
    let query = format!(
        r#"from(bucket: "{}") |> range(start: v.timeRangeStart, stop: v.timeRangeStop)"#,
        bucket.name
    );
    let source = ["--query", &query, "--to-topic", "emergency_generators_influx", "--from", "beginning"];
    let source: Vec<&str> = access.iter().map(String::as_str).chain(source).collect();
    let source = [&source[..], &["--create-topic", "--exit-at-end"]].concat();
    let sourced = by_password("source influx", "source", &source).wait().success();
    assert_eq!(sourced.number("rows"), 1);
    let sourced = by_certificate("source influx", "source", &source).wait().success();
    assert_eq!([sourced.number("rows"), sourced.number("repeats")], [0, 1]);

    // Not their jobs.
    let refused = |ended: Ended, words: &[&str]| drop(ended.refused(1, words));
    refused(
        by_password("alerts", "simulator", to_the_end).wait(),
        &["emergency_generators_alerts", "not authorized"],
    );
    refused(by_password("worker", "simulator", to_the_end).wait(), &["not authorized"]);
    refused(
        by_password("simulate", "worker", &["--count", "1"]).wait(),
        &["emergency_generators", "not authorized"],
    );
    refused(
        by_password("topics create", "worker", &["--topic", "other", "--partitions", "1"]).wait(),
        &["not authorized"],
    );
    let bridge_of = |principal: &str| by_password("bridge", principal, &["--mqtt", &url]).wait();
    refused(bridge_of("simulator"), &["emergency_generators_status", "not authorized"]);
    refused(by_password("worker", "bridge", to_the_end).wait(), &["not authorized"]);
    let sink_of = |principal: &str| by_password("sink influx", principal, &database).wait();
    refused(sink_of("simulator"), &["emergency_generators_alerts", "not authorized"]);
    refused(by_password("worker", "sink", to_the_end).wait(), &["not authorized"]);
    refused(by_password("worker", "source", to_the_end).wait(), &["not authorized"]);
    refused(
        by_password("source influx", "sink", &source).wait(),
        &["emergency_generators_influx", "not authorized"],
    );
    refused(
        by_password("downsample", "worker", to_the_end).wait(),
        &["emergency_generators_1m", "not authorized"],
    );
    refused(by_password("downsample", "sink", to_the_end).wait(), &["genwatch_1m_state", "not authorized"]);
    refused(by_password("worker", "downsample", to_the_end).wait(), &["not authorized"]);
    let other_group = &["--exit-at-end", "--group", "other"][..];
    refused(by_password("worker", "worker", other_group).wait(), &["not authorized"]);

    // Not let in.
    let ca = format!("ssl.ca.location={}", cluster.secret("ca.pem"));
    let wrong = [
        "security.protocol=SASL_SSL",
        "sasl.mechanism=SCRAM-SHA-512",
        "sasl.username=worker",
        "sasl.password=hunter2",
        &ca,
    ];
    // All of them at once: some wait for ten seconds before they report it.
    let with_wrong = ["worker", "simulate", "alerts", "status", "topics describe"]
        .map(|command| genwatch(command, &sasl, &wrong, &[]));
    let with_none = ["worker", "simulate"].map(|command| genwatch(command, &sasl, &[], &[]));
    for process in with_wrong {
        let ended = process.wait().refused(1, &["uthentication failed"]);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
    for process in with_none {
        process.wait().refused(1, &["no broker answers", "security.protocol"]);
    }

    // Certificates of another CA: the broker's, and ours.
    let others = tempfile::tempdir().unwrap();
    script("certs", &["--out", others.path().to_str().unwrap()]);
    let other = |name: &str| others.path().join(name).display().to_string();
    let stranger = [
        "security.protocol=SSL",
        &ca,
        &format!("ssl.certificate.location={}", other("worker.pem")),
        &format!("ssl.key.location={}", other("worker.pem")),
    ];
    genwatch("worker", &tls, &stranger, to_the_end).wait().refused(1, &["certificate"]);
    // Certificates of our CA for another purpose, whatever name they carry.
    script("certs", &["--out", &cluster.secret(""), "--brokers", "kafka-1", "--device", "admin"]);
    for (file, word) in [("devices/admin.pem", "not authorized"), ("mosquitto.pem", "no broker answers")] {
        let location = cluster.secret(file);
        let of_another = [
            "security.protocol=SSL",
            &ca,
            &format!("ssl.certificate.location={location}"),
            &format!("ssl.key.location={location}"),
        ];
        genwatch("topics create", &tls, &of_another, &["--topic", "other"]).wait().refused(1, &[word]);
    }
    let trusting_another = [
        &format!("@{}", cluster.secret("worker.properties"))[..],
        &format!("ssl.ca.location={}", other("ca.pem")),
    ];
    genwatch("worker", &sasl, &trusting_another, to_the_end).wait().refused(1, &["certificate"]);

    // A password appears in no process list and in no log.
    let password = std::fs::read_to_string(cluster.secret("worker.password")).unwrap();
    let worker = by_password("worker", "worker", &["-X", "debug=security,broker"]);
    worker.wait_until_assigned();
    let arguments = std::fs::read(format!("/proc/{}/cmdline", worker.id())).unwrap();
    let ended = worker.stop();
    let said = format!("{}{}{}", String::from_utf8_lossy(&arguments), ended.stderr, ended.stdout);
    assert!(said.contains("worker.properties") && !said.contains(password.trim()), "{said}");
}

fn genwatch(command: &str, brokers: &str, properties: &[&str], more: &[&str]) -> Process {
    let properties = properties.iter().flat_map(|property| ["-X", property]);
    let words = command.split_whitespace().chain(["--brokers", brokers]).chain(properties);
    Process::start(command, &words.chain(more.iter().copied()).collect::<Vec<_>>())
}

fn make_principals(cluster: &Cluster) {
    let (_, tls) = cluster.secure_ports();
    let jars = broker::jars();
    let secrets = cluster.secret("");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose/secure/principals");
    let arguments = [&tls, &cluster.secret("admin.properties"), &secrets, &jars];
    let output = Command::new(script).args(arguments).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn script(name: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let output = Command::new(path).args(arguments).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
