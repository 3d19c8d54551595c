//! Benchmarks measure, verify, disqualify, and leave nothing behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::world::influxdb;
use crate::world::process::Process;
use crate::world::records::{Outgoing, produce, stormy_readings};
use crate::world::{PATIENCE, World, until};

#[test]
fn alerts_that_are_right_are_verified_and_one_too_many_is_found() {
    let world = World::new(3);
    let mut readings = stormy_readings(20, 2000);
    // As after a crash of the bridge: a stretch comes again, older than what was evaluated since.
    readings.extend(readings[1200..1600].to_vec());
    readings.extend(stormy_readings(20, 200));
    world.produce(&readings);
    let worked = world.work_to_the_end(&[]);
    let verified = world.run("bench verify", &[]).success();
    assert_eq!(verified.json()["verified"], true);
    assert_eq!(verified.number("alerts"), worked.number("alerts"));

    let again = world.read(&world.alerts_topic()).0[7].clone();
    let forged = Outgoing::new(again.key(), again.value.as_deref().unwrap());
    produce(&world.brokers, &world.alerts_topic(), &[forged]);
    world.run("bench verify", &[]).refused(1, &["of 1 generators"]);
}

#[test]
fn alerts_of_a_real_topic_are_verified_too() {
    let world = World::new(2);
    let mut records = stormy_readings(20, 1000);
    // From devices: rubbish, generators taken out of service, and ids that need escapes.
    for n in [100, 400, 700] {
        let quoted = ["g\"\\", "ü\n", "\u{1b}"].map(|id| Outgoing::reading(id, 80.0, 100.0));
        let bad = ["not json", "{}", "[1]", r#"{"generatorID":"x","fuel":"full"}"#];
        records.splice(n..n, bad.map(|bad| Outgoing::new("x", bad.as_bytes())));
        records.splice(n..n, quoted);
        records.insert(n, Outgoing::tombstone("generator3"));
        records.insert(n, Outgoing { key: None, ..Outgoing::reading("keyless", 80.0, 100.0) });
        records
            .insert(n, Outgoing { key: Some(b"other".into()), ..Outgoing::reading("mismatch", 80.0, 100.0) });
        records.insert(n, Outgoing::new("x", &vec![b' '; (1 << 20) + 1]));
    }
    records.extend(["ü\n", "generator1", "generator2", "generator3"].map(Outgoing::tombstone));
    world.produce(&records);
    let worked = world.work_to_the_end(&[]);
    assert!(worked.number("dlq") >= 18, "{worked:?}");

    let verified = world.run("bench verify", &[]).success();
    assert_eq!(verified.number("alerts"), worked.number("alerts"));

    let place = Outgoing::new("x", b"no alert").to(1);
    produce(&world.brokers, &world.alerts_topic(), &[place]);
    world.run("bench verify", &[]).refused(1, &[&world.alerts_topic(), "partition 1", "offset"]);
}

#[test]
fn who_does_less_is_disqualified() {
    let world = World::empty();
    let folder = tempfile::tempdir().unwrap();
    let liar = folder.path().join("liar");
    std::fs::write(&liar, "#!/bin/sh\necho '{\"records\":20000,\"seconds\":0.001,\"alerts\":0}'\n").unwrap();
    std::fs::set_permissions(&liar, std::fs::Permissions::from_mode(0o755)).unwrap();

    let peer = format!("liar={}", liar.display());
    let ended = drain(&world, folder.path(), &["--no-bare", "--peer", &peer]).wait();

    let ended = ended.exited(1);
    assert!(ended.stderr.contains("liar is disqualified: 0 alerts instead of"), "{}", ended.stderr);
}

/// Measured alone on the machine.
mod alone {
    use super::*;

    #[test]
    fn a_drain_is_measured_and_verified_and_leaves_nothing_behind_even_when_stopped() {
        // No other benchmark may have topics here.
        let world = World::alone(1);
        let folder = tempfile::tempdir().unwrap();

        let ended = drain(&world, folder.path(), &["--json"]).wait().success();

        let report = ended.json();
        let results = report["results"].as_array().unwrap();
        let names: Vec<_> = results.iter().map(|row| row["contender"].as_str().unwrap()).collect();
        assert_eq!(names, ["genwatch", "bare BaseConsumer", "bare StreamConsumer", "bare + transactions"]);
        for row in results {
            assert!(row["records_per_s"].as_f64().unwrap() > 0.0, "{row}");
            assert!(row["cpu_us_per_record"].as_f64().unwrap() > 0.0, "{row}");
            let makes_alerts = row["contender"] == "genwatch" || row["contender"] == "bare + transactions";
            assert_eq!(row["alerts_verified"].is_number(), makes_alerts, "{row}");
        }
        // The comparison must not pick the slower one.
        let bare = results.iter().filter(|row| row["contender"].as_str().unwrap().ends_with("Consumer"));
        let fastest = bare.max_by_key(|row| row["records_per_s"].as_f64().unwrap() as u64).unwrap();
        assert_eq!(report["configuration"]["baseline"], fastest["contender"]);
        assert_eq!(fastest["rate_ratio"], 1.0);
        let day = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let table = std::fs::read_to_string(day.join("drain.csv")).unwrap();
        assert_eq!(table.lines().count(), 1 + 4, "{table}");
        assert_eq!(leftovers(&world), Vec::<String>::new());

        let stopped = drain(&world, folder.path(), &["--count", "100000000"]);
        until("its topics are there", || !leftovers(&world).is_empty());
        stopped.signal("INT");
        let ended = stopped.wait().exited(1);
        assert!(ended.stderr.contains("stopped; its topics and processes are gone"), "{}", ended.stderr);
        until("its topics are gone", || leftovers(&world).is_empty());
    }

    #[test]
    fn standstills_of_partitions_that_move_are_told_from_those_that_stay() {
        let world = World::alone(1);
        let folder = tempfile::tempdir().unwrap();
        let once = ["bench", "rebalance", "--json", "--events", "1", "--scenario", "join-leave,kill"];
        let where_to = ["--brokers", &world.brokers, "--results", folder.path().to_str().unwrap()];
        let report =
            Process::start("bench rebalance", &[&once[..], &where_to].concat()).wait().success().json();
        let results = report["results"].as_array().unwrap();
        let events: Vec<_> = results.iter().map(|row| row["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["join", "leave", "kill"]);
        for row in results {
            assert_eq!(row["events"], 1, "{row}");
            assert!(row["moved_max_ms"].as_f64().unwrap() > 0.0, "{row}");
            assert!(row["stayed_p99_ms"].as_f64().unwrap() > 0.0, "{row}");
        }
        // A killed worker is missed when its session has ended, and not before.
        assert!(results[2]["moved_max_ms"].as_f64().unwrap() > 3000.0, "{}", results[2]);
        assert_eq!(leftovers(&world), Vec::<String>::new());
    }

    /// The guard against a slower hot path. It compares CPU times, because the rates of one run depend on who had a
    /// core to itself; with a wide margin (docs/performance.md has the measurements).
    #[test]
    fn a_backlog_is_drained_for_less_cpu_time_than_by_a_bare_loop() {
        let world = World::alone(1);
        let folder = tempfile::tempdir().unwrap();

        let arguments = ["--json", "--count", "1000000", "--repetitions", "3"];
        let report = drain(&world, folder.path(), &arguments).wait().success().json();

        let cpu = |name: &str| {
            let rows = report["results"].as_array().unwrap();
            rows.iter().find(|row| row["contender"] == name).unwrap()["cpu_us_per_record"].as_f64().unwrap()
        };
        let bare = cpu("bare BaseConsumer").min(cpu("bare StreamConsumer"));
        let (to_bare, to_twin) = (cpu("genwatch") / bare, cpu("genwatch") / cpu("bare + transactions"));
        eprintln!(
            "CPU time {to_bare:.2} of a bare loop's, {to_twin:.2} of its twin's, which does the same job"
        );
        assert!(to_bare < 0.9, "{to_bare} of the CPU time of a bare loop: {report:#}");
        assert!(to_twin < 0.8, "{to_twin} of the CPU time of a loop that does the same job: {report:#}");
    }

    #[test]
    fn a_sink_is_measured_beside_a_bare_client_and_leaves_nothing_behind() {
        let world = World::alone(1);
        let server = influxdb::shared();
        let folder = tempfile::tempdir().unwrap();
        let brokers =
            ["bench", "sink", "--brokers", &world.brokers, "--results", folder.path().to_str().unwrap()];
        let database = ["--url", &server.url, "--org", &server.org, "--token", &server.token];
        let small = ["--json", "--count", "20000", "--repetitions", "1", "--generators", "100"];
        let ended =
            Process::start("bench sink", &[&brokers[..], &database, &small].concat()).wait().success();

        let report = ended.json();
        let results = report["results"].as_array().unwrap();
        let names: Vec<_> = results.iter().map(|row| row["contender"].as_str().unwrap()).collect();
        let bare = [1, 2, 4].map(|connections| format!("bare client, {connections} connections"));
        let expected: Vec<&str> = bare.iter().map(String::as_str).chain(["genwatch sink influx"]).collect();
        assert_eq!(names, expected);
        for row in results {
            assert!(row["points_per_s"].as_f64().unwrap() > 0.0, "{row}");
            assert!(row["of_the_best_bare_client"].as_f64().unwrap() > 0.0, "{row}");
        }
        assert_eq!(leftovers(&world), Vec::<String>::new());
        let left = server.buckets().into_iter().filter(|name| name.starts_with("genwatch-bench-"));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

fn drain(world: &World, folder: &Path, arguments: &[&str]) -> Process {
    let folder = folder.to_str().unwrap();
    let common = ["bench", "drain", "--brokers", &world.brokers, "--results", folder, "--generators", "100"];
    let or_else = |option, value| if arguments.contains(&option) { vec![] } else { vec![option, value] };
    let (count, repetitions) = (or_else("--count", "20000"), or_else("--repetitions", "1"));
    Process::start("bench drain", &[&common, &*count, &*repetitions, arguments].concat())
}

/// Topics of benchmarks.
fn leftovers(world: &World) -> Vec<String> {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &world.brokers).create().unwrap();
    let metadata = client.fetch_metadata(None, PATIENCE).unwrap();
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    names.filter(|name| name.starts_with("genwatch-bench-")).collect()
}
