//! Set-ups in which one limit binds, made by seed: small enough for two cores.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::prelude::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg64;
use serde_json::Value;

use super::feed::{Feed, Feeding};
use crate::world::broker::tool;
use crate::world::process::Process;
use crate::world::{World, until};

/// What is to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Handler,
    Cpu,
    Serial,
    FullestPartition,
    HotGenerator,
    PartitionsExhausted,
    Uneven,
    Broker,
    Produce,
    None,
}

impl Limit {
    pub const ALL: [Limit; 10] = [
        Limit::Handler,
        Limit::Cpu,
        Limit::Serial,
        Limit::FullestPartition,
        Limit::HotGenerator,
        Limit::PartitionsExhausted,
        Limit::Uneven,
        Limit::Broker,
        Limit::Produce,
        Limit::None,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Limit::Handler => "handler",
            Limit::Cpu => "cpu",
            Limit::Serial => "serial",
            Limit::FullestPartition => "fullest_partition",
            Limit::HotGenerator => "hot_generator",
            Limit::PartitionsExhausted => "partitions_exhausted",
            Limit::Uneven => "uneven",
            Limit::Broker => "broker",
            Limit::Produce => "produce",
            Limit::None => "none",
        }
    }
}

/// A group and what it is fed with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub partitions: u32,
    pub workers: usize,
    pub options: Vec<String>,
    /// So many rules are evaluated for each reading.
    pub rules: usize,
    /// The workers share one core.
    pub pinned: bool,
    pub feed: Feed,
    /// A quota of the workers' clients: `consumer_byte_rate=50000`.
    pub quota: Option<String>,
}

impl Setup {
    pub fn new(limit: Limit, seed: u64) -> Setup {
        let mut random = Pcg64::seed_from_u64(seed * 100 + limit as u64);
        let millis = random.random_range(3..=6u32);
        let equal = |count: usize| vec![(1.0, None); count];
        let mut setup = Setup {
            seed,
            partitions: 12,
            workers: 1,
            options: vec!["--work".to_owned(), format!("{millis}ms"), "--concurrency".to_owned()],
            rules: 0,
            pinned: false,
            feed: Feed { rate: 0.0, generators: equal(random.random_range(200..=600)), stormy: false },
            quota: None,
        };
        let mut lanes = 1;
        let each = |lanes: usize| lanes as f64 * 1000.0 / f64::from(millis);
        match limit {
            Limit::Handler => {
                lanes = random.random_range(1..=4);
                setup.workers = random.random_range(1..=3);
                setup.feed.rate = each(lanes) * setup.workers as f64 * random.random_range(1.4..=2.0);
            }
            Limit::Cpu | Limit::Serial => {
                setup.rules = random.random_range(5_000..=8_000);
                setup.pinned = limit == Limit::Cpu;
                setup.options.clear();
                setup.feed.generators = equal(random.random_range(20..=60));
                // A loop takes some nanoseconds a rule.
                setup.feed.rate = 90_000.0;
            }
            Limit::FullestPartition => {
                lanes = 2;
                setup.partitions = random.random_range(4..=8);
                setup.workers = random.random_range(2..=3);
                let share: f64 = random.random_range(0.6..=0.8);
                let others = setup.partitions - 1;
                let many = 40 * others;
                let of_others =
                    (0..many).map(|n| ((1.0 - share) / f64::from(many), Some(1 + (n % others) as i32)));
                let of_fullest = (0..100).map(|_| (share / 100.0, Some(0)));
                setup.feed.generators = of_fullest.chain(of_others).collect();
                setup.feed.rate = each(lanes) / share * random.random_range(1.3..=1.8);
            }
            Limit::HotGenerator => {
                lanes = 64;
                setup.workers = random.random_range(1..=3);
                let share: f64 = random.random_range(0.4..=0.7);
                let others = setup.feed.generators.len() - 1;
                setup.feed.generators[1..]
                    .iter_mut()
                    .for_each(|(weight, _)| *weight = (1.0 - share) / others as f64);
                setup.feed.generators[0].0 = share;
                setup.feed.rate = each(1) / share * random.random_range(1.3..=1.8);
            }
            Limit::PartitionsExhausted => {
                setup.partitions = random.random_range(2..=3);
                setup.workers = setup.partitions as usize + random.random_range(0..=1);
                setup.feed.rate = each(lanes) * f64::from(setup.partitions) * random.random_range(1.4..=2.0);
            }
            Limit::Uneven => {
                (setup.partitions, setup.workers) =
                    [(4, 3), (6, 4), (5, 3), (8, 5)][random.random_range(0..4)];
                // Keys don't fall evenly into partitions: these do.
                let partitions = setup.partitions;
                setup.feed.generators =
                    (0..40 * partitions).map(|n| (1.0, Some((n % partitions) as i32))).collect();
                setup.feed.rate = each(lanes) * setup.workers as f64 * random.random_range(1.2..=1.6);
            }
            Limit::Broker => {
                lanes = 64;
                setup.feed.rate = random.random_range(600.0..=1_000.0);
                setup.quota = Some(format!("consumer_byte_rate={}", random.random_range(40_000..=60_000)));
                // Small fetches: after a large one the broker is silent for seconds.
                setup.options.splice(..0, ["-X".to_owned(), "fetch.message.max.bytes=2000".to_owned()]);
            }
            Limit::Produce => {
                lanes = 64;
                setup.feed.stormy = true;
                setup.feed.rate = random.random_range(400.0..=700.0);
                setup.quota = Some(format!("producer_byte_rate={}", random.random_range(40_000..=60_000)));
                // Small transactions: after a large one the broker is silent for seconds.
                setup.options.splice(..0, ["--max-in-flight".to_owned(), "24".to_owned()]);
            }
            Limit::None => {
                lanes = 2;
                setup.workers = random.random_range(1..=3);
                setup.feed.rate = each(lanes) * setup.workers as f64 * random.random_range(0.2..=0.4);
            }
        }
        if !setup.options.is_empty() {
            setup.options.push(lanes.to_string());
        }
        setup
    }

