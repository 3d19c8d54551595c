//! `genwatch topics plan` against real groups: each limit has a set-up in which it binds, and the advisor names it
//! before anybody scales.
//!
//! `scripts/soak plan` makes many set-ups by seed, adds the worker that the plan speaks of, and grades what was said.

mod feed;
mod grade;
mod setup;

use serde_json::Value;

use crate::world::{World, until};
use setup::{Limit, Setup};

/// The seed of the set-ups in `scripts/test`.
const SEED: u64 = 1;

fn named(limit: Limit, world: World) {
    let setup = Setup::new(limit, SEED);
    let running = setup.start(&world);
    // A quota makes everything come in bursts.
    let plan = running.plan(if matches!(limit, Limit::Broker | Limit::Produce) { "16s" } else { "8s" });
    let document = serde_json::to_string_pretty(&plan).unwrap();
    check_form(&plan);
    // Where other programs keep all cores busy, that is what binds a loop.
    let is_full = plan["binding"]["why"].as_str().is_some_and(|why| why.starts_with("no core is idle"));
    if limit == Limit::Serial && is_full {
        println!("NOT CHECKED: the machine is busy with something else");
        return;
    }
    assert_eq!(plan["binding"]["limit"], limit.name(), "{setup:?}\n{document}");
    if !matches!(limit, Limit::Handler | Limit::Serial | Limit::Uneven) {
        assert_eq!(plan["one_more_replica"]["worth_it"], false, "{setup:?}\n{document}");
    }
}

/// The contract's form.
fn check_form(plan: &Value) {
    for number in [
        "/target_rate",
        "/measured/rate",
        "/measured/capacity",
        "/binding/capacity",
        "/recommend/partitions",
        "/recommend/replicas",
        "/recommend/concurrency",
        "/recommend/capacity",
        "/one_more_replica/gain",
    ] {
        assert!(plan.pointer(number).is_some_and(Value::is_number), "{number} in {plan:#}");
    }
    assert!(plan["binding"]["why"].as_str().is_some_and(|why| !why.is_empty()));
    assert!(plan["one_more_replica"]["worth_it"].is_boolean());
    assert!(plan["drain_seconds"].is_number() || plan["drain_seconds"].is_null());
}

macro_rules! limits {
    ($($test:ident = $limit:ident;)+) => {
        $(#[test]
        fn $test() {
            named(Limit::$limit, World::empty());
        })+
    };
}

limits! {
    lanes_that_are_all_busy_are_named = Handler;
    a_partition_with_too_large_a_share_is_named = FullestPartition;
    a_hot_generator_is_named = HotGenerator;
    a_worker_for_each_partition_is_named = PartitionsExhausted;
    a_deal_that_is_uneven_is_named = Uneven;
    a_broker_that_throttles_fetches_is_named = Broker;
    a_broker_that_throttles_what_is_produced_is_named = Produce;
    where_nothing_binds_that_is_said = None;
}

mod alone {
    use super::*;

    #[test]
    fn a_core_that_is_used_up_is_named() {
        named(Limit::Cpu, World::alone_without_topics());
    }

    #[test]
    fn a_loop_that_is_always_busy_is_named() {
        named(Limit::Serial, World::alone_without_topics());
    }
}

#[test]
fn a_group_without_workers_is_calibrated_on_topics_that_are_deleted() {
    let world = World::new(4);
    let arguments =
        ["--json", "--for", "4s", "--work", "2ms", "--worker", "--concurrency 1", "--target-rate", "1000"];
    let plan = world.run("topics plan", &arguments).success().json();
    check_form(&plan);
    assert_eq!(plan["binding"]["limit"], "handler", "{plan:#}");
    let capacity = plan["measured"]["capacity"].as_f64().unwrap();
    // A busy machine takes longer. What has been committed is seen in steps of 100 ms, at the start and the end of 4 s, so
    // it may also seem to be some percent above 500.
    assert!((20.0..=600.0).contains(&capacity), "2 ms of work, one after the other: {plan:#}");
    assert!(plan["recommend"]["replicas"].as_u64().unwrap() >= 3, "{plan:#}");
    until("no topic of the calibration is left behind", || {
        !world.all_topics().iter().any(|topic| topic.starts_with("genwatch-bench-"))
    });
}

#[test]
fn what_says_nothing_is_told() {
    let world = World::new(2);
    let _idle = world.working(&[]);
    let refused = world.run("topics plan", &["--for", "3s"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("no reading was processed"), "{}", refused.stderr);
    let usage = world.run("topics plan", &["--for", "1s"]);
    assert_eq!(usage.code, Some(2), "{}", usage.stderr);
}

/// For `scripts/soak plan`: it takes most of an hour.
#[test]
#[ignore = "scripts/soak plan runs it"]
fn graded() {
    grade::run();
}
