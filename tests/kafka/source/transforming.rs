//! `source influx --transform`: rows are changed before they are produced, filtered, sent to other topics, or become
//! dead letters; each of it once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg32;

use super::{now_ns, source, source_to_the_end};
use crate::world::influxdb::shared;
use crate::world::transformations::Transformations;
use crate::world::{World, http, until};

const SECOND: i64 = 1_000_000_000;

/// Drops what has the code 0, fails on a code that is no number, and sends what is of the north elsewhere. A row whose
/// second field InfluxDB hasn't written yet is dropped, too: once it has, the row is another version.
fn steps(north: &str) -> Transformations {
    Transformations::new(&format!(
        r#"
        [[step]]
        kind = "filter"
        when = {{ any = [{{ field = "code", equals = "0" }}, {{ absent = "code" }}, {{ absent = "fuel" }}] }}

        [[step]]
        kind = "cast"
        fields = ["code"]
        to = "integer"

        [[step]]
        kind = "route"
        field = "site"
        regex = "north"
        to = "{north}"
        "#
    ))
}

/// A point, whose fuel is its number.
fn point(number: i64, site: &str, code: &str, nanos: i64) -> String {
    format!("plant,generatorID=g{},site={site} fuel={number}i,code=\"{code}\" {nanos}", number % 10)
}

/// How often each number is in this topic, with the code that it has there.
fn numbers(world: &World, topic: &str) -> BTreeMap<i64, (usize, String)> {
    let mut found: BTreeMap<i64, (usize, String)> = BTreeMap::new();
    for value in world.read(topic).values() {
        let entry = found.entry(value["fuel"].as_i64().expect("a number")).or_default();
        *entry = (entry.0 + 1, value["code"].to_string());
    }
    found
}

fn once(numbers: &[(i64, &str)]) -> BTreeMap<i64, (usize, String)> {
    numbers.iter().map(|(number, code)| (*number, (1, (*code).to_owned()))).collect()
}

#[test]
fn a_row_is_changed_filtered_routed_or_a_dead_letter_and_remembered_as_it_came() {
    let world = World::new(3);
    let (north, bucket) = (world.another(3), shared().bucket());
    let steps = steps(&north.topic);
    let at = (now_ns() - 60 * SECOND) / 1_000_000 * 1_000_000;
    let points = [
        point(1, "south", "7", at),
        point(2, "south", "0", at + 1),
        point(3, "south", "hot", at + 2),
        point(4, "north", "8", at + 3),
    ];
    bucket.write(&points.join("\n"));
    let run = || {
        let ended = source_to_the_end(&world, &bucket, &["--transform", steps.path()]);
        ["rows", "filtered", "dead_letters", "repeats", "late", "commits"].map(|name| ended.number(name))
    };
    assert_eq!(run(), [2, 1, 1, 0, 0, 1]);
    assert_eq!(numbers(&world, &world.topic), once(&[(1, "7")]));
    assert_eq!(numbers(&north, &north.topic), once(&[(4, "8")]));
    let routed = &north.readings().0[0];
    assert_eq!((routed.key(), routed.timestamp), ("g4", at / 1_000_000));
    assert!(routed.headers.is_empty(), "{routed:?}");

    let letters = world.read(&world.dlq_topic());
    let letter = &letters.0[0];
    assert_eq!((letters.len(), letter.key(), letter.timestamp), (1, "g3", at / 1_000_000));
    assert_eq!(letter.json()["code"], "hot", "unchanged");
    let message =
        format!("step 2 (cast, {}:6): field `code` is no integer of 64 bits; found `\"hot\"`", steps.path());
    for (name, value) in [
        ("dlq.topic", world.topic.as_str()),
        ("dlq.source", &world.topic),
        ("dlq.error.code", "transform"),
        ("dlq.error.message", &message),
    ] {
        assert_eq!(letter.header(name), Some(value), "{name}");
    }
    assert!(letter.header("dlq.worker").is_some_and(|worker| !worker.is_empty()));
    assert_eq!(letter.header("dlq.offset"), None);

    assert_eq!(run(), [0, 0, 0, 4, 0, 0], "all four are known");
    // Nothing but its digest is to be committed, and it is no newer than the cursor.
    bucket.write(&point(5, "south", "0", at - SECOND));
    assert_eq!(run(), [0, 1, 0, 4, 0, 1]);
    assert_eq!(run(), [0, 0, 0, 5, 0, 0], "a filtered row is not looked at again");
    // A change makes another version of it, which passes; and one of the row that failed.
    bucket.write(&[point(2, "south", "9", at + 1), point(3, "south", "5", at + 2)].join("\n"));
    assert_eq!(run(), [2, 0, 0, 3, 0, 1]);
    assert_eq!(numbers(&world, &world.topic), once(&[(1, "7"), (2, "9"), (3, "5")]));
    assert_eq!(world.read(&world.dlq_topic()).len(), 1);
}

