//! A KIP-848 member that missed its assignment.

use crate::broker::Cluster;
use crate::cut::Cut;
use crate::member::Member;
use crate::place::Place;
use crate::waiting::until;

/// T25. The coordinator sends an assignment once, in a heartbeat response, and again only if asked for all (KIP-848).
/// If that response is lost and its connection stays, librdkafka closes the connection after `socket.timeout.ms`, and
/// its next heartbeat asks for all. So a lost response leaves no partition without a member.
#[test]
fn an_assignment_whose_telling_was_lost_is_told_again() {
    let properties =
        ["group.consumer.min.heartbeat.interval.ms=200", "group.consumer.heartbeat.interval.ms=300"];
    let (cluster, here, there) = Cluster::start_behind_a_relay("conformance-unheard", &properties);
    let cut = Cut::start(here, there);
    let place = Place::new_in(&cluster.brokers, 2);
    let behind = Place {
        brokers: format!("127.0.0.1:{here}"),
        topic: place.topic.clone(),
        group: place.group.clone(),
    };
    let protocol = ("group.protocol", "consumer");
    let other = Member::join_and_take(&place, &[protocol], 2);
    let member =
        Member::join(&behind, &[protocol, ("socket.timeout.ms", "2000"), ("fetch.wait.max.ms", "100")]);
    until("it's in the group, and the other one has not given up its share", || {
        member.obey();
        cut.heartbeats() > 2
    });
    cut.lose_assignment();
    until("the assignment is lost", || {
        other.obey();
        member.obey();
        cut.has_lost_assignment()
    });
    until("it is sent again", || {
        other.obey();
        member.obey();
        (other.assignment().len(), member.assignment().len()) == (1, 1)
    });
}
