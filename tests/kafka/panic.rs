//! A panic in a handler ends the process loudly, and nothing past it is committed.
//!
//! No option of the binary makes it panic, so the process is this test binary itself: it runs one worker by the
//! library, with a handler whose time overflows.

use std::process::{Command, Stdio};
use std::time::Duration;

use genwatch::service::{self, Context};
use genwatch::worker::WorkerConfig;
use genwatch::worker::work::{Delays, DelaysConfig};
use genwatch_core::alarm::detector::Detector;
use genwatch_core::alarm::rules::Rules;
use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::start::{OnNewTopic, OnOutOfRange, Policies};
use genwatch_core::pool::Bounds;
use genwatch_kafka::config::{Connection, GroupProtocol};
use genwatch_kafka::topics::Topics;

use crate::verify;
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, until};

const TEST: &str = "panic::a_panic_in_a_handler_ends_the_process_with_nothing_committed_past_it";
/// `brokers topic group`, for the process that is to panic.
const WORLD: &str = "PANICKING_WORKER_OF";

#[test]
fn a_panic_in_a_handler_ends_the_process_with_nothing_committed_past_it() {
    if let Ok(world) = std::env::var(WORLD) {
        return panic_on_purpose(&world);
    }
    let world = World::new(1);
    world.produce(&stormy_readings(20, 400));
    let mut worker = Command::new(std::env::current_exe().unwrap());
    worker.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
    worker.env(WORLD, format!("{} {} {}", world.brokers, world.topic, world.group));
    let mut worker = worker.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("what came before is committed", || world.progress().done() == 400);

    world.produce(&[Outgoing::reading("overflow", 80.0, 100.0)]);
    world.produce(&stormy_readings(20, 400));

    until("the process has ended", || worker.try_wait().unwrap().is_some());
    let ended = worker.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(101), "{told}");
    assert!(told.contains("overflow when adding duration to instant"), "what happened: {told}");
    assert!(told.contains("this is a bug"), "{told}");
    assert_eq!(world.progress().done(), 400, "nothing past the panic");

    world.work_to_the_end(&[]);
    verify::all(&world);
}

fn panic_on_purpose(world: &str) {
    let [brokers, topic, group] = world.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let config = WorkerConfig {
        connection: Connection::new(brokers, &[]).unwrap(),
        topics: Topics::new(topic, group).of_alarms(),
        group: group.to_owned(),
        reports: Topics::new(topic, group).workers,
        delivery: Delivery::ExactlyOnce,
        commit_interval: Duration::from_millis(10),
        protocol: GroupProtocol::Classic,
        rate_limit: None,
        exit_at_end: false,
        drain_timeout: Duration::from_secs(5),
        policies: Policies { on_out_of_range: OnOutOfRange::Fail, on_new_topic: OnNewTopic::Fail },
        max_bad_ratio: None,
        threads: 1,
        bounds: Bounds { records: 10_000, bytes: 64 << 20 },
        name: "panics".to_owned(),
        fleet: None,
    };
    let work = Delays::new(DelaysConfig {
        concurrency: 8,
        work: Duration::from_millis(1),
        work_of: [("overflow".to_owned(), Duration::MAX)].into(),
        work_timeout: None,
    });
    let detector = Detector::new(Rules::default());
    service::panic::end_at_a_panic();
    // On its own thread: a panic that ended only a thread would leave the process running.
    let worker =
        std::thread::spawn(move || genwatch::worker::run(config, detector, work, Context::default()));
    let outcome = worker.join();
    panic!("the process went on after a panic: {outcome:?}");
}
