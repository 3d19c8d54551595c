//! The alarm state of a generator lives in the state topic and moves with its partition.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::oracle::log::Stored;
use crate::verify;
use crate::world::records::Outgoing;
use crate::world::{PATIENCE, World, until};

/// Rule and state of each alert, in order.
fn told(alerts: &[Value]) -> Vec<String> {
    alerts.iter().map(|alert| format!("{} {}", alert["rule"], alert["state"]).replace('"', "")).collect()
}

#[test]
fn a_tombstone_clears_what_is_active_and_deletes_the_state() {
    let world = World::new(2);
    world.produce(&[
        Outgoing::reading("hot and empty", 120.0, 100.0),
        Outgoing::reading("calm", 80.0, 500.0),
        Outgoing::tombstone("hot and empty"),
        Outgoing::tombstone("calm"),
        Outgoing::tombstone("never seen"),
        Outgoing::reading("hot and empty", 80.0, 100.0),
        Outgoing::tombstone("hot and empty"),
    ]);

    world.work_to_the_end(&[]);

    verify::all(&world);
    let alerts = world.alerts();
    let expected = [
        "low_fuel raised",
        "over_temperature raised",
        "low_fuel cleared",
        "over_temperature cleared",
        "low_fuel raised",
        "low_fuel cleared",
    ];
    assert_eq!(told(&alerts), expected);
    assert!(alerts[2..4].iter().all(|alert| alert["reason"] == "decommissioned"), "{alerts:#?}");
    let states = world.read(&world.state_topic());
    assert!(states.compacted().is_empty());
    // A decommissioned state each time; whether the first one is deleted before its generator is back depends on when
    // commits happen.
    let decommissioned = |record: &&Stored| record.value.is_some() && record.json()["decommissioned"] == true;
    assert_eq!(states.iter().filter(decommissioned).count(), 2);
    assert!(states.iter().last().expect("states").value.is_none(), "deleted behind the offset");
}

#[test]
fn an_alarm_is_not_raised_again_by_the_next_owner_of_its_partition() {
    let world = World::new(3);
    let first = world.working(&[]);
    raise_and_leave(&world, || drop(first.stop()));
}

#[test]
fn an_alarm_is_not_raised_again_after_its_owner_was_killed() {
    let world = World::new(3);
    let first = world.working(&["-X", "session.timeout.ms=6000"]);
    raise_and_leave(&world, || first.kill());
}

fn raise_and_leave(world: &World, leave: impl FnOnce()) {
    world.produce(&[Outgoing::reading("g", 80.0, 199.0)]);
    until("it's raised", || world.alerts().len() == 1);
    leave();
    world.produce(&[Outgoing::reading("g", 80.0, 150.0), Outgoing::reading("g", 80.0, 225.0)]);

    let second = world.working(&[]);
    world.wait_until_worked();
    assert_eq!(told(&world.alerts()), ["low_fuel raised"]);
    world.produce(&[Outgoing::reading("g", 80.0, 251.0)]);
    world.wait_until_worked();
    second.stop();

    assert_eq!(told(&world.alerts()), ["low_fuel raised", "low_fuel cleared"]);
    verify::all(world);
}

#[test]
fn a_restarted_group_goes_on_where_it_was() {
    let world = World::new(4);
    let readings = crate::world::records::stormy_readings(40, 4000);
    for part in readings.chunks(700) {
        world.produce(part);
        world.work_to_the_end(&[]);
    }
    assert!(verify::all(&world).alert_count() > 300);
}

/// No worker lives long enough to miss the generator by itself.
#[test]
fn a_silence_is_noticed_by_workers_that_come_and_go() {
    let world = World::new(1);
    let rules = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[rule]]\nname = \"gone\"\nseverity = \"info\"\nsilent_for = \"15s\"\n";
    std::fs::write(rules.path(), text).expect("written");
    let rules = rules.path().to_str().expect("a path");
    world.produce(&[Outgoing::reading("g", 70.0, 900.0)]);
    let reported = world.readings().iter().next().expect("a reading").timestamp;
    let begun = Instant::now();
    let alert = loop {
        assert!(begun.elapsed() < PATIENCE, "no worker raises the alarm");
        let worker = world.working(&["--rules", rules]);
        let lives_until = Instant::now() + Duration::from_secs(5);
        let found = loop {
            match world.alerts().into_iter().next() {
                None if Instant::now() < lives_until => std::thread::sleep(Duration::from_millis(200)),
                found => break found,
            }
        };
        worker.stop();
        if let Some(alert) = found {
            break alert;
        }
    };
    assert_eq!((alert["generatorID"].as_str(), alert["reason"].as_str()), (Some("g"), Some("silent")));
    // A worker records the last time that it heard of a generator at most every ten seconds; the first one may have
    // begun late.
    let since = alert["since"].as_i64().expect("a time") - reported;
    assert!((0..=30_000).contains(&since), "since {since} ms after its last reading");
}

#[test]
fn a_generator_that_is_silent_for_too_long_is_forgotten_and_begins_anew() {
    is_forgotten("exactly-once");
}

#[test]
fn a_generator_that_is_silent_for_too_long_is_forgotten_at_least_once() {
    is_forgotten("at-least-once");
}

/// The first worker misses it, the second one forgets it, the third one doesn't know it.
fn is_forgotten(delivery: &str) {
    let world = World::new(1);
    let rules = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[rule]]\nname = \"gone\"\nsilent_for = \"2s\"\n\
                [[rule]]\nname = \"low_fuel\"\nfield = \"fuel\"\nraise_below = 200.0\n";
    std::fs::write(rules.path(), text).expect("written");
    let rules = rules.path().to_str().expect("a path");
    let missing = ["--rules", rules, "--delivery", delivery];
    let arguments = [&missing[..], &["--forget-silent-after", "4s"]].concat();
    world.produce(&[Outgoing::reading("g", 70.0, 100.0)]);
    let first = world.working(&missing);
    until("it's missed", || world.alerts().len() == 2);
    first.stop();

    let second = world.working(&arguments);
    until("its state is deleted", || world.read(&world.state_topic()).compacted().is_empty());
    second.stop();
    let alerts = world.alerts();
    assert_eq!(told(&alerts), ["low_fuel raised", "gone raised", "gone cleared", "low_fuel cleared"]);
    for alert in &alerts[2..] {
        assert_eq!((alert["reason"].as_str(), &alert["value"]), (Some("decommissioned"), &Value::Null));
        assert_eq!(alert["source"]["offset"], 0, "the last reading");
        assert!(alert["id"].as_str().expect("an id").ends_with("-forgotten"), "{alert}");
        let silence = alert["at"].as_i64().zip(alert["since"].as_i64()).map(|(at, since)| at - since);
        assert!(silence >= Some(4_000), "{alert}");
    }

    let third = world.working(&arguments);
    world.produce(&[Outgoing::reading("h", 70.0, 900.0)]);
    until("the other one is missed", || world.alerts().len() == 5);
    until("and forgotten", || world.alerts().len() == 6);
    world.produce(&[Outgoing::reading("g", 70.0, 100.0)]);
    until("it's raised", || world.alerts().len() > 6);
    third.stop();
    let alerts = world.alerts();
    assert!(alerts[4..6].iter().all(|alert| alert["generatorID"] == "h"), "{alerts:#?}");
    assert_eq!(told(&alerts[6..7]), ["low_fuel raised"], "as of a new one");
}
