//! `sink influx`: what is in Kafka comes to be in InfluxDB, whatever happens on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::world::influx::{Answer, Influx, TOKEN, Write};
use crate::world::process::{Ended, Process};
use crate::world::records::{self, Group, Outgoing, stormy_readings};
use crate::world::{World, http, now_ms, until};

/// The sink's arguments: the usual ones, and others or in place of them.
fn arguments<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = [
        ["--url", url],
        ["--org", "acme"],
        ["--bucket", "plant 1"],
        ["--token", TOKEN],
        ["--linger", "20ms"],
    ];
    let usual = usual.iter().filter(|[name, _]| !more.contains(name));
    usual.flatten().chain(more).copied().collect()
}

fn sink(world: &World, influx: &Influx, more: &[&str]) -> Process {
    world.start("sink influx", &arguments(&influx.url, more))
}

/// Runs a sink to the end of the topics.
fn sink_to_the_end(world: &World, influx: &Influx, more: &[&str]) -> Ended {
    sink(world, influx, &[&["--exit-at-end"], more].concat()).wait().success()
}

/// What the sinks have committed of the readings.
fn progress(world: &World) -> Group {
    progress_of(world, &world.topic)
}

fn progress_of(world: &World, topic: &str) -> Group {
    records::progress(&world.brokers, topic, &format!("{}_influx", world.group))
}

/// So many readings, no two of a generator at the same time.
fn readings(generators: usize, count: usize) -> Vec<Outgoing> {
    let begun = now_ms() - 1_000_000;
    (0..count)
        .map(|n| {
            let reading = Outgoing::reading(&format!("generator{}", n % generators), 80.0, n as f64);
            reading.at(begun + n as i64)
        })
        .collect()
}

/// The identities that the readings in the log must have come to, by where they are.
fn expected(world: &World) -> BTreeMap<(i32, i64), (String, i64)> {
    let records = world.readings();
    let identity = |record: &crate::oracle::log::Stored| {
        let series = format!("{},generatorID={}", world.topic, record.key());
        ((record.partition, record.offset), (series, record.timestamp))
    };
    records.0.iter().map(identity).collect()
}

/// Every reading in the log is a point, and there are no others.
#[track_caller]
fn assert_all_arrived(world: &World, influx: &Influx) {
    let expected: BTreeSet<_> = expected(world).into_values().collect();
    let found: BTreeSet<_> = influx.points().into_keys().collect();
    let missing: Vec<_> = expected.difference(&found).take(5).collect();
    let strange: Vec<_> = found.difference(&expected).take(5).collect();
    assert!(missing.is_empty() && strange.is_empty(), "missing: {missing:?}, strange: {strange:?}");
}

/// Whatever is below a committed offset is a point.
#[track_caller]
fn assert_not_ahead(world: &World, influx: &Influx) {
    let committed = progress(world).partitions;
    let points = influx.points();
    for ((partition, offset), identity) in expected(world) {
        let committed = committed[&partition].0.unwrap_or(0);
        assert!(
            offset >= committed || points.contains_key(&identity),
            "{partition}/{offset} is committed ({committed}) and not written"
        );
    }
}

fn refuse(status: u16, message: &'static str) -> Option<Answer> {
    Some(Answer { status, retry_after: None, message })
}

