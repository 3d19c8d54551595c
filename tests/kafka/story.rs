//! The purpose of genwatch: a thousand readings a second are too many for one serial worker.
//!
//! One worker that can do 500 a second falls behind; a second one holds the rate; a third one catches up; and one
//! worker that processes 64 generators at once does it alone. Machines differ and are busy, so the test asserts ratios
//! of measurements of the same run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use genwatch_oracle::NaiveRule;

use crate::oracle;
use crate::verify;
use crate::world::process::Process;
use crate::world::records::Group;
use crate::world::{World, until};

const SERIAL: [&str; 4] = ["--work", "2ms", "--concurrency", "1"];
const CONCURRENT: [&str; 4] = ["--work", "2ms", "--concurrency", "64"];

/// The changes between two looks at the group.
struct Stretch {
    produced: f64,
    processed: f64,
    lag_before: i64,
    lag_after: i64,
}

impl Stretch {
    /// Looks twice, `length` apart.
    fn measure(world: &World, length: Duration) -> Stretch {
        let (before, begun) = (world.progress(), Instant::now());
        std::thread::sleep(length);
        let (after, seconds) = (world.progress(), begun.elapsed().as_secs_f64());
        Stretch::between(&before, &after, seconds)
    }

    fn between(before: &Group, after: &Group, seconds: f64) -> Stretch {
        Stretch {
            produced: (after.end() - before.end()) as f64 / seconds,
            processed: (after.done() - before.done()) as f64 / seconds,
            lag_before: before.lag(),
            lag_after: after.lag(),
        }
    }

    /// Processed readings per produced reading.
    fn ratio(&self) -> f64 {
        self.processed / self.produced
    }

    fn print(&self, replicas: &str) {
        println!(
            "{replicas:<24} {:>10.0} {:>11.0} {:>6.2} {:>10} {:>9}",
            self.produced,
            self.processed,
            self.ratio(),
            self.lag_before,
            self.lag_after
        );
    }
}

/// Readings of the trial.
const TRIAL: u64 = 1000;

/// 1,000 a second, of which one serial worker does about 500 and three can catch up; less on a machine that is too busy
/// for that.
fn demanding_rate(world: &World) -> u32 {
    let readings = TRIAL.to_string();
    let trial = || {
        world
            .run("simulate", &["--rate", "0", "--count", &readings, "--generators", "1000", "--seed", "3"])
            .success();
        let told = world.work_to_the_end(&SERIAL).json();
        told["records"].as_f64().unwrap() / told["seconds"].as_f64().unwrap()
    };
    // The better of two: at too low a rate, two would catch up before a third is there.
    let alone = trial().max(trial());
    println!("one serial worker does {alone:.0} a second");
    if 3.0 * alone > 1300.0 { 1000 } else { (1.8 * alone) as u32 }
}

/// Waits until the group has given each of them a share, and no partition is moving.
fn until_shared(workers: &[&Process]) {
    until("each has its share", || {
        let had = workers.iter().map(|worker| count(&worker.assignments()) - count(&worker.revocations()));
        let had: Vec<usize> = had.collect();
        had.iter().sum::<usize>() == 12 && had.iter().all(|had| *had == 12 / workers.len())
    });
}

/// How many partitions are in lists such as `0-2, 5`.
fn count(ranges: &[String]) -> usize {
    let ranges = ranges.iter().flat_map(|ranges| ranges.split(", ")).filter(|range| !range.is_empty());
    ranges
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            last.parse::<usize>().unwrap() + 1 - first.parse::<usize>().unwrap()
        })
        .sum()
}

/// With a rule that fires at each reading later than the one before, the alerts show the order in which readings are
/// evaluated. Measured alone on the machine.
mod alone {
    use super::*;

