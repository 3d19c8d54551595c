//! An idle process takes next to no CPU time.

use std::fs;
use std::time::{Duration, Instant};

use crate::world::World;
use crate::world::influxdb;
use crate::world::mosquitto::Mosquitto;
use crate::world::process::Process;
use crate::world::records::stormy_readings;
use crate::world::until;

/// The share of a core that an idle process may use.
const MOST: f64 = 0.01;
const WATCHED: Duration = Duration::from_secs(10);

#[test]
fn an_idle_service_takes_less_than_a_hundredth_of_a_core() {
    let world = World::new(6);
    let rules = tempfile::NamedTempFile::new().expect("a file");
    fs::write(rules.path(), "[[rule]]\nname = \"gone\"\nseverity = \"warning\"\nsilent_for = \"1h\"\n")
        .expect("written");
    let rules = rules.path().to_str().expect("a path");
    let worker = |more: &[&str]| {
        let world = world.another(6);
        world.produce(&stormy_readings(60, 300));
        let worker = world.working(&[more, &["--http", "127.0.0.1:0"]].concat());
        world.wait_until_worked();
        worker
    };
    let (mqtt, bucket) = (Mosquitto::start(), influxdb::shared().bucket());
    let idle: Vec<(&str, Process)> = vec![
        ("a worker", worker(&[])),
        ("a worker with a limit", worker(&["--rate-limit", "500"])),
        ("a worker with lanes", worker(&["--work", "2ms", "--work-timeout", "1s"])),
        ("a worker that watches silence", worker(&["--rules", rules])),
        ("a worker at least once", worker(&["--delivery", "at-least-once"])),
        ("a worker by KIP-848", worker(&["--group-protocol", "consumer"])),
        ("a bridge", world.start("bridge", &["--mqtt", &mqtt.url()])),
        (
            "a sink",
            world.start("sink influx", &bucket.options().iter().map(String::as_str).collect::<Vec<_>>()),
        ),
    ];
    until("all have started", || idle.iter().all(|(_, process)| !process.stderr().is_empty()));
    std::thread::sleep(Duration::from_secs(3));
    let mut busy = Vec::new();
    // On a busy machine a single measurement may be too high.
    for _ in 0..3 {
        let times = || idle.iter().map(|(_, process)| cpu_time(process.id())).collect::<Vec<_>>();
        let (begun, before) = (Instant::now(), times());
        std::thread::sleep(WATCHED);
        let (took, after) = (begun.elapsed(), times());
        let share = |n: usize| (after[n] - before[n]).as_secs_f64() / took.as_secs_f64();
        let shares = idle.iter().enumerate().map(|(n, (name, _))| (*name, share(n)));
        busy = shares.filter(|(_, share)| *share > MOST).collect();
        if busy.is_empty() {
            return;
        }
    }
    panic!("these are busy: {busy:.4?}");
}

/// The CPU time of all threads of a process so far.
fn cpu_time(process: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let nanoseconds = |task: fs::DirEntry| -> u64 {
        // A thread may have ended meanwhile.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.map(|task| nanoseconds(task.expect("an entry"))).sum())
}