#[test]
fn readings_alerts_and_aggregates_become_points_once() {
    let world = World::new(3);
    let influx = Influx::start();
    let at = 1_766_400_000_123;
    world.produce(&[
        Outgoing::reading("generator4", 80.0, 150.5).at(at),
        Outgoing::reading("generator4", 80.0, 400.0).at(at + 1000),
        Outgoing::tombstone("generator5").at(at),
    ]);
    world.work_to_the_end(&[]);
    let aggregates = format!("{}_1m", world.topic);
    let aggregate =
        Outgoing::new("generator4", br#"{"generatorID":"generator4","fuel":{"min":150.5},"n":2}"#);
    records::produce(&world.brokers, &aggregates, &[aggregate.at(at)]);

    let ended = sink_to_the_end(&world, &influx, &[]);
    assert_eq!(
        [ended.number("records"), ended.number("points"), ended.number("skipped"), ended.number("retries")],
        [6, 5, 1, 0],
        "{ended:#?}"
    );
    assert!(ended.number("writes") >= 1 && ended.json()["seconds"].as_f64().unwrap() > 0.0, "{ended:#?}");
    assert!(ended.stderr.contains("a tombstone"), "{}", ended.stderr);

    let points = influx.points();
    let topic = &world.topic;
    let fields = |series: String, at: i64| points.get(&(series, at)).cloned().unwrap_or_default();
    assert_eq!(
        fields(format!("{topic},generatorID=generator4"), at),
        "fuel=150.5,lat=40.65995,lon=-111.99633,pressure=198.0,temperature=80.0"
    );
    let alert = |state: &str, at| {
        fields(
            format!("{topic}_alerts,generatorID=generator4,rule=low_fuel,severity=warning,state={state}"),
            at,
        )
    };
    assert!(alert("raised", at).contains("source_offset="), "{points:#?}");
    assert!(alert("raised", at).contains("value=150.5"), "{points:#?}");
    // At the time of the reading, not of when the worker got to it.
    assert!(alert("cleared", at + 1000).contains("value=400.0"), "{points:#?}");
    assert_eq!(fields(format!("{topic}_1m,generatorID=generator4"), at), "fuel_min=150.5,n=2.0");
    assert!(influx.writes().iter().all(|write| write.query == "org=acme&bucket=plant%201&precision=ms"));

    for topic in [topic, &world.alerts_topic(), &aggregates] {
        // Of transactions' markers, too, there's nothing left to read.
        assert_eq!(progress_of(&world, topic).lag(), 0, "{topic}");
    }
    let again = sink_to_the_end(&world, &influx, &[]);
    assert_eq!(again.number("records"), 0);
}

#[test]
fn measurement_and_precision_are_for_users_to_choose() {
    let world = World::new(1);
    let influx = Influx::start();
    world.produce(&[Outgoing::reading("g", 80.0, 1.0).at(1_766_400_000_123)]);
    sink_to_the_end(&world, &influx, &["--measurement", "gensets", "--precision", "s"]);
    let points: Vec<_> = influx.points().into_keys().collect();
    assert_eq!(points, [("gensets,generatorID=g".to_owned(), 1_766_400_000)]);
    assert!(influx.writes()[0].query.ends_with("&precision=s"));
}

#[test]
fn a_sink_that_is_killed_loses_nothing_and_commits_nothing_unwritten() {
    let world = World::new(3);
    let influx = Influx::start();
    world.produce(&readings(50, 20_000));
    // Answers come slowly enough that there is a middle to be killed in.
    influx.answer(|_| {
        std::thread::sleep(Duration::from_millis(10));
        None
    });
    let quick = ["--batch", "200", "-X", "session.timeout.ms=6000"];
    for share in [1, 2, 3] {
        let sink = sink(&world, &influx, &quick);
        until("the sink is in the middle", || influx.points().len() >= share * 4000);
        sink.kill();
        assert_not_ahead(&world, &influx);
    }
    assert!(progress(&world).done() > 0, "it commits as it goes");
    assert!(progress(&world).lag() > 0, "it was killed in the middle");
    sink_to_the_end(&world, &influx, &quick);
    assert_all_arrived(&world, &influx);
    assert_eq!(progress(&world).lag(), 0);
}

#[test]
fn what_is_not_acknowledged_is_not_committed_and_memory_is_bounded() {
    let world = World::new(2);
    let influx = Influx::start();
    let hold = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&hold);
    influx.answer(move |_| {
        until("the test lets go", || !held.load(Ordering::SeqCst));
        None
    });
    hold.store(false, Ordering::SeqCst);
    world.produce(&readings(10, 5000));
    let sink = sink(&world, &influx, &["--batch", "100", "--http", "127.0.0.1:0"]);
    let address = sink.http();
    until("all is written", || progress(&world).lag() == 0);
    hold.store(true, Ordering::SeqCst);
    world.produce(&readings(10, 5000));
    let taken = || total(&http::get(&address, "/metrics").1, "genwatch_sink_records_total");
    until("it holds two batches", || taken() >= 5200.0);
    let committed = progress(&world).done();
    assert_eq!(committed, 5000, "nothing is committed that isn't acknowledged");
    // Paused by now, as this takes longer than it waits before it pauses.
    let until_then = Instant::now() + Duration::from_secs(1);
    until("a second has passed", || Instant::now() > until_then);
    // A record may be on its way when a partition is paused.
    assert!(taken() <= 5210.0, "{} records taken in", taken());
    hold.store(false, Ordering::SeqCst);
    until("all is written", || progress(&world).lag() == 0);
    assert_all_arrived(&world, &influx);
    sink.stop();
}

fn total(page: &str, name: &str) -> f64 {
    http::samples(page, name).iter().map(|(_, value)| value).sum()
}

#[test]
fn two_sinks_share_the_partitions() {
    let world = World::new(4);
    let influx = Influx::start();
    let sinks = [sink(&world, &influx, &[]), sink(&world, &influx, &[])];
    sinks.iter().for_each(Process::wait_until_assigned);
    until("one has given up what the other got", || {
        sinks.iter().any(|sink| !sink.revocations().is_empty())
            || sinks.iter().all(|sink| sink.assignments().len() == 1)
    });
    world.produce(&readings(100, 4000));
    until("all is committed", || progress(&world).lag() == 0);
    assert_all_arrived(&world, &influx);
    let points = sinks.map(|sink| sink.stop().number("points"));
    assert!(points.iter().all(|points| *points > 0), "{points:?}");
    assert_eq!(points.iter().sum::<u64>(), 4000);
}

