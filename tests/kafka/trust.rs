//! TLS as with a managed Kafka: the system trusts the CA of its certificate. And benchmarks reach such a cluster, with
//! all their contenders.

use std::process::Command;

use crate::world::broker::Cluster;
use crate::world::system::{genwatch, genwatch_in_a_system_with};

#[test]
fn the_systems_certificates_are_trusted_and_benchmarks_reach_a_secured_cluster() {
    let cluster = Cluster::start_secure("trust");
    let (_, tls) = cluster.secure_ports();
    let admin = cluster.secret("admin.pem");
    let secured = [
        "-X".to_owned(),
        "security.protocol=ssl".to_owned(),
        "-X".to_owned(),
        format!("ssl.certificate.location={admin}"),
        "-X".to_owned(),
        format!("ssl.key.location={admin}"),
    ];
    let describe = |mut command: Command| {
        command.args(["topics", "describe", "--brokers", &tls]).args(&secured).output().expect("it runs")
    };

    let ca = format!("ssl.ca.location={}", cluster.secret("ca.pem"));
    let mut create = genwatch();
    create.args(["topics", "create", "--partitions", "1", "--brokers", &tls, "-X", &ca]).args(&secured);
    let created = create.output().expect("it runs");
    assert_eq!(created.status.code(), Some(0), "a CA that is named: {created:?}");

    let unknown = describe(genwatch());
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(unknown.status.code() == Some(1) && said.contains("certificate"), "an unknown CA: {unknown:?}");

    if let Some(command) = genwatch_in_a_system_with(&cluster.secret("ca.pem")) {
        let known = describe(command);
        assert_eq!(known.status.code(), Some(0), "a CA of the system's store: {known:?}");
    }

    let mut command = genwatch();
    command.env("SSL_CERT_FILE", cluster.secret("ca.pem"));
    let named = describe(command);
    assert_eq!(named.status.code(), Some(0), "OpenSSL's own variable still counts: {named:?}");

    let results = tempfile::tempdir().expect("a folder");
    let bench = genwatch()
        .args(["bench", "drain", "--json", "--count", "2000", "--generators", "20", "--repetitions", "1"])
        .args(["--results", results.path().to_str().expect("UTF-8"), "--brokers", &tls])
        .args(&secured)
        .args(["-X", &ca])
        // The user's own settings, for workers: none of them is for the contenders.
        .envs([
            ("GENWATCH_RULES", "/no/such/file"),
            ("GENWATCH_HTTP", "256.0.0.1:1"),
            ("GENWATCH_EXIT_AT_END", "no"),
        ])
        .output()
        .expect("it runs");
    assert_eq!(bench.status.code(), Some(0), "{}", String::from_utf8_lossy(&bench.stderr));
    let report: serde_json::Value = serde_json::from_slice(&bench.stdout).expect("JSON");
    assert!(
        report["results"].as_array().expect("results").len() >= 3,
        "genwatch and the baselines: {report:#}"
    );
}
