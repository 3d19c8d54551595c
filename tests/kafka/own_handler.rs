//! The example of a handler of one's own, run over a real topic: looked up side by side, each record once.
//!
//! The process is this test binary itself, so that it can be killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genwatch::service::Context;
use serde_json::Value;

use crate::world::records::Outgoing;
use crate::world::{World, until};

#[path = "../../examples/own_handler.rs"]
mod example;

const TEST: &str = "own_handler::a_handler_of_ones_own_looks_up_side_by_side_and_says_each_thing_once";
/// `brokers topic service`, for the process that handles.
const WORLD: &str = "OWN_HANDLER_OF";

/// A service that is slow, drops every seventh connection, and lets every fiftieth hang.
#[derive(Default)]
struct Zones {
    asked: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Zones {
    fn serve(self: &Arc<Zones>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let zones = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let zones = Arc::clone(&zones);
                std::thread::spawn(move || zones.answer(stream.unwrap()));
            }
        });
        address
    }

    fn answer(&self, mut stream: TcpStream) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        self.most.fetch_max(self.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let mut line = String::new();
        let heard = BufReader::new(&stream).read_line(&mut line);
        std::thread::sleep(Duration::from_millis(if asked % 50 == 49 { 1_500 } else { 5 }));
        self.now.fetch_sub(1, Ordering::Relaxed);
        let lat: Option<f64> = line.split(' ').next().and_then(|lat| lat.parse().ok());
        if let (Ok(_), Some(lat), false) = (heard, lat, asked % 7 == 6) {
            let _ = writeln!(stream, "{}", zone(lat));
        }
    }
}

fn zone(lat: f64) -> String {
    format!("zone {}", (lat / 10.0).floor())
}

/// Generators that travel; one of them is decommissioned in between.
fn journeys(count: usize) -> Vec<Outgoing> {
    let at = |n: usize| {
        let (generator, step) = (n % 20, n / 20);
        let id = format!("generator{generator}");
        if generator == 7 && step % 10 == 5 {
            return Outgoing::tombstone(&id);
        }
        let lat = ((step * 3 + generator * 11) % 80) as f64;
        let value = serde_json::json!({
            "generatorID": id, "lat": lat, "lon": 2, "temperature": 74, "pressure": 198, "fuel": 900,
        });
        Outgoing::new(&id, value.to_string().as_bytes())
    };
    (0..count).map(at).collect()
}

/// What must be said, per generator in the order of the log: offset and zone.
fn expected(world: &World) -> BTreeMap<String, Vec<(i64, Option<String>)>> {
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut said: BTreeMap<String, Vec<(i64, Option<String>)>> = BTreeMap::new();
    for record in &world.readings().0 {
        let id = String::from_utf8(record.key.clone().unwrap()).unwrap();
        let reading = record.value.as_deref().map(|value| serde_json::from_slice::<Value>(value).unwrap());
        let now = reading.map(|reading| zone(reading["lat"].as_f64().unwrap()));
        let before = known.entry(id.clone()).or_default();
        if now.is_none() || now != *before {
            said.entry(id).or_default().push((record.offset, now.clone()));
        }
        *before = now;
    }
    said
}

fn start(world: &World, service: &str) -> Child {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
    process.env(WORLD, format!("{} {} {service}", world.brokers, world.topic));
    process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_handler_of_ones_own_looks_up_side_by_side_and_says_each_thing_once() {
    if let Ok(world) = std::env::var(WORLD) {
        let to: [&str; 3] = world.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let ended = example::run(to, false, Context::default());
        panic!("it goes on until it is killed: {ended:?}");
    }
    let world = World::new(3);
    let zones_topic = format!("{}_zones", world.topic);
    world.create_like_readings(&zones_topic, 3);
    let zones = Arc::new(Zones::default());
    let service = zones.serve();
    world.produce(&journeys(1_000));
    for kill_at in [150, 500, 800] {
        let mut handler = start(&world, &service);
        let done = || world.progress_of(&zones_topic).done();
        until("a part is looked up", || done() >= kill_at || handler.try_wait().unwrap().is_some());
        handler.kill().unwrap();
        handler.wait().unwrap();
    }
    let to = [world.brokers.as_str(), &world.topic, &service];
    example::run(to, true, Context::default()).unwrap();

    let mut said: BTreeMap<String, Vec<(i64, Option<String>)>> = BTreeMap::new();
    for record in &world.read(&zones_topic).0 {
        let id = String::from_utf8(record.key.clone().unwrap()).unwrap();
        let value: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        let zone = value["zone"].as_str().map(str::to_owned);
        said.entry(id).or_default().push((value["offset"].as_i64().unwrap(), zone));
    }
    let expected = expected(&world);
    assert!(expected.values().map(Vec::len).sum::<usize>() > 100);
    assert_eq!(said, expected);
    let most = zones.most.load(Ordering::Relaxed);
    assert!(most > 3, "lookups overlap, also those of one partition: {most} at once");
    assert!(zones.asked.load(Ordering::Relaxed) > 1_000, "what failed was tried again");
}
