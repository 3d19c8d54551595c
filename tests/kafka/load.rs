//! Backlogs, slow generators, floods: a worker's memory, and that it delays no other generator.

use std::io::Write as _;

use genwatch_oracle::NaiveRule;
use rand::{Rng as _, SeedableRng as _};

use crate::oracle;
use crate::oracle::log::Stored;
use crate::verify;
use crate::world::broker::Cluster;
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, http, relay, until};

/// How many readings the backlog has; the promise says ten million, a test run can afford two million.
fn backlog() -> u64 {
    std::env::var("GENWATCH_LOAD_RECORDS").map_or(2_000_000, |count| count.parse().expect("a number"))
}

/// The most memory that a process has held, in MiB.
fn peak_memory_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1024
}

/// librdkafka's queue is always full then.
#[test]
fn no_partition_starves_behind_a_worker_that_is_too_slow() {
    let world = World::new(12);
    world.run("simulate", &["--rate", "0", "--count", "2000000", "--generators", "1000"]).success();
    let _worker = world.working(&["--rate-limit", "50000"]);
    // Each partition's first fetch comes before the queue is full.
    until("the queue is full", || world.progress().done() >= 200_000);
    let before = world.progress();
    until("it has gone on for a while", || world.progress().done() >= before.done() + 250_000);
    let after = world.progress();
    let stands_still = |id: &&i32| after.partitions[*id].0 == before.partitions[*id].0;
    let starved: Vec<&i32> = before.partitions.keys().filter(stands_still).collect();
    assert!(starved.is_empty(), "{starved:?}: {before:?}, {after:?}");
}

/// Measured alone on the machine.
mod alone {
    use super::*;

    #[test]
    fn a_backlog_is_drained_in_bounded_memory() {
        let world = World::alone(6);
        let count = backlog().to_string();
        world.run("simulate", &["--rate", "0", "--count", &count, "--generators", "10000"]).success();
        let worker = world.working(&[]);
        world.wait_until_worked();
        let peak = peak_memory_mib(worker.id());
        let ended = worker.stop();
        let rate = ended.json()["records_per_second"].as_f64().unwrap_or_default();
        println!("{count} readings drained, exactly-once: {rate:.0}/s, peak memory {peak} MiB");
        assert_eq!(ended.number("records"), backlog());
        assert!(peak < 256, "{peak} MiB");
    }

    #[test]
    fn a_hundred_thousand_generators_are_restored() {
        let world = World::alone(6);
        let mut rules = tempfile::NamedTempFile::new().expect("a file");
        // A deadman rule keeps each generator that it has seen.
        writeln!(rules, "[[rule]]\nname = \"gone\"\nsilent_for = \"1h\"").expect("written");
        let rules = rules.path().to_str().expect("a path");
        world.run("simulate", &["--rate", "0", "--count", "100000", "--generators", "100000"]).success();
        world.work_to_the_end(&["--rules", rules]);
        assert_eq!(world.read(&world.state_topic()).compacted().len(), 100_000);

        let next = world.working(&["--rules", rules, "--http", "127.0.0.1:0"]);
        until("the next owner is ready", || http::get(&next.http(), "/readyz").0 == 200);
        let page = http::get(&next.http(), "/metrics").1;
        let seconds = http::samples(&page, "genwatch_restore_seconds")[0].1;
        println!("100000 generators restored in {seconds:.2} s");
        assert!(seconds > 0.0);
        next.stop();
        assert_eq!(world.read(&world.state_topic()).len(), 100_000, "no generator was new to the next owner");
    }
}

#[test]
fn a_slow_generator_holds_up_only_itself() {
    let world = World::new(1);
    world.produce(&[Outgoing::reading("slow", 70.0, 900.0)]);
    world.produce(&stormy_readings(20, 2000));
    let expected = oracle::evaluate(&world.topic, &world.readings(), &NaiveRule::built_in());
    assert!(expected.alert_count() > 0 && !expected.alerts.contains_key("slow"));
    let worker = world.working(&["--work", "1ms", "--work-of", "slow=20s"]);
    until("the alerts of all others are visible", || world.alerts().len() == expected.alert_count());
    oracle::check_alerts(&expected, world.alerts());
    assert_eq!(world.progress().done(), 0, "the slow one, which comes first, is still being processed");
    world.wait_until_worked();
    worker.stop();
    verify::all(&world);
}

#[test]
fn work_that_hangs_is_cut_short_and_its_reading_evaluated() {
    let world = World::new(1);
    world.produce(&[1.0, 900.0, 2.0].map(|fuel| Outgoing::reading("hangs", 70.0, fuel)));
    world.produce(&stormy_readings(20, 500));
    let work = ["--work", "1ms", "--work-of", "hangs=1h", "--work-timeout", "300ms"];
    let worker = world.working(&[&work[..], &["--http", "127.0.0.1:0"]].concat());
    world.wait_until_worked();
    let page = http::get(&worker.http(), "/metrics").1;
    assert_eq!(http::samples(&page, "genwatch_work_timeouts_total")[0].1, 3.0);
    worker.stop();
    verify::all(&world);
    let alerts = world.alerts();
    assert_eq!(
        alerts.iter().filter(|alert| alert["generatorID"] == "hangs").count(),
        3,
        "raised, cleared, raised"
    );
}

