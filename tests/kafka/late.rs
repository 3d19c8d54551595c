//! Late requests: a request that the client repeated because its connection broke arrives twice.

use crate::verify;
use crate::world::World;
use crate::world::broker::Cluster;
use crate::world::late::Late;
use crate::world::records::Outgoing;

/// How many transaction ends come late; `GENWATCH_TEST_LATE=1000` for more.
fn count() -> usize {
    std::env::var("GENWATCH_TEST_LATE").ok().and_then(|count| count.parse().ok()).unwrap_or(12)
}

/// Each lands when the next transaction has written its alerts and not its offsets: if that ended then, they would be
/// visible, and be written again.
#[test]
fn a_late_end_of_a_transaction_ends_no_later_one() {
    let (cluster, here, there) = Cluster::start_behind_a_relay("late", &[]);
    let late = Late::start(here, there);
    let mut world = World::in_cluster(&cluster, 1);
    let worker = world.working_by(&format!("127.0.0.1:{here}"), &[]);
    late.expect(count());
    let mut readings = 0;
    while late.arrived() < count() {
        assert!(readings < 4 * count() + 100, "only {} have come late", late.arrived());
        let fuel = if readings % 2 == 0 { 100.0 } else { 900.0 };
        world.produce(&[Outgoing::reading("generator1", 70.0, fuel)]);
        readings += 1;
        world.wait_until_worked();
    }
    worker.stop().success();
    assert_eq!(verify::all(&world).alert_count(), readings);
}
