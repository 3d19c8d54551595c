//! The benchmark of the bridge measures, verifies, and leaves nothing behind.

use crate::world::World;

#[test]
fn bridges_are_measured_beside_a_subscriber_and_verified() {
    let world = World::empty();
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().display().to_string();
    let what = ["--count", "2000", "--generators", "50", "--repetitions", "1", "--bridges", "1,2", "--json"];
    let all = [&["bench", "bridge", "--brokers", &world.brokers, "--results", &results], &what[..]].concat();
    let report = crate::world::process::Process::start("bench bridge", &all).wait().success().json();
    let rows = report["results"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["contender"].as_str().unwrap()).collect();
    assert_eq!(names, ["mosquitto_sub", "genwatch bridge", "2 bridges"]);
    for row in rows {
        assert!(row["messages_per_s"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["efficiency"].is_number(), row["contender"] != "mosquitto_sub", "{row}");
    }
}
