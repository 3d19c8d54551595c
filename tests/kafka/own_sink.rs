//! The example of a custom sink, run over a real topic.

#[path = "../../examples/own_sink.rs"]
mod example;

use std::collections::BTreeSet;

use genwatch::service::Context;

use crate::world::World;
use crate::world::records::stormy_readings;
use example::{LogFile, run};

#[test]
fn a_sink_of_ones_own_writes_each_alert_and_goes_on_where_it_ended() {
    let world = World::new(2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alarms.txt");
    let mut before = 0;
    for round in 1..=2 {
        world.produce(&stormy_readings(10, 200));
        world.work_to_the_end(&[]);
        let file = LogFile::open(&path).unwrap();
        let summary = run(&world.brokers, &world.topic, file, true, Context::default()).unwrap();
        let made: Vec<String> =
            world.alerts().iter().map(|alert| alert["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(summary.points, (made.len() - before) as u64, "round {round} writes the new records");
        let text = std::fs::read_to_string(&path).unwrap();
        let written: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<Vec<serde_json::Value>>(line).unwrap()[0].clone())
            .map(|id| id.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(written.len(), made.len(), "each once");
        assert_eq!(BTreeSet::from_iter(&written), BTreeSet::from_iter(&made));
        before = made.len();
    }
    assert!(before > 0);
}