#[test]
fn an_acknowledgement_that_comes_after_the_partition_has_gone_commits_nothing() {
    let world = World::new(4);
    let influx = Influx::start();
    let held = Arc::new(AtomicUsize::new(0));
    let free = Arc::new(AtomicBool::new(false));
    let (count, let_go) = (Arc::clone(&held), Arc::clone(&free));
    influx.answer(move |write: &Write| {
        if write.query.contains("org=slow") && !write.lines.is_empty() {
            count.fetch_add(1, Ordering::SeqCst);
            until("the test lets go", || let_go.load(Ordering::SeqCst));
        }
        None
    });
    world.produce(&readings(100, 400));
    let slow = sink(&world, &influx, &["--org", "slow", "--linger", "500ms"]);
    until("a batch is under way", || held.load(Ordering::SeqCst) == 1);
    let quick = sink(&world, &influx, &["--org", "quick"]);
    quick.wait_until_assigned();
    world.produce(&readings(100, 4000));
    let gone = || {
        progress(&world).partitions.values().filter(|(committed, _, end)| *committed == Some(*end)).count()
    };
    until("the other sink has written what it was given", || gone() > 0);
    assert!(gone() < 4, "the slow one still has some");
    free.store(true, Ordering::SeqCst);
    // A late commit would set back what the quick one has committed, and nobody would commit that again.
    until("all is committed", || progress(&world).lag() == 0);
    slow.stop();
    quick.stop();
    assert_eq!(progress(&world).lag(), 0);
    assert_all_arrived(&world, &influx);
}

#[test]
fn an_outage_is_waited_out_while_the_group_is_served() {
    let world = World::new(2);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    world.produce(&readings(10, 500));
    // The sink is there before the database is.
    let more = [
        "--batch",
        "50",
        "--http",
        "127.0.0.1:0",
        "-X",
        "max.poll.interval.ms=6000",
        "-X",
        "session.timeout.ms=6000",
    ];
    let mut sink = world.start("sink influx", &arguments(&url, &more));
    let page = sink.http();
    sink.wait_until_it_says("InfluxDB takes no points at the moment");
    sink.wait_until_assigned();
    until("it says what it waits for", || {
        let (status, words) = http::get(&page, "/readyz");
        status == 503 && words.contains("database")
    });
    let begun = Instant::now();
    until("it would have been thrown out of the group", || begun.elapsed() > Duration::from_secs(8));
    assert_eq!(http::get(&page, "/livez").0, 200);
    let influx = Influx::at(address);
    sink.wait_until_it_says("InfluxDB answers again");
    until("all is committed", || progress(&world).lag() == 0);
    assert_eq!(http::get(&page, "/readyz").0, 200);
    assert_all_arrived(&world, &influx);
    assert_eq!(sink.stderr().matches("takes no points").count(), 1, "one line an outage");
    assert_eq!(sink.assignments().len(), 1, "{}", sink.stderr());
    assert!(!sink.stderr().contains("lost="), "{}", sink.stderr());

    // Now it's there and has no time for us.
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    influx.answer(move |_| {
        (count.fetch_add(1, Ordering::SeqCst) == 0).then_some(Answer {
            status: 503,
            retry_after: Some(2),
            message: "compacting",
        })
    });
    let before = influx.writes().len();
    world.produce(&readings(10, 1).into_iter().map(|reading| reading.at(now_ms())).collect::<Vec<_>>());
    until("it has written again", || influx.writes().len() >= before + 2);
    let writes = influx.writes();
    let waited = writes[before + 1].at - writes[before].at;
    assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    until("all is committed", || progress(&world).lag() == 0);
    assert_all_arrived(&world, &influx);
    let metrics = http::get(&page, "/metrics").1;
    assert!(total(&metrics, "genwatch_sink_retries_total") >= 2.0, "{metrics}");
    assert_eq!(total(&metrics, "genwatch_sink_points_total"), 501.0);
    assert!(sink.is_running());
    let ended = sink.stop();
    assert!(ended.number("retries") >= 2 && ended.stderr.contains("compacting"), "{ended:#?}");
}

