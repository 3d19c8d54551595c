//! A member by KIP-848 that didn't hear what it was given.

use crate::broker::Cluster;
use crate::cut::Cut;
use crate::member::Member;
use crate::place::Place;
use crate::waiting::until;

/// T25. The coordinator tells an assignment once, in the answer to a heartbeat, and again only to who asks for all (KIP-848). Where that
/// answer is lost and its connection stays, librdkafka gives the connection up after `socket.timeout.ms`, and its next heartbeat
/// asks for all. So a lost answer leaves no partition without a member.
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
    until("it's in the group, and the other one has not given up what is to be its", || {
        member.obey();
        cut.heartbeats() > 2
    });
    cut.lose_assignment();
    until("the telling is lost", || {
        other.obey();
        member.obey();
        cut.has_lost_assignment()
    });
    until("it is told again", || {
        other.obey();
        member.obey();
        (other.assignment().len(), member.assignment().len()) == (1, 1)
    });
}
