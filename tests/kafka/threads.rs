//! `--threads`: partitions are worked side by side, and nothing else changes.

use crate::verify;
use crate::world::World;

#[test]
fn several_threads_do_what_one_does() {
    let world = World::new(12);
    // A backlog: from batches of a few records other threads take nothing.
    world.run("simulate", &["--count", "300000", "--seed", "11", "--faults", "--rate", "0"]).success();
    let worked = world.work_to_the_end(&["--threads", "4"]);
    let expected = verify::all(&world);
    assert!(expected.alert_count() > 100 && expected.dead_letter_count() > 100);
    assert_eq!(worked.number("records"), 300_000);
    assert_eq!(worked.number("dlq") as usize, expected.dead_letter_count());
}
