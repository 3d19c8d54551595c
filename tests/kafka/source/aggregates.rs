//! Queries that aggregate windows.

use super::{now_ns, point, source_of};
use crate::world::World;
use crate::world::influxdb::shared;

#[test]
fn aligned_windows_are_whole_and_a_late_point_corrects_its_window() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let (second, window) = (1_000_000_000, 10_000_000_000);
    let begun = (now_ns() - 20 * window) / window * window;
    let lines: Vec<String> = (0..150).map(|n| point("g", 1, begun + n * second)).collect();
    bucket.write(&lines.join("\n"));
    let query = format!(
        r#"from(bucket: "{}") |> range(start: v.timeRangeStart, stop: v.timeRangeStop)
        |> aggregateWindow(every: v.windowPeriod, fn: sum, createEmpty: false)"#,
        bucket.name
    );
    let run = || {
        let ended = source_of(&world, &bucket, &query, &["--align", "10s", "--exit-at-end"]).wait().success();
        [ended.number("rows"), ended.number("corrections")]
    };
    assert_eq!(run(), [15, 0]);
    let sums = || -> Vec<i64> {
        world.readings().values().map(|value| value["_value"].as_i64().expect("a sum")).collect()
    };
    assert_eq!(sums(), [10; 15], "no window is cut");
    bucket.write(&point("g", 5, begun + 4 * window + 1));
    assert_eq!(run(), [1, 1]);
    assert_eq!(sums().last(), Some(&15));
    assert_eq!(run(), [0, 0]);
}