#[test]
fn a_point_that_is_refused_is_skipped_and_all_others_arrive() {
    let world = World::new(2);
    let influx = Influx::start();
    let poison = |line: &String| line.contains("generatorID=poison");
    influx.answer(move |write| match write.lines.len() {
        // As a proxy in front of it might.
        300.. => refuse(413, "too much"),
        _ if write.lines.iter().any(poison) => refuse(422, "field type conflict"),
        _ => None,
    });
    let mut records = readings(20, 1000);
    for n in [0, 333, 334, 999] {
        records[n] = Outgoing::reading(&format!("poison{n}"), 80.0, 1.0);
    }
    records.push(Outgoing::new("generator1", b"no JSON"));
    records.push(Outgoing { value: Some(b"{}".to_vec()), ..Outgoing::default() });
    world.produce(&records);
    let ended = sink_to_the_end(&world, &influx, &["--linger", "1s"]);
    assert_eq!(
        [ended.number("records"), ended.number("points"), ended.number("skipped")],
        [1002, 996, 6],
        "{ended:#?}"
    );
    assert_eq!(influx.points().len(), 996);
    assert!(!influx.points().keys().any(|(series, _)| series.contains("poison")));
    assert_eq!(progress(&world).lag(), 0);
    let said: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("refuses a point")).collect();
    assert_eq!(said.len(), 1, "one line, and then not again for a while: {}", ended.stderr);
    for words in ["field type conflict", "partition=", "offset=", world.topic.as_str()] {
        assert!(said[0].contains(words), "{words} in {}", said[0]);
    }
    assert!(ended.stderr.contains("not JSON") && ended.stderr.contains("no key"), "{}", ended.stderr);
}

#[test]
fn a_refusal_is_one_clear_sentence_without_the_token() {
    let world = World::new(1);
    let influx = Influx::start();
    let with_token = |token: &str| {
        world.run("sink influx", &["--url", &influx.url, "--org", "acme", "--bucket", "b", "--token", token])
    };
    let ended = with_token("wr0ng-t0k3n").refused(1, &["401", "unauthorized access", "--token", &influx.url]);
    assert!(!format!("{ended:?}").contains("wr0ng-t0k3n"), "{ended:?}");
    let none = ["--url", &influx.url, "--org", "acme", "--bucket", "b"];
    world.run("sink influx", &none).refused(1, &["wants a token", "--token-file"]);
    influx.answer(|_| refuse(404, "bucket not found"));
    with_token(TOKEN).refused(1, &["404", "bucket b", "organization acme", "--bucket"]);
    // It may also come later.
    influx.answer(|write| if write.lines.is_empty() { None } else { refuse(403, "forbidden") });
    let sink = sink(&world, &influx, &[]);
    sink.wait_until_assigned();
    world.produce(&readings(1, 1));
    let ended = sink.wait().exited(1);
    assert!(ended.stderr.contains("does not let our token write to bucket plant 1"), "{}", ended.stderr);
    assert!(!format!("{ended:?}").contains(TOKEN), "{ended:?}");
    assert_eq!(progress(&world).done(), 0);
}

#[test]
fn sigterm_writes_and_commits_what_was_taken_in() {
    let world = World::new(2);
    let influx = Influx::start();
    world.produce(&stormy_readings(10, 300));
    let sink = sink(&world, &influx, &["--linger", "1h", "--http", "127.0.0.1:0"]);
    let address = sink.http();
    until("all is taken in", || {
        total(&http::get(&address, "/metrics").1, "genwatch_sink_records_total") == 300.0
    });
    assert_eq!((influx.points().len(), progress(&world).done()), (0, 0));
    let ended = sink.stop();
    assert_eq!([ended.number("records"), ended.number("points"), ended.number("writes")], [300, 300, 1]);
    assert_all_arrived(&world, &influx);
    assert_eq!(progress(&world).lag(), 0);
}

#[test]
fn sigterm_while_the_database_is_away_leaves_the_rest_to_the_next_sink() {
    let world = World::new(1);
    let influx = Influx::start();
    influx.answer(|write| if write.lines.is_empty() { None } else { refuse(500, "no disk") });
    world.produce(&readings(3, 30));
    let waiting = sink(&world, &influx, &[]);
    waiting.wait_until_it_says("no disk");
    let told = Instant::now();
    let ended = waiting.stop();
    assert!(told.elapsed() < Duration::from_secs(15), "{:?}", told.elapsed());
    assert!(ended.stderr.contains("read again by the next sink"), "{}", ended.stderr);
    assert_eq!((ended.number("points"), progress(&world).done()), (0, 0));
    influx.recover();
    sink_to_the_end(&world, &influx, &[]);
    assert_all_arrived(&world, &influx);
}

#[test]
fn a_missing_topic_is_named_with_what_to_do() {
    let world = World::empty();
    let influx = Influx::start();
    sink(&world, &influx, &[]).wait().refused(1, &[&world.topic, "genwatch topics create"]);
}
