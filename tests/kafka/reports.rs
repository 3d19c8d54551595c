//! What workers, bridges and sinks say of themselves in `<group>_workers`.

use serde_json::Value;

use crate::world::influx::{Influx, TOKEN};
use crate::world::mosquitto::Mosquitto;
use crate::world::process::Process;
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, http, until, until_some};

/// The records of the topic: key, and what was said; `None` is a tombstone.
fn reports(world: &World) -> Vec<(String, Option<Value>)> {
    let of = |value: Vec<u8>| {
        assert!(value.len() <= 2048, "{} bytes", value.len());
        serde_json::from_slice(&value).expect("a report")
    };
    let records = world.read(&world.workers_topic());
    records.0.into_iter().map(|record| (text(record.key.expect("a key")), record.value.map(of))).collect()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// The last record of the worker whose process this is.
fn last_of(world: &World, process: &Process) -> Option<Option<Value>> {
    let is_own = |worker: &str| worker.ends_with(&format!("-{}", process.id()));
    reports(world).into_iter().rev().find(|(worker, _)| is_own(worker)).map(|(_, said)| said)
}

/// The loads that it has reported.
fn loads_of(world: &World, process: &Process) -> Vec<Value> {
    let is_own = |worker: &str| worker.ends_with(&format!("-{}", process.id()));
    let own = reports(world).into_iter().filter(|(worker, _)| is_own(worker));
    own.filter_map(|(_, said)| Some(said?["load"].clone())).collect()
}

fn phases(report: &Value) -> Vec<(i64, String)> {
    let held = report["partitions"].as_array().expect("partitions").iter();
    held.map(|of| (of["partition"].as_i64().unwrap(), of["phase"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_worker_says_what_it_holds_and_takes_it_back_when_it_leaves() {
    let world = World::new(4);
    world.produce(&stormy_readings(20, 400));
    let first = world.working(&[]);
    let said = until_some("the worker has reported all four partitions and all readings", || {
        last_of(&world, &first)?.filter(|said| said["records"] == 400 && said["held"] == "0-3")
    });
    assert_eq!(said["kind"], "worker");
    assert_eq!(said["group"], world.group.as_str());
    let ready = phases(&said);
    assert_eq!(ready.iter().filter(|(_, phase)| phase == "active").count(), 4, "{said}");
    let positions: i64 =
        said["partitions"].as_array().unwrap().iter().map(|of| of["position"].as_i64().unwrap()).sum();
    assert_eq!(positions, 400);

    let second = world.working(&[]);
    let (mine, others) = until_some("both hold two", || {
        let (first, second) = (last_of(&world, &first)??, last_of(&world, &second)??);
        let two = |of: &Value| phases(of).iter().filter(|(_, phase)| phase == "active").count() == 2;
        (two(&first) && two(&second)).then_some((first, second))
    });
    // The hand-over: given up before it was restored by the other.
    let released = mine["released"].as_array().expect("released partitions");
    for of in others["partitions"].as_array().unwrap() {
        let given = released.iter().find(|gone| gone["partition"] == of["partition"]).expect("given up");
        let (until, from) = (given["at"].as_i64().unwrap(), of["since"].as_i64().unwrap());
        assert!(until <= from, "{given} {of}");
        assert!(of["assigned"].as_i64().unwrap() <= from, "{of}");
    }

    first.stop();
    assert_eq!(reports(&world).iter().filter(|(_, said)| said.is_none()).count(), 1, "a tombstone");
    // Without a farewell.
    let name = format!("-{}", second.id());
    second.kill();
    let last = reports(&world).into_iter().rev().find(|(worker, _)| worker.ends_with(&name)).unwrap();
    assert!(last.1.is_some(), "a killed worker takes nothing back");
}

/// The backlog of a worker with four lanes: each reading takes 2 ms.
const LANES: [&str; 8] =
    ["--work", "2ms", "--concurrency", "4", "--max-in-flight", "400", "--http", "127.0.0.1:0"];

#[test]
fn a_worker_with_a_hot_generator_names_it_and_says_that_its_lanes_are_idle() {
    let world = World::new(1);
    let name = |reading: u32| match reading % 10 {
        ..7 => "hot".to_owned(),
        _ => format!("gen-{}", reading % 97),
    };
    let readings: Vec<_> =
        (0..10_000).map(|reading| Outgoing::reading(&name(reading), 80.0, 500.0)).collect();
    world.produce(&readings);
    let worker = world.working(&LANES);

    // Until the room for readings is full of those of the hot one, the lanes are busy with the others'.
    let load = until_some("its room is full of readings of the hot one", || {
        let number = |load: &Value, name: &str| load[name].as_f64().unwrap_or_default();
        let is_told = |load: &Value| {
            let share = number(&load["top"][0], "share");
            (0.6..0.8).contains(&share)
                && (0.002..0.006).contains(&number(load, "work"))
                // One lane for the hot one, half a lane for all others.
                && (0.2..0.6).contains(&number(load, "lanes_busy"))
                && number(load, "full") > 0.5
        };
        loads_of(&world, &worker).into_iter().find(is_told)
    });

    assert_eq!((&load["lanes"], &load["top"][0]["id"]), (&4.into(), &"hot".into()), "{load}");
    assert!(load["top"].as_array().unwrap().len() <= 5, "{load}");
    let cores = load["cores"].as_f64().unwrap();
    assert!((0.0..1024.0).contains(&cores), "{load}");
    let page = http::get(&worker.http(), "/metrics").1;
    let share = http::samples(&page, "genwatch_top_generator_share")[0].1;
    assert!((0.5..0.9).contains(&share), "{share}");
    worker.kill();
}

#[test]
fn a_worker_with_a_backlog_of_many_generators_says_that_its_lanes_are_busy() {
    let world = World::new(2);
    let name = |reading: u32| format!("gen-{}", reading % 40);
    let readings: Vec<_> =
        (0..12_000).map(|reading| Outgoing::reading(&name(reading), 80.0, 500.0)).collect();
    world.produce(&readings);
    let worker = world.working(&LANES);
    let load = until_some("its lanes are busy", || {
        let is_busy = |load: &Value| load["lanes_busy"].as_f64().is_some_and(|share| share > 0.8);
        loads_of(&world, &worker).into_iter().find(is_busy)
    });
    assert_eq!(load["lanes"], 4);
    for top in load["top"].as_array().unwrap() {
        assert!(top["share"].as_f64().unwrap() < 0.1, "all have as many: {load}");
    }
    worker.kill();
}

#[test]
fn who_is_idle_reports_seldom_and_in_time() {
    let world = World::new(1);
    let worker = world.working(&[]);
    until("it has said that it is idle", || {
        last_of(&world, &worker).flatten().is_some_and(|said| said["every"] == 10_000 && said["held"] == "0")
    });
    let before = reports(&world).len();
    until("it has reported again", || reports(&world).len() > before);
    let said: Vec<Value> = reports(&world).into_iter().filter_map(|(_, said)| said).collect();
    for pair in said.windows(2) {
        let (gap, promised) =
            (pair[1]["at"].as_i64().unwrap() - pair[0]["at"].as_i64().unwrap(), &pair[0]["every"]);
        assert!(gap >= 900, "more than one a second: {gap} ms");
        assert!(gap <= promised.as_i64().unwrap() + 2000, "it promised {promised}, and took {gap} ms");
    }
    let gap = said[said.len() - 1]["at"].as_i64().unwrap() - said[said.len() - 2]["at"].as_i64().unwrap();
    assert!(gap > 5000, "nothing changes, and it reports after {gap} ms");
    worker.stop();
}

#[test]
fn a_bridge_and_a_sink_report_too() {
    let world = World::new(1);
    world.produce(&stormy_readings(5, 100));
    let (mqtt, influx) = (Mosquitto::start(), Influx::start());
    let (url, name) = (mqtt.url(), format!("{}-bridge", world.group));
    let bridge = world.start("bridge", &["--mqtt", &url, "--client-id", &name]);
    let database = ["--url", &influx.url, "--org", "o", "--bucket", "b", "--token", TOKEN];
    let sink = world.start("sink influx", &database);
    let (of_bridge, of_sink) = until_some("both have reported", || {
        let reports = reports(&world);
        let last = |kind: &str, is: &dyn Fn(&Value) -> bool| {
            let all = reports.iter().rev().filter_map(|(_, said)| said.clone());
            all.into_iter().find(|said| said["kind"] == kind && is(said))
        };
        let is_ready = |said: &Value| said["not_ready"].is_null();
        Some((last("bridge", &is_ready)?, last("sink", &|said| is_ready(said) && said["records"] == 100)?))
    });
    assert_eq!(of_bridge["worker"], name.as_str());
    assert!(of_bridge["peer"].as_str().unwrap().contains(&mqtt.port().to_string()), "{of_bridge}");
    assert_eq!(of_sink["group"], format!("{}_influx", world.group));
    assert!(of_sink["peer"].as_str().unwrap().starts_with("http://"), "{of_sink}");
    assert_eq!(of_sink["held"], "0");
    let others = of_sink["partitions"].as_array().unwrap().iter().filter(|of| !of["topic"].is_null());
    assert_eq!(others.count(), 2, "alerts and aggregates: {of_sink}");
    bridge.stop();
    sink.stop();
    assert_eq!(reports(&world).iter().filter(|(_, said)| said.is_none()).count(), 2, "both have left");
}

#[test]
fn without_its_topic_a_worker_works_and_makes_it() {
    let world = World::new(1);
    world.delete(&world.workers_topic());
    world.produce(&stormy_readings(5, 100));
    let worker = world.working(&[]);
    world.wait_until_worked();
    until("the topic is there, with a report", || {
        // Reading a topic that isn't there fails: ask the cluster first.
        let described = world.run("topics describe", &["--json"]);
        described.code == Some(0) && last_of(&world, &worker).is_some()
    });
    worker.stop();
}