    #[test]
    fn one_serial_replica_falls_behind_a_second_holds_a_third_catches_up_and_one_concurrent_does_it_alone() {
        let world = World::alone(12);
        let rate = demanding_rate(&world).to_string();
        let simulator = world.start("simulate", &["--rate", &rate, "--generators", "1000", "--seed", "3"]);
        println!(
            "{:<24} {:>10} {:>11} {:>6} {:>10} {:>9}",
            "workers", "produced/s", "processed/s", "ratio", "lag before", "lag after"
        );
        let growth = |stretch: &Stretch| stretch.lag_after - stretch.lag_before;

        let first = world.working(&SERIAL);
        let begun = world.progress().done();
        until("the first is at work", || world.progress().done() > begun);
        let one = Stretch::measure(&world, Duration::from_secs(8));
        one.print("1 serial");
        assert!(one.ratio() < 0.8 && growth(&one) > 0, "one serial worker falls behind");

        let second = world.working(&SERIAL);
        until_shared(&[&first, &second]);
        let two = Stretch::measure(&world, Duration::from_secs(8));
        two.print("2 serial");
        assert!(two.processed > 1.4 * one.processed, "two do nearly twice as much");
        assert!(growth(&two) < growth(&one) / 2, "the lag has stopped growing, or nearly");

        let third = world.working(&SERIAL);
        until_shared(&[&first, &second, &third]);
        let (before, begun) = (world.progress(), Instant::now());
        until("the backlog is gone, as three do more than is produced", || world.progress().lag() < 300);
        let three = Stretch::between(&before, &world.progress(), begun.elapsed().as_secs_f64());
        three.print("3 serial");
        assert!(three.processed > 1.8 * one.processed, "three do nearly three times as much");

        let serial: u64 = [first, second, third].map(|worker| worker.stop().number("records")).iter().sum();
        let alone = world.working(&CONCURRENT);
        until("the concurrent one has caught up", || world.progress().lag() < 300);
        let concurrent = Stretch::measure(&world, Duration::from_secs(8));
        concurrent.print("1 with --concurrency 64");
        assert!(
            concurrent.processed > 1.4 * one.processed,
            "one concurrent worker does far more than a serial one"
        );
        until("and it holds the rate", || world.progress().lag() < 300);

        simulator.signal("TERM");
        let sent = simulator.wait().success().number("sent");
        world.wait_until_worked();
        assert_eq!(serial + alone.stop().number("records"), sent);
        let expected = verify::all(&world);
        println!(
            "{sent} readings, {} alerts, each verified, in order for each generator",
            expected.alert_count()
        );
    }
}

#[test]
fn every_reading_is_evaluated_once_and_in_order_while_replicas_come_and_go() {
    let world = World::new(6);
    let rules = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let rule =
        "[[rule]]\nname = \"every\"\nfield = \"temperature\"\nraise_above = -1000\nrealarm = \"1ms\"\n";
    std::fs::write(rules.path(), rule).unwrap();
    let rules = ["--rules", rules.path().to_str().unwrap(), "--work", "2ms", "--concurrency", "16"];
    world.produce(&crate::world::records::stormy_readings(200, 20_000));

    let mut workers = vec![world.working(&rules)];
    for step in 1..4 {
        until("it goes on", || world.progress().done() > 4000 * step);
        workers.push(world.working(&rules));
        if step == 2 {
            workers.remove(0).stop();
        }
    }
    world.wait_until_worked();
    for worker in workers {
        worker.stop();
    }

    let mut evaluated: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for alert in world.alerts() {
        let generator = alert["generatorID"].as_str().unwrap().to_owned();
        evaluated.entry(generator).or_default().push(alert["source"]["offset"].as_i64().unwrap());
    }
    let readings = world.readings();
    let expected = oracle::evaluate(&world.topic, &readings, &NaiveRule::built_in()).readings;
    assert_eq!(readings.len(), 20_000);
    for (generator, offsets) in &expected {
        assert_eq!(evaluated.get(generator), Some(offsets), "of {generator}");
    }
    assert_eq!(evaluated.len(), expected.len());
}
