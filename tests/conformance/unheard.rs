//! A member by KIP-848 that didn't hear what it was given.

use crate::broker::Cluster;
use crate::cut::Cut;
use crate::member::Member;
use crate::place::Place;
use crate::waiting::until;

/// T25. The coordinator tells an assignment once, in the answer to a heartbeat. Where that answer is lost, the next heartbeats of
/// librdkafka 2.12.1 say nothing that it would be told for again (`rd_kafka_cgrp_handle_ConsumerGroupHeartbeat`): a full one
/// would. So a partition stays without a member that is in its group and well, and nothing says so but the partition's lag.
/// "What is left as it is" in docs/reliability.md rests on it, and that it's `--group-protocol consumer` alone.
#[test]
fn an_assignment_whose_telling_was_lost_is_not_told_again() {
    let properties = [
        "group.consumer.min.session.timeout.ms=1000",
        "group.consumer.session.timeout.ms=10000",
        "group.consumer.min.heartbeat.interval.ms=200",
        "group.consumer.heartbeat.interval.ms=300",
    ];
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
    until("each has one", || {
        other.obey();
        member.obey();
        (other.assignment().len(), member.assignment().len()) == (1, 1)
    });
    cut.lose_assignment();
    // Its session ends.
    drop(other);
    until("the telling is lost", || {
        member.obey();
        cut.has_lost_assignment()
    });
    let before = cut.heartbeats();
    until("it has been heard often, and each time answered", || {
        member.obey();
        assert_eq!(
            member.assignment().len(),
            1,
            "it was told again, after {} heartbeats",
            cut.heartbeats() - before
        );
        cut.heartbeats() > before + 20
    });
}