#[test]
fn a_backlog_leaves_in_parts_over_a_link_that_is_too_slow_for_it() {
    // Some 12 MB of dead letters take 12 s, and a transaction may last 3 s.
    let (cluster, here, there) = Cluster::start_behind_a_relay("slow-link", &[]);
    relay::start(here, there, 1e6);
    let mut world = World::in_cluster(&cluster, 2);
    let bad = Outgoing::new("g", "no JSON ".repeat(40).as_bytes());
    world.produce(&[&vec![bad.clone().to(0); 20_000][..], &vec![bad.to(1); 2_000]].concat());
    world.produce(&stormy_readings(20, 2000));
    world.brokers = format!("127.0.0.1:{here}");
    let mut worker = world.working(&["-X", "compression.type=none", "-X", "transaction.timeout.ms=3000"]);
    world.wait_until_worked();
    assert!(worker.is_running());
    let ended = worker.stop();
    assert_eq!(ended.number("dlq"), 22_000);
    let refused =
        ended.stderr.lines().filter(|line| line.contains("WARN") && line.contains("refused")).count();
    println!("{refused} commits were too large for the link");
    assert!(refused > 0, "the link was fast enough: nothing is shown");
    verify::all(&world);
}

#[test]
fn a_full_buffer_holds_up_only_its_partition() {
    let world = World::new(2);
    world.produce(&[Outgoing::reading("slow", 70.0, 900.0).to(0)]);
    let readings =
        |partition| stormy_readings(20, 3000).into_iter().map(move |reading| reading.to(partition));
    world.produce(&readings(0).collect::<Vec<_>>());
    let elsewhere = |mut reading: Outgoing| {
        let text = String::from_utf8(reading.value.take().expect("a value")).expect("text");
        reading.value =
            Some(text.replace("\"generator", "\"other").replace("\"otherID", "\"generatorID").into());
        reading.key =
            reading.key.map(|key| String::from_utf8(key).expect("text").replace("generator", "other").into());
        reading
    };
    world.produce(&readings(1).map(elsewhere).collect::<Vec<_>>());
    let worker = world.working(&["--work", "1ms", "--work-of", "slow=12s", "--max-in-flight", "400"]);
    until("the other partition is processed to its end", || world.progress().done() == 3000);
    world.wait_until_worked();
    worker.stop();
    verify::all(&world);
}

#[test]
fn a_flood_of_bad_records_stops_a_worker_that_was_told_to_stop() {
    let world = World::new(1);
    world.produce(&vec![Outgoing::new("generator1", b"no reading"); 5000]);
    let refused = world.run("worker", &["--exit-at-end", "--max-bad-ratio", "0.5"]);
    refused.refused(1, &["--max-bad-ratio", &world.dlq_topic()]);
    assert!(
        world.read(&world.dlq_topic()).len() <= 500,
        "the topic was not emptied into the dead letter queue"
    );

    world.work_to_the_end(&[]);
    assert_eq!(
        world.read(&world.dlq_topic()).len(),
        5000,
        "each is there once, as nothing stopped the worker"
    );
}

/// If the topics have the same limit, as older versions of `topics create` made them, a record fits and its dead letter
/// doesn't.
#[test]
fn a_dead_letter_that_does_not_fit_goes_without_its_value_and_says_so() {
    let world = World::new(1);
    world.limit_messages(&world.dlq_topic(), 2 << 20);
    world.limit_messages(&world.topic, 2 << 20);
    let value: Vec<u8> = noise((2 << 20) - 200);
    let small = b"no reading".as_slice();
    let records = [
        Outgoing::new("generator1", small),
        Outgoing::new("generator2", &value),
        Outgoing::new("generator3", small),
        Outgoing::reading("generator4", 70.0, 100.0),
    ];
    for delivery in ["exactly-once", "at-least-once"] {
        world.produce(&records);
        let worker = world.working(&["--delivery", delivery, "-X", "compression.type=none"]);
        world.wait_until_worked();
        let ended = worker.stop();
        assert!(ended.stderr.contains("goes without its value"), "{}", ended.stderr);
    }
    // At-least-once may repeat records of the same batch.
    let mut letters = oracle::without_repeats(&world.read(&world.dlq_topic())).0;
    letters.sort_by_key(|letter| letter.header("dlq.offset").map(str::to_owned));
    let told = |letter: &Stored| {
        let dropped = letter.header("dlq.value.dropped").map(str::to_owned);
        (letter.key().to_owned(), letter.value.as_ref().map(Vec::len), dropped)
    };
    let whole = |key: &str| (key.to_owned(), Some(small.len()), None);
    let bare = ("generator2".to_owned(), None, Some(value.len().to_string()));
    let once = [whole("generator1"), bare, whole("generator3")];
    assert_eq!(letters.iter().map(told).collect::<Vec<_>>(), [&once[..], &once].concat());
    assert_eq!(world.alerts().len(), 1, "the second reading raises nothing again");
}

/// Incompressible bytes; the same each time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut random = rand_pcg::Pcg32::seed_from_u64(7);
    (0..bytes).map(|_| random.random()).collect()
}

#[test]
fn a_record_of_ten_megabytes_is_one_dead_letter() {
    let world = World::new(1);
    let value = vec![b'x'; 10 << 20];
    world.produce(&[Outgoing::new("generator1", &value), Outgoing::reading("generator1", 70.0, 100.0)]);
    let ended = world.work_to_the_end(&[]);
    assert_eq!((ended.number("dlq"), ended.number("alerts")), (1, 1));
    let letters = world.read(&world.dlq_topic());
    let letter = letters.iter().next().expect("a dead letter");
    assert_eq!(letter.header("dlq.error.code"), Some("too_large"));
    assert_eq!(letter.value.as_deref(), Some(&value[..]));
}