#[test]
fn metrics_count_what_was_filtered_and_what_failed() {
    let (world, bucket) = (World::new(1), shared().bucket());
    let steps = steps(&world.topic);
    let running = source(&world, &bucket, &["--transform", steps.path(), "--http", "127.0.0.1:0"]);
    let page = running.http();
    let at = now_ns() - SECOND;
    until("the steps are listed", || {
        let page = http::get(&page, "/metrics").1;
        page.contains(r#"genwatch_source_dead_letters_total{step="2-cast"} 0"#)
    });
    bucket.write(&[point(1, "s", "0", at), point(2, "s", "hot", at), point(3, "s", "1", at)].join("\n"));
    until("they are counted", || {
        let page = http::get(&page, "/metrics").1;
        page.contains("genwatch_source_filtered_total 1\n")
            && page.contains(r#"genwatch_source_dead_letters_total{step="2-cast"} 1"#)
            && page.contains("genwatch_source_rows_total 1\n")
    });
    running.wait_until_it_says("a row becomes a dead letter");
    running.stop();
}

#[test]
fn everything_is_where_it_belongs_once_though_the_source_is_killed_while_points_are_written() {
    let seed =
        std::env::var("GENWATCH_TEST_SEED").map_or_else(|_| now_ns() as u64, |seed| seed.parse().unwrap());
    eprintln!("GENWATCH_TEST_SEED={seed}");
    let world = World::new(3);
    let (north, bucket) = (world.another(3), shared().bucket());
    let steps = steps(&north.topic);
    let written: Mutex<Vec<i64>> = Mutex::default();
    let stop = AtomicBool::new(false);
    let options = ["--transform", steps.path(), "--rescan", "3m", "--every", "100ms"];
    let code = |number: i64| match number % 4 {
        0 => "0",
        1 => "hot",
        _ => "7",
    };
    let site = |number: i64| if number % 4 == 3 { "north" } else { "south" };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut random, mut count) = (Pcg32::seed_from_u64(seed), 0);
            while !stop.load(Ordering::Relaxed) {
                let numbers: Vec<i64> = (count..count + random.random_range(1..200)).collect();
                count += numbers.len() as i64;
                let late = if random.random_bool(0.2) { random.random_range(0..120 * SECOND) } else { 0 };
                let line = |number: &i64| {
                    point(*number, site(*number), code(*number), now_ns() - late - number % 1_000_000)
                };
                let lines: Vec<String> = numbers.iter().map(line).collect();
                bucket.write(&lines.join("\n"));
                written.lock().unwrap().extend(numbers);
                std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
            }
        });
        let mut random = Pcg32::seed_from_u64(seed ^ 1);
        for _ in 0..super::killed::kills() {
            let running = source(&world, &bucket, &options);
            let life = random.random_range(20..1500);
            if life > 400 {
                running.wait_until_it_says("producing the rows");
            }
            let begun = Instant::now();
            until("its time is up", || begun.elapsed() > Duration::from_millis(life));
            running.kill();
        }
        stop.store(true, Ordering::Relaxed);
    });
    source_to_the_end(&world, &bucket, &options);
    let written = written.into_inner().unwrap();
    let expected = |rest: &[i64], code: &str| -> BTreeMap<i64, (usize, String)> {
        let those = written.iter().filter(|number| rest.contains(&(*number % 4)));
        those.map(|number| (*number, (1, code.to_owned()))).collect()
    };
    let found =
        [numbers(&world, &world.topic), numbers(&north, &north.topic), numbers(&world, &world.dlq_topic())];
    eprintln!("{} points: {:?} records", written.len(), found.each_ref().map(BTreeMap::len));
    let wanted = [expected(&[2], "7"), expected(&[3], "7"), expected(&[1], "\"hot\"")];
    for ((found, wanted), topic) in found.iter().zip(&wanted).zip(["own", "routed", "dead letters"]) {
        let wrong: Vec<_> = found.iter().filter(|(number, how)| wanted.get(number) != Some(how)).collect();
        let missing: Vec<_> = wanted.keys().filter(|number| !found.contains_key(number)).collect();
        assert!(
            wrong.is_empty() && missing.is_empty(),
            "seed {seed}, {topic}: {} wrong {:?}, {} missing {:?}",
            wrong.len(),
            &wrong[..wrong.len().min(5)],
            missing.len(),
            &missing[..missing.len().min(5)]
        );
    }
}

