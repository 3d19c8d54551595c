//! The first SIGTERM or SIGINT drains, the second one ends the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::verify;
use crate::world::process::Process;
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, http, until};

#[test]
fn sigterm_drains_commits_what_was_worked_and_prints_one_summary() {
    let world = World::new(4);
    world.produce(&stormy_readings(50, 4000));
    let worker = world.working(&["--work", "2ms", "--concurrency", "4"]);
    until("it's at work", || world.progress().done() > 500);

    let ended = worker.stop();

    let done = world.progress().done();
    assert!(done < 4000, "it was stopped midway");
    assert_eq!(ended.number("records"), u64::try_from(done).unwrap(), "committed = processed");
    assert_eq!(ended.number("alerts"), u64::try_from(world.alerts().len()).unwrap());
    let summary = ended.json();
    let mut fields: Vec<_> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let contract = ["alerts", "commits", "dlq", "rebalances", "records", "records_per_second", "seconds"];
    assert_eq!(fields, contract);
    let (records, seconds) = (done as f64, summary["seconds"].as_f64().unwrap());
    assert!(
        (summary["records_per_second"].as_f64().unwrap() / (records / seconds) - 1.0).abs() < 0.01,
        "{summary}"
    );
    assert_eq!(ended.stdout.lines().count(), 1, "one JSON line: {}", ended.stdout);

    world.work_to_the_end(&[]);
    verify::all(&world);
}

/// Under nohup the tests ignore SIGHUP, and their children inherit that; a handler is not inherited.
fn catch_hangups() {
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).expect("a handler");
}

#[test]
fn a_terminal_that_is_closed_drains_the_worker_as_sigterm_does() {
    catch_hangups();
    let world = World::new(2);
    world.produce(&stormy_readings(50, 4000));
    let worker = world.working(&["--work", "2ms", "--concurrency", "4"]);
    until("it's at work", || world.progress().done() > 200);

    worker.signal("HUP");
    let ended = worker.wait().success();

    let done = world.progress().done();
    assert!(done < 4000, "it was stopped midway");
    assert_eq!(ended.number("records"), u64::try_from(done).unwrap(), "committed = processed");
}

#[test]
fn a_worker_under_nohup_outlives_its_terminal() {
    let world = World::new(1);
    let mut child = std::process::Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_genwatch"), "worker"])
        .args(["--brokers", &world.brokers, "--topic", &world.topic, "--group", &world.group])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    world.produce(&stormy_readings(5, 100));
    world.wait_until_worked();
    let send = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
    send(Signal::HUP);
    world.produce(&stormy_readings(5, 100));
    world.wait_until_worked();
    send(Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_long_drain_with_128_and_its_number() {
    catch_hangups();
    let world = World::new(1);
    world.produce(&[Outgoing::reading("g", 80.0, 100.0)]);
    for (first, second, code) in
        [("TERM", "TERM", 143), ("INT", "INT", 130), ("TERM", "INT", 130), ("HUP", "HUP", 129)]
    {
        let worker = busy_for_30_s(&world, &[]);
        worker.signal(first);
        worker.wait_until_it_says("draining");
        let asked = Instant::now();
        worker.signal(second);
        let ended = worker.wait().exited(code);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        assert_eq!(ended.stdout, "", "no summary of an aborted run");
    }
    assert_eq!(world.progress().done(), 0);
    world.work_to_the_end(&[]);
    verify::all(&world);
}

#[test]
fn a_drain_is_bounded_and_leaves_the_rest_to_the_next() {
    let world = World::new(1);
    world.produce(&[Outgoing::reading("g", 80.0, 100.0)]);
    let worker = busy_for_30_s(&world, &["--drain-timeout", "1s"]);

    let asked = Instant::now();
    let ended = worker.stop();

    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert_eq!(ended.number("records"), 0);
    assert_eq!(world.progress().done(), 0);
    world.work_to_the_end(&[]);
    verify::all(&world);
}

/// A worker in the middle of a reading that takes 30 s.
fn busy_for_30_s(world: &World, arguments: &[&str]) -> Process {
    let arguments =
        [&["--work", "30s", "--http", "127.0.0.1:0", "-X", "session.timeout.ms=6000"], arguments].concat();
    let worker = world.working(&arguments);
    let address = worker.http();
    until("it has begun", || {
        http::samples(&http::get(&address, "/metrics").1, "genwatch_in_flight")[0].1 > 0.0
    });
    worker
}

/// The other one gets its partitions at once, not when its session has ended.
#[test]
fn a_worker_that_ends_by_an_error_leaves_its_group() {
    let world = World::new(2);
    let long = ["-X", "session.timeout.ms=300000"];
    let mut first = world.working(&[&long[..], &["--max-bad-ratio", "0.5"]].concat());
    let second = world.worker(&long);
    second.wait_until_assigned();
    let bad: Vec<Outgoing> =
        (0..1000).flat_map(|_| (0..2).map(|id| Outgoing::new("g", b"bad").to(id))).collect();
    world.produce(&bad);
    until("it ends", || !first.is_running());
    world.wait_until_worked();
    second.stop();
    first.wait().refused(1, &["--max-bad-ratio"]);
}