    /// Starts it, and waits until the workers share the partitions and something waits for them.
    pub fn start<'w>(&self, world: &'w World) -> Running<'w> {
        world.run("topics create", &["--partitions", &self.partitions.to_string()]).success();
        let mut options = self.options.clone();
        if self.rules > 0 {
            let path = format!("{}/{}-rules.toml", env!("CARGO_TARGET_TMPDIR"), world.topic);
            std::fs::write(&path, rules(self.rules)).expect("written");
            options.extend(["--rules".to_owned(), path]);
        }
        if let Some(quota) = &self.quota {
            options.extend(["-X".to_owned(), format!("client.id={}", world.topic)]);
            let entity =
                ["--alter", "--entity-type", "clients", "--entity-name", &world.topic, "--add-config", quota];
            tool(
                "kafka.admin.ConfigCommand",
                &[&["--bootstrap-server", &world.brokers][..], &entity].concat(),
            );
        }
        let mut running = Running { world, setup: self.clone(), options, workers: Vec::new(), feeding: None };
        for _ in 0..self.workers {
            running.add_worker();
        }
        running.wait_until_dealt();
        running.feeding = Some(self.feed.start(&world.brokers, &world.topic, self.seed));
        let begun = Instant::now();
        until("it is under way", || {
            let (progress, elapsed) = (world.progress(), begun.elapsed());
            progress.done() > 100 && elapsed > Duration::from_secs(6)
        });
        running
    }
}

/// A set-up under way.
pub struct Running<'w> {
    pub world: &'w World,
    pub setup: Setup,
    options: Vec<String>,
    workers: Vec<Process>,
    feeding: Option<Feeding>,
}

impl Running<'_> {
    /// One more.
    pub fn add_worker(&mut self) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let _pinned = self.setup.pinned.then(Pinned::to_one_core);
        self.workers.push(self.world.worker(&options));
    }

    /// Waits until no worker waits for partitions that there are.
    pub fn wait_until_dealt(&self) {
        let holding = self.workers.len().min(self.setup.partitions as usize);
        until("the partitions are dealt", || {
            let held = |worker: &&Process| worker.assignments().iter().any(|assigned| !assigned.is_empty());
            self.workers.iter().filter(held).count() >= holding
        });
    }

    /// Waits until every partition with something to do goes on.
    pub fn wait_until_all_move(&self) {
        let before = self.world.progress();
        until("every partition goes on", || {
            let now = self.world.progress();
            let goes_on = |(id, (committed, low, end)): (&i32, &(Option<i64>, i64, i64))| {
                *committed > before.partitions[id].0 || committed.unwrap_or(*low) == *end
            };
            now.partitions.iter().all(goes_on)
        });
    }

    /// Who has which partition.
    pub fn owners(&self) -> BTreeMap<i32, String> {
        let status = self.world.run("status", &["--json"]).success().json();
        let partitions = status["partitions"].as_array().cloned().unwrap_or_default();
        let owner = |partition: &Value| {
            let id = i32::try_from(partition["partition"].as_i64()?).ok()?;
            Some((id, partition["owner"].as_str()?.to_owned()))
        };
        partitions.iter().filter_map(owner).collect()
    }

    /// What the advisor says.
    pub fn plan(&self, span: &str) -> Value {
        self.world.run("topics plan", &["--json", "--for", span]).success().json()
    }

    /// The same; if it says nothing, its reason.
    pub fn try_plan(&self, span: &str) -> Result<Value, String> {
        let ended = self.world.run("topics plan", &["--json", "--for", span]);
        if ended.code == Some(0) { Ok(ended.json()) } else { Err(ended.stderr) }
    }

    /// The feed ends.
    pub fn stop_feeding(&mut self) {
        if let Some(feeding) = self.feeding.take() {
            feeding.stop();
        }
    }
}

/// While it is held, processes that this thread starts run on one core.
struct Pinned(rustix::thread::CpuSet);

impl Pinned {
    fn to_one_core() -> Pinned {
        let before = rustix::thread::sched_getaffinity(None).expect("known");
        let mut one = rustix::thread::CpuSet::new();
        let last =
            (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|cpu| before.is_set(*cpu)).expect("a core");
        one.set(last);
        rustix::thread::sched_setaffinity(None, &one).expect("allowed");
        Pinned(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = rustix::thread::sched_setaffinity(None, &self.0);
    }
}

/// Rules that no reading meets.
fn rules(count: usize) -> String {
    let rule = |n: usize| {
        format!(
            "[[rule]]\nname = \"rule{n}\"\nfield = \"fuel\"\nraise_below = -{n}.0\nseverity = \"warning\"\n"
        )
    };
    (1..=count).map(rule).collect()
}
