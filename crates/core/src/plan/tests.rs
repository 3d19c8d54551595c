use proptest::prelude::*;

use super::measurements::{HotGenerator, KeyShare, PartitionLoad, WorkerLoad};
use super::*;

/// A group as it would be measured: the rate is what these limits allow, the busy shares follow from it.
#[derive(Clone, Debug)]
struct World {
    workers: usize,
    weights: Vec<f64>,
    /// Readings a second.
    arrival: f64,
    /// Seconds; 0 without work.
    work: f64,
    lanes: usize,
    /// Seconds of a worker's loop for each reading, and CPU seconds.
    serial: f64,
    cpu: f64,
    cores: f64,
    hot: f64,
    backlog: bool,
}

impl Default for World {
    fn default() -> World {
        World {
            workers: 1,
            weights: vec![1.0; 12],
            arrival: 1000.0,
            work: 2e-3,
            lanes: 1,
            serial: 1e-6,
            cpu: 2e-6,
            cores: 2.0,
            hot: 0.001,
            backlog: true,
        }
    }
}

impl World {
    fn shares(&self) -> Vec<f64> {
        let sum: f64 = self.weights.iter().sum();
        self.weights.iter().map(|weight| weight / sum).collect()
    }

    /// The worker of each partition: in turn.
    fn held_by(&self, partition: usize) -> usize {
        partition % self.workers
    }

    fn of_worker(&self) -> f64 {
        let handler = if self.work > 0.0 { self.lanes as f64 / self.work } else { f64::INFINITY };
        handler.min(1.0 / self.serial)
    }

    /// What the group could process of readings that come in these shares.
    fn capacity(&self) -> f64 {
        let mut of_worker = vec![0.0; self.workers];
        for (partition, share) in self.shares().into_iter().enumerate() {
            of_worker[self.held_by(partition)] += share;
        }
        let fullest = of_worker.into_iter().fold(0.0, f64::max);
        let hot = if self.work > 0.0 { 1.0 / (self.work * self.hot) } else { f64::INFINITY };
        (self.of_worker() / fullest).min(self.cores / self.cpu).min(hot)
    }

    fn measure(&self) -> Measurements {
        let rate = if self.backlog { self.capacity() } else { self.arrival.min(self.capacity()) };
        let shares = self.shares();
        let partition = |(number, share): (usize, &f64)| PartitionLoad {
            arrival: share * self.arrival,
            done: share * rate,
            lag: if self.backlog { share * 100.0 * self.arrival } else { 0.0 },
            worker: Some(self.held_by(number)),
        };
        let used = rate * self.cpu;
        let worker = |number: usize| {
            let mine: f64 = shares
                .iter()
                .enumerate()
                .filter(|(p, _)| self.held_by(*p) == number)
                .map(|(_, share)| share)
                .sum();
            let rate = rate * mine;
            WorkerLoad {
                name: format!("w{number}"),
                machine: "m".to_owned(),
                rate,
                loop_busy: (rate * self.serial).min(1.0),
                lanes_busy: if self.work > 0.0 {
                    (rate * self.work / self.lanes as f64).min(1.0)
                } else {
                    0.0
                },
                work: self.work,
                lanes: if self.work > 0.0 { self.lanes } else { 0 },
                rate_limit: None,
                cpu: rate * self.cpu,
                cores: rate * self.cpu + (self.cores - used).max(0.0),
                ..WorkerLoad::default()
            }
        };
        Measurements {
            partitions: shares.iter().enumerate().map(partition).collect(),
            workers: (0..self.workers).map(worker).collect(),
            generators: 1000,
            hottest: vec![HotGenerator { generator: "generator4".to_owned(), share: self.hot }],
            ..Measurements::default()
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.measure(), None).unwrap()
    }
}

fn near(one: f64, other: f64) -> bool {
    (one / other - 1.0).abs() < 0.02
}

#[test]
fn a_thousand_against_five_hundred_a_second_wants_three_workers() {
    let told = World::default().plan();
    assert_eq!(told.binding.limit, Limit::Handler);
    assert!(near(told.binding.capacity, 500.0), "{told:?}");
    assert_eq!((told.recommend.replicas, told.recommend.partitions), (3, 12));
    assert!(told.recommend.is_enough && near(told.recommend.capacity, 1500.0), "{told:?}");
    assert!(told.one_more_replica.worth_it && near(told.one_more_replica.gain, 1.0));
    assert_eq!(told.drain_seconds, None, "more arrives than one can do");
    let three = World { workers: 3, ..World::default() }.plan();
    assert!(near(three.one_more_replica.gain, 1.0 / 3.0), "{three:?}");
    assert!(near(three.drain_seconds.unwrap(), 200.0), "100,000 at 500 a second: {three:?}");
}

