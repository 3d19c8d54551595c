//! A worker works even if its log can't be written.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use crate::verify;
use crate::world::records::stormy_readings;
use crate::world::{World, http, until, until_some};

#[test]
fn a_full_disk_behind_the_log_costs_no_alert() {
    let world = World::new(3);
    for format in ["text", "json"] {
        world.produce(&stormy_readings(20, 2000));
        let ended =
            worker(&world, &["--exit-at-end", "--log-format", format], full()).wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let summary: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(summary["records"], 2000, "{summary}");
    }
    assert!(verify::all(&world).alert_count() > 100);
}

#[test]
fn a_reader_of_the_log_that_goes_away_costs_no_alert_and_lines_that_are_lost_are_counted() {
    let world = World::new(3);
    world.produce(&stormy_readings(20, 500));
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let (log, writer) = std::io::pipe().unwrap();
    let arguments = ["--http", &format!("localhost:{port}"), "--group-protocol", "classic"];
    let mut first = worker(&world, &arguments, writer);
    let dropped = || {
        let page = http::try_get(&address, "/metrics").ok()?.1;
        Some(http::samples(&page, "genwatch_log_lines_dropped_total").first()?.1)
    };
    until("the first worker is ready", || {
        http::try_get(&address, "/readyz").is_ok_and(|(code, _)| code == 200)
    });
    assert_eq!(until_some("it serves metrics", dropped), 0.0);

    drop(log);
    // Each rebalance logs a line.
    let second = world.working(&[]);
    until("lines are lost", || dropped().is_some_and(|lines| lines > 0.0));
    world.produce(&stormy_readings(20, 2000));
    world.wait_until_worked();
    second.stop();
    assert!(first.try_wait().unwrap().is_none(), "it goes on");
    rustix::process::kill_process(rustix::process::Pid::from_child(&first), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    verify::all(&world);
}

#[test]
fn a_refusal_has_its_code_where_it_can_not_be_said() {
    let world = World::empty();
    for format in ["text", "json"] {
        let ended = worker(&world, &["--log-format", format], full()).wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "a missing topic: {ended:?}");
    }
}

fn worker(world: &World, arguments: &[&str], stderr: impl Into<Stdio>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_genwatch"));
    command.args(["worker", "--brokers", &world.brokers, "--topic", &world.topic, "--group", &world.group]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    // At this level there are log lines all the time.
    command.env("RUST_LOG", "debug").spawn().unwrap()
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("Linux has it")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
