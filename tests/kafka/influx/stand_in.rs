//! Answers that a real InfluxDB can't be made to give: late ones, or any that a test needs.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{expected, progress, readings, total};
use crate::offsets::delete_records_below;
use crate::world::influx::{Answer, Influx, TOKEN, Write};
use crate::world::process::{Ended, Process};
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, http, now_ms, until};

/// The sink's arguments: the usual ones, replaced or extended by these.
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

/// A point as the stand-in keeps it.
fn series((generator, time): (String, i64), world: &World) -> (String, i64) {
    (format!("{},generatorID={generator}", world.topic), time)
}

/// Every reading in the log is a point, and there are no others.
#[track_caller]
fn assert_all_arrived(world: &World, influx: &Influx) {
    let expected: BTreeSet<_> = expected(world).into_values().map(|point| series(point, world)).collect();
    let found: BTreeSet<_> = influx.points().into_keys().collect();
    let missing: Vec<_> = expected.difference(&found).take(5).collect();
    let strange: Vec<_> = found.difference(&expected).take(5).collect();
    assert!(missing.is_empty() && strange.is_empty(), "missing: {missing:?}, strange: {strange:?}");
}

/// Everything below a committed offset is a point.
#[track_caller]
fn assert_not_ahead(world: &World, influx: &Influx) {
    let committed = progress(world).partitions;
    let points = influx.points();
    for ((partition, offset), point) in expected(world) {
        let committed = committed[&partition].0.unwrap_or(0);
        assert!(
            offset >= committed || points.contains_key(&series(point, world)),
            "{partition}/{offset} is committed ({committed}) and not written"
        );
    }
}

fn refuse(status: u16, message: &str) -> Option<Answer> {
    Some(Answer { status, retry_after: None, message: message.to_owned() })
}

#[test]
fn a_sink_that_is_killed_loses_nothing_and_commits_nothing_unwritten() {
    let world = World::new(3);
    let influx = Influx::start();
    world.produce(&readings(50, 20_000));
    // Slow answers, so that the sink can be killed in the middle.
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
    until("batches wait", || taken() >= 5200.0);
    let committed = progress(&world).done();
    assert_eq!(committed, 5000, "nothing is committed that isn't acknowledged");
    // By now it has paused: this takes longer than it waits before a pause.
    let until_then = Instant::now() + Duration::from_secs(1);
    until("a second has passed", || Instant::now() > until_then);
    // Eight full batches wait, on any of the four lanes; the two used ones have one that fills and one in flight. A
    // record may be on its way when a partition is paused.
    assert!(taken() <= 6210.0, "{} records taken in", taken());
    hold.store(false, Ordering::SeqCst);
    until("all is written", || progress(&world).lag() == 0);
    assert_all_arrived(&world, &influx);
    sink.stop();
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
    let slow = sink(&world, &influx, &["--org", "slow", "--linger", "500ms", "--connections", "1"]);
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
    // A late commit would move the quick one's offset back, and no one would commit it again.
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
    // The sink starts before the database.
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

    // Now it is up, but too busy to serve us.
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    influx.answer(move |_| {
        (count.fetch_add(1, Ordering::SeqCst) == 0).then_some(Answer {
            status: 503,
            retry_after: Some(2),
            message: "compacting".to_owned(),
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
        _ if write.lines.iter().any(poison) => refuse(400, "unable to parse"),
        _ => None,
    });
    let mut records = readings(20, 1000);
    for n in [0, 333, 334, 999] {
        records[n] = Outgoing::reading(&format!("poison{n}"), 80.0, 1.0);
    }
    world.produce(&records);
    let ended = sink_to_the_end(&world, &influx, &["--linger", "1s"]);
    assert_eq!(
        [ended.number("records"), ended.number("points"), ended.number("skipped")],
        [1000, 996, 4],
        "{ended:#?}"
    );
    assert_eq!(influx.points().len(), 996);
    assert!(!influx.points().keys().any(|(series, _)| series.contains("poison")));
    assert_eq!(progress(&world).lag(), 0);
    let said: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("refuses a point")).collect();
    assert_eq!(said.len(), 1, "one line, and then not again for a while: {}", ended.stderr);
    for words in ["unable to parse", "partition=", "offset=", world.topic.as_str()] {
        assert!(said[0].contains(words), "{words} in {}", said[0]);
    }
}

#[test]
fn a_refusal_that_comes_late_or_tells_the_token_is_a_clear_sentence_without_it() {
    let world = World::new(1);
    let influx = Influx::start();
    let with_token = |token: &str| {
        world.run("sink influx", &["--url", &influx.url, "--org", "acme", "--bucket", "b", "--token", token])
    };
    let ended = with_token("wr0ng-t0k3n").refused(1, &["401", "unauthorized access", "--token", &influx.url]);
    assert!(!format!("{ended:?}").contains("wr0ng-t0k3n"), "{ended:?}");
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
    assert_eq!([ended.number("records"), ended.number("points")], [300, 300]);
    assert!((1..=2).contains(&ended.number("writes")), "one for each lane: {ended:#?}");
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
    assert!(ended.stderr.contains("the next sink reads the rest again"), "{}", ended.stderr);
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

#[test]
fn records_that_retention_took_while_the_sink_waited_are_an_error_unless_accepted() {
    let world = World::new(1);
    let influx = Influx::start();
    let hold = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&hold);
    influx.answer(move |write| {
        until("the test lets go", || write.lines.is_empty() || !held.load(Ordering::SeqCst));
        None
    });
    world.produce(&readings(10, 5000));
    let waiting = sink(&world, &influx, &["--batch", "100", "--http", "127.0.0.1:0"]);
    let page = waiting.http();
    let taken = || total(&http::get(&page, "/metrics").1, "genwatch_sink_records_total");
    until("it holds two batches", || taken() >= 200.0);
    let begun = Instant::now();
    until("its partitions are paused", || begun.elapsed() > Duration::from_secs(1));
    delete_records_below(&world, 3000);
    hold.store(false, Ordering::SeqCst);
    let ended = waiting.wait().exited(1);
    assert!(ended.stderr.contains("--on-out-of-range earliest"), "{}", ended.stderr);
    assert!(ended.stderr.contains("3000 to 5000"), "{}", ended.stderr);

    let committed = progress(&world).partitions[&0].0.unwrap_or(0);
    let ended = sink_to_the_end(&world, &influx, &["--on-out-of-range", "earliest"]);
    // Without a committed offset the group only begins, and nothing was promised.
    let lost = if committed == 0 { 0 } else { 3000 - committed as u64 };
    assert_eq!([ended.number("records"), ended.number("lost")], [2000, lost], "{ended:#?}");
    assert_eq!(progress(&world).lag(), 0);
}