#[test]
fn each_limit_is_named() {
    let of = |world: World| world.plan().binding.limit;
    let base = World::default;
    assert_eq!(of(World { work: 0.0, cpu: 0.3e-6, arrival: 2e6, ..base() }), Limit::Serial);
    assert_eq!(of(World { work: 0.0, serial: 0.5e-6, cpu: 4e-6, arrival: 1e6, ..base() }), Limit::Cpu);
    let skewed = vec![6.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    assert_eq!(of(World { workers: 4, weights: skewed, ..base() }), Limit::FullestPartition);
    assert_eq!(of(World { workers: 3, lanes: 64, hot: 0.6, ..base() }), Limit::HotGenerator);
    assert_eq!(
        of(World { workers: 4, weights: vec![1.0; 4], arrival: 4000.0, ..base() }),
        Limit::PartitionsExhausted
    );
    assert_eq!(of(World { workers: 13, arrival: 1e4, ..base() }), Limit::PartitionsExhausted);
    assert_eq!(of(World { workers: 3, weights: vec![1.0; 4], arrival: 4000.0, ..base() }), Limit::Uneven);
    let calm = World { workers: 3, backlog: false, ..base() }.plan();
    assert_eq!((calm.binding.limit, calm.next.map(|next| next.limit)), (Limit::None, Some(Limit::Handler)));
    assert!(!calm.one_more_replica.worth_it);
}

#[test]
fn workers_that_wait_are_told_by_what_they_wait_for() {
    let mut measured = World { work: 0.0, ..World::default() }.measure();
    for (throttled, committing, limit) in [(0.9, 0.1, Limit::Broker), (0.0, 0.9, Limit::Produce)] {
        let worker = &mut measured.workers[0];
        (worker.rate, worker.loop_busy, worker.cpu, worker.cores) = (300.0, 0.1, 0.1, 1.9);
        (worker.fetch_throttled, worker.committing) = (throttled, committing);
        let told = plan(&measured, None).unwrap();
        assert_eq!((told.binding.limit, told.binding.capacity), (limit, 300.0));
        assert!(!told.one_more_replica.worth_it, "{told:?}");
    }
}

#[test]
fn more_partitions_are_recommended_only_where_workers_alone_do_not_suffice() {
    let world = World { weights: vec![1.0; 4], arrival: 3000.0, ..World::default() };
    let mut measured = world.measure();
    let keys = (0..1000u32).map(|key| {
        let hash = crate::partitioner::murmur2(format!("generator{key}").as_bytes()) & 0x7fff_ffff;
        KeyShare { hash, share: 0.001 }
    });
    measured.keys = keys.collect();
    let told = plan(&measured, None).unwrap();
    assert_eq!(told.recommend.partitions, 12, "{told:?}");
    assert!(told.recommend.is_enough && (8..=12).contains(&told.recommend.replicas), "{told:?}");
    assert_eq!(plan(&measured, Some(1000.0)).unwrap().recommend.partitions, 4);
}

#[test]
fn a_hot_generator_is_not_worked_faster_by_anything() {
    let told = World { workers: 3, lanes: 64, hot: 0.6, ..World::default() }.plan();
    assert!(!told.recommend.is_enough && !told.one_more_replica.worth_it, "{told:?}");
    assert!(told.sentences()[0].contains("generator4 sends 60 %"), "{:?}", told.sentences());
}

#[test]
fn a_hot_generators_partition_is_worked_off_as_fast_as_it_goes() {
    let world = World { workers: 3, lanes: 64, hot: 0.6, arrival: 0.0, ..World::default() };
    let mut measured = world.measure();
    // All but the hot generator's partition are done with.
    for load in &mut measured.partitions {
        (load.lag, load.done) = (0.0, 0.0);
    }
    (measured.partitions[4].lag, measured.partitions[4].done) = (5000.0, 500.0);
    let told = plan(&measured, None).unwrap();
    assert!(near(told.drain_seconds.unwrap(), 10.0), "{told:?}");
    assert_eq!(told.drain_partition, Some(4));
}

#[test]
fn what_says_nothing_is_refused() {
    assert_eq!(plan(&Measurements::default(), None), Err(PlanError::NoWorkers));
    let mut measured = World::default().measure();
    measured.workers[0].rate = 0.0;
    assert_eq!(plan(&measured, None), Err(PlanError::NothingProcessed));
    measured.workers[0].fetch_throttled = 0.9;
    assert_eq!(plan(&measured, None), Err(PlanError::Throttled));
    measured.partitions.clear();
    assert_eq!(plan(&measured, None), Err(PlanError::NoPartitions));
}

#[test]
fn its_json_is_the_contract_s() {
    let told = World { workers: 2, ..World::default() }.plan();
    let json = serde_json::to_value(&told).unwrap();
    for path in
        ["/target_rate", "/measured/rate", "/measured/capacity", "/binding/capacity", "/recommend/capacity"]
    {
        assert!(json.pointer(path).is_some_and(serde_json::Value::is_number), "{path}: {json}");
    }
    assert_eq!(json["binding"]["limit"], "handler");
    assert_eq!(json["recommend"]["replicas"], 3);
    assert_eq!(json["one_more_replica"]["worth_it"], true);
    assert!(json["drain_seconds"].is_null());
}

fn worlds() -> impl Strategy<Value = World> {
    let weights = prop::collection::vec(0.2f64..4.0, 1..25);
    let costs = (0.1f64..4.0, 0.0f64..5.0, 0.1f64..8.0);
    (1usize..16, weights, 1f64..20_000.0, costs, 1usize..200, 0.001f64..0.9, any::<bool>()).prop_map(
        |(workers, weights, arrival, (serial, work, cpu), lanes, hot, backlog)| World {
            workers,
            weights,
            arrival,
            work: if work < 0.5 { 0.0 } else { work * 1e-3 },
            lanes,
            serial: serial * 1e-6,
            cpu: cpu * 1e-6,
            cores: 2.0,
            hot,
            backlog,
        },
    )
}

proptest! {
    #[test]
    fn there_are_never_more_workers_than_partitions(world in worlds(), target in 1f64..1e6) {
        let told = plan(&world.measure(), Some(target)).unwrap();
        prop_assert!(told.recommend.replicas <= told.recommend.partitions, "{told:?}");
        prop_assert!(told.recommend.partitions >= world.weights.len());
        prop_assert!(told.recommend.replicas >= 1);
    }

    #[test]
    fn more_is_never_recommended_for_less(world in worlds(), target in 1f64..1e5, more in 1f64..10.0) {
        let measured = world.measure();
        let less = plan(&measured, Some(target)).unwrap().recommend;
        let larger = plan(&measured, Some(target * more)).unwrap().recommend;
        prop_assert!(less.replicas <= larger.replicas, "{less:?} {larger:?}");
        prop_assert!(less.partitions <= larger.partitions, "{less:?} {larger:?}");
        prop_assert!(less.is_enough || !larger.is_enough);
    }

    /// The capacity that the world would have, not the planner's own formula, is the judge.
    #[test]
    fn a_worthless_step_is_never_called_worthwhile(mut world in worlds()) {
        world.backlog = true;
        world.weights.iter_mut().for_each(|weight| *weight = 1.0);
        let told = world.plan();
        let before = world.capacity();
        world.workers += 1;
        let gain = world.capacity() / before - 1.0;
        if told.one_more_replica.worth_it {
            prop_assert!(gain > LEAST_GAIN - 0.02, "{gain} {told:?}");
        }
        prop_assert!((told.measured.capacity / before - 1.0).abs() < 0.02, "{before} {told:?}");
        prop_assert!((told.one_more_replica.gain - gain).abs() < 0.02, "{gain} {told:?}");
    }

    #[test]
    fn what_is_lifted_never_makes_it_slower(world in worlds()) {
        let told = world.plan();
        if let (Some(next), false) = (&told.next, told.binding.limit == Limit::None) {
            prop_assert!(next.capacity >= told.binding.capacity * 0.999, "{told:?}");
        }
        for sentence in told.sentences() {
            prop_assert!(!sentence.contains("NaN") && !sentence.contains("inf"), "{sentence}");
        }
    }
}
