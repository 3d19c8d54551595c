//! A broker that crashes and comes back under a worker.

use crate::oracle;
use crate::world::broker::Cluster;
use crate::world::records::stormy_readings;
use crate::world::{World, http, until};

#[test]
fn an_outage_of_the_broker_is_waited_out_and_nothing_is_lost() {
    // A crashed node may register again only when its old session has ended.
    let cluster = Cluster::start("outage", &["broker.session.timeout.ms=6000"]);
    let world = World::in_cluster(&cluster, 3);
    world.produce(&stormy_readings(30, 3000));
    let mut worker = world.working(&["--work", "2ms", "--concurrency", "1", "--http", "127.0.0.1:0"]);
    let address = worker.http();
    until("it's at work", || world.progress().done() > 500);

    cluster.crash();
    until("it says that commits wait", || http::get(&address, "/readyz").0 == 503);
    assert_eq!(http::get(&address, "/livez").0, 200);
    cluster.recover();

    world.produce(&stormy_readings(30, 300));
    world.wait_until_worked();
    until("it's ready again", || http::get(&address, "/readyz").0 == 200);
    assert!(worker.is_running());
    assert_eq!(worker.stop().number("records"), 3300);
    assert!(oracle::verify(&world).alert_count() > 300);
}