#[test]
fn a_row_goes_to_topics_that_exist_and_never_to_the_group_s_own() {
    let (world, bucket) = (World::new(1), shared().bucket());
    let other = world.another(1);
    let steps =
        Transformations::new("[[step]]\nkind = \"route\"\nfield = \"code\"\nregex = \"(.*)\"\nto = \"$1\"\n");
    let cursors = format!("{}_sources", world.group);
    let at = now_ns() - SECOND;
    for (number, topic) in [(1, other.topic.as_str()), (2, "nowhere"), (3, &cursors), (4, "no topic")] {
        bucket.write(&point(number, "s", topic, at + number));
    }
    let ended = source_to_the_end(&world, &bucket, &["--transform", steps.path()]);
    assert_eq!([ended.number("rows"), ended.number("dead_letters")], [1, 3], "{ended:#?}");
    assert_eq!(other.readings().len(), 1);
    let letters = world.read(&world.dlq_topic());
    let reasons: Vec<&str> =
        letters.iter().map(|letter| letter.header("dlq.error.message").expect("a reason")).collect();
    assert!(reasons[0].contains("there is no topic nowhere"), "{reasons:?}");
    assert!(reasons[1].contains("the group keeps its own records there"), "{reasons:?}");
    assert!(reasons[2].contains("it can't go to `no topic`"), "{reasons:?}");
    let ended = source_to_the_end(&world, &bucket, &["--transform", steps.path()]);
    assert_eq!(ended.number("repeats"), 4, "its cursor is as it was");
}

#[test]
fn a_dead_letter_that_is_too_large_for_its_topic_goes_without_its_value() {
    let (world, bucket) = (World::new(1), shared().bucket());
    let steps = steps(&world.topic);
    world.configure(&world.dlq_topic(), "max.message.bytes=20000");
    let (at, large) = (now_ns() - SECOND, "x".repeat(30_000));
    let many: Vec<String> =
        (2..60).map(|number| point(number, "s", &"y".repeat(1000), at + number)).collect();
    bucket.write(&[vec![point(1, "s", &large, at)], many].concat().join("\n"));
    let options = ["--transform", steps.path(), "-X", "compression.type=none"];
    let ended = source_to_the_end(&world, &bucket, &options);
    assert_eq!(ended.number("dead_letters"), 59, "{ended:#?}");
    let letters = world.read(&world.dlq_topic());
    let dropped: Vec<_> = letters.iter().filter(|letter| letter.value.is_none()).collect();
    let size: usize = dropped[0].header("dlq.value.dropped").expect("its size").parse().expect("a number");
    assert!(dropped.len() == 1 && size > 30_000, "{dropped:?}");
}

#[test]
fn a_missing_topic_is_named_with_what_to_do() {
    let (world, bucket) = (World::new(1), shared().bucket());
    let cast = steps(&world.topic);
    let options = ["--transform", cast.path(), "--exit-at-end"];
    let running = source(&world, &bucket, &options[..2]);
    running.wait_until_it_says("producing the rows");
    world.delete(&world.dlq_topic());
    running.wait().refused(1, &[&world.dlq_topic(), "genwatch topics create"]);
    let create = format!("genwatch topics create --topic {}", world.topic);
    source(&world, &bucket, &options).wait().refused(1, &[&world.dlq_topic(), "--transform", &create]);
    source_to_the_end(&world, &bucket, &[]);

    let world = World::new(1);
    let nowhere = steps("nowhere");
    source(&world, &bucket, &["--transform", nowhere.path()])
        .wait()
        .refused(1, &["nowhere", "step 3 (route"]);
    let own = steps(&format!("{}_sources", world.group));
    let refused = source(&world, &bucket, &["--transform", own.path()]).wait();
    refused.refused(2, &["step 3 (route", "the group keeps its own records there"]);
}
