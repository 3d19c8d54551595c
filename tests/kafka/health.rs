//! `/livez`, `/readyz` and `/metrics` of a worker.

use std::collections::BTreeSet;
use std::net::TcpListener;

use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, http, now_ms, until};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

#[test]
fn a_worker_is_ready_when_it_has_joined_and_not_while_it_drains() {
    let world = World::new(1);
    let worker = world.worker(&[&HTTP[..], &["--work", "30s", "--drain-timeout", "15s"]].concat());
    let address = worker.http();
    assert_eq!(http::get(&address, "/livez").0, 200);
    until("it's ready", || http::get(&address, "/readyz").0 == 200);
    world.produce(&[Outgoing::reading("g", 80.0, 500.0)]);
    until("it's at work", || {
        http::samples(&http::get(&address, "/metrics").1, "genwatch_in_flight")[0].1 > 0.0
    });

    worker.signal("TERM");
    worker.wait_until_it_says("draining");

    assert_eq!(http::get(&address, "/readyz"), (503, "draining\n".to_owned()));
    assert_eq!(http::get(&address, "/livez").0, 200);
    worker.signal("TERM");
    worker.wait().exited(143);
}

#[test]
fn a_worker_that_has_not_joined_is_alive_and_not_ready() {
    // Accepts connections and never answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World::at(&mute.local_addr().unwrap().to_string());
    let worker = world.worker(&HTTP);
    let address = worker.http();
    assert_eq!(http::get(&address, "/livez").0, 200);
    assert_eq!(http::get(&address, "/readyz"), (503, "not joined the group yet\n".to_owned()));
    worker.wait().refused(1, &["no broker answers", &world.brokers, "--brokers"]);
}

#[test]
fn metrics_have_the_names_of_the_contract_and_the_right_counts() {
    let world = World::new(2);
    world.produce(&stormy_readings(20, 1000));
    world.produce(&vec![Outgoing::new("g", b"{}"); 7]);
    // Raised now, so that a reading of a minute ago can't clear it.
    let minute_ago = Outgoing::reading("late", 80.0, 500.0).at(now_ms() - 60_000);
    world.produce(&[Outgoing::reading("late", 80.0, 100.0), minute_ago]);
    let worker = world.worker(&HTTP);
    let address = worker.http();
    let page = || http::get(&address, "/metrics").1;
    let sum = |page: &str, name: &str| http::samples(page, name).iter().map(|(_, value)| value).sum::<f64>();
    until("all is counted", || {
        let page = page();
        sum(&page, "genwatch_records_total{") == 1009.0
            && sum(&page, "genwatch_end_to_end_seconds_count") == 1009.0
    });

    let page = page();

    let alerts = world.alerts();
    for (rule, state) in [("low_fuel", "raised"), ("low_fuel", "cleared"), ("over_temperature", "raised")] {
        let in_topic = alerts.iter().filter(|alert| alert["rule"] == rule && alert["state"] == state).count();
        let series = format!("genwatch_alerts_total{{rule=\"{rule}\",state=\"{state}\"}}");
        assert_eq!(sum(&page, &series), in_topic as f64, "{series}");
    }
    assert_eq!(sum(&page, "genwatch_dlq_total{code=\"missing_field\"}"), 7.0);
    until("late ones are counted", || {
        sum(&http::get(&address, "/metrics").1, "genwatch_late_total{rule=\"low_fuel\"}") == 1.0
    });
    assert_eq!(sum(&page, "genwatch_rebalances_total"), 1.0);
    assert_eq!(sum(&page, "genwatch_lag{"), 0.0);
    for histogram in ["genwatch_commit_seconds", "genwatch_handler_seconds", "genwatch_end_to_end_seconds"] {
        assert!(page.contains(&format!("# TYPE {histogram} histogram")), "{histogram} in\n{page}");
    }
    for name in [
        "genwatch_in_flight",
        "genwatch_restore_seconds",
        "genwatch_stalled{partition=\"0\"}",
        "genwatch_loop_busy",
        "genwatch_lanes_busy",
        "genwatch_committing",
        "genwatch_full",
        "genwatch_throttled{path=\"fetch\"}",
        "genwatch_throttled{path=\"produce\"}",
        "genwatch_top_generator_share",
    ] {
        assert!(!http::samples(&page, name).is_empty(), "{name} in\n{page}");
    }
    worker.stop();
}

#[test]
fn a_replica_tells_the_lag_of_the_partitions_it_owns_and_of_no_other() {
    let world = World::new(4);
    let first = world.working(&HTTP);
    let second = world.working(&HTTP);
    let owned = |address: &str| -> BTreeSet<String> {
        let page = http::get(address, "/metrics").1;
        let series =
            |name| http::samples(&page, name).into_iter().map(move |(series, _)| series.replace(name, ""));
        let lag: BTreeSet<String> = series("genwatch_lag").collect();
        let stalled: BTreeSet<String> = series("genwatch_stalled").collect();
        // Lag is known as soon as the end of the log is.
        assert!(lag.is_subset(&stalled), "{page}");
        if lag == stalled { lag } else { BTreeSet::new() }
    };
    let (a, b) = (first.http(), second.http());
    until("they share the partitions", || {
        let (a, b) = (owned(&a), owned(&b));
        a.len() == 2 && b.len() == 2 && a.is_disjoint(&b)
    });
    second.stop();
    until("the first has them all", || owned(&a).len() == 4);
    first.stop();
}

#[test]
fn readings_that_do_not_move_for_half_a_minute_are_a_stall() {
    let world = World::new(2);
    world.produce(&[Outgoing::reading("g", 80.0, 500.0)]);
    let worker = world.working(&[&HTTP[..], &["--work", "10m"]].concat());
    let address = worker.http();
    until("a partition is stalled", || {
        let stalled = http::samples(&http::get(&address, "/metrics").1, "genwatch_stalled");
        stalled.iter().map(|(_, value)| value).sum::<f64>() == 1.0
    });
    assert_eq!(http::get(&address, "/livez").0, 200, "the loop moves all the same");
}

/// The coordinator answers and the leader doesn't: for the worker's client the log ends at its position.
#[test]
fn a_leader_that_cannot_be_reached_shows_within_half_a_minute() {
    let (mut world, link) = World::behind_a_cut("leader", 1);
    // Shorter than the default (60 s), so that the client reconnects soon when all is well.
    let worker = world.working_by(&link.brokers, &[&HTTP[..], &["-X", "socket.timeout.ms=10000"]].concat());
    let address = worker.http();
    let sample = |name| http::samples(&http::get(&address, "/metrics").1, name)[0].1;
    world.produce(&[Outgoing::reading("g", 80.0, 500.0)]);
    world.wait_until_worked();
    until("it's ready", || http::get(&address, "/readyz").0 == 200);

    link.cut.hide_leaders(true);
    world.produce(&stormy_readings(10, 100));
    until("the partition is reported as stalled", || sample("genwatch_stalled") == 1.0);
    let (code, reason) = http::get(&address, "/readyz");
    assert!(code == 503 && reason.contains("leader"), "{code} {reason}");
    assert_eq!(http::get(&address, "/livez").0, 200);

    link.cut.hide_leaders(false);
    world.wait_until_worked();
    until("it is ready again", || http::get(&address, "/readyz").0 == 200);
    until("nothing is left", || sample("genwatch_stalled") == 0.0 && sample("genwatch_lag") == 0.0);
}

#[test]
fn an_address_in_use_is_told_of() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World::new(1);
    let address = taken.local_addr().unwrap().to_string();
    world.run("worker", &["--http", &address]).refused(1, &["--http", &address]);
}
