//! What a seed decides before its run begins: rules, sizes, delays, and how often things go wrong.

use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::start::OnNewTopic;
use genwatch_core::pool::{Bounds, CommitPolicy, Handling};
use genwatch_oracle::{Kind, Limit, NaiveRule};
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::librdkafka::Protocol;
use crate::records::Rarity;

/// One run's parameters. Times are virtual milliseconds.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The delivery guarantee.
    pub delivery: Delivery,
    /// The rules.
    pub rules: Vec<NaiveRule>,
    /// Silence after which a generator is forgotten.
    pub forget_after: Option<i64>,
    /// How workers process readings.
    pub handling: Handling,
    /// The memory bounds of a worker.
    pub bounds: Bounds,
    /// When workers commit.
    pub policy: CommitPolicy,
    /// Partitions of the readings topic.
    pub partitions: usize,
    /// Generators in each partition.
    pub generators: usize,
    /// Records to produce over all partitions.
    pub records: usize,
    /// Kinds of records.
    pub rarity: Rarity,
    /// Workers at the start.
    pub replicas: usize,
    /// Most workers at a time.
    pub max_replicas: usize,
    /// Most records that a poll returns.
    pub batch: usize,
    /// Steps before faults cease and the run settles.
    pub steps: usize,
    /// The longest time that a step takes.
    pub tick: i64,
    /// A member without a heartbeat for this long is evicted.
    pub session: i64,
    /// The longest time that a rebalance waits for members.
    pub patience: i64,
    /// How partitions change hands.
    pub protocol: Protocol,
    /// Whether members are static (KIP-345).
    pub is_static: bool,
    /// A partition whose state can't be restored until everything else has settled.
    pub blocked: Option<i32>,
    /// A transaction that is open longer than this is aborted.
    pub transaction: i64,
    /// The longest drain of a revoked partition.
    pub drain: i64,
    /// The usual longest time to process a reading.
    pub work: i64,
    /// The longest time that a rare slow reading takes.
    pub slow_work: i64,
    /// The share of steps with a fault.
    pub faults: f64,
    /// How often a commit's step is refused.
    pub refusals: f64,
    /// How often a fetch fails and a notice replaces the record.
    pub notices: f64,
    /// How often the fetcher repeats records.
    pub repeats: f64,
    /// How often the log skips offsets.
    pub gaps: f64,
    /// The share of steps in which the readings topic is deleted and re-created.
    pub made_anew: f64,
    /// How often a partition elects a leader that lacks the end of its log.
    pub unclean_elections: f64,
    /// The workers' setting for a re-created topic. With `Fail`, an operator decides and restarts the worker.
    pub on_new_topic: OnNewTopic,
    /// Whether the states of a topic that was re-created are kept: the operator's decision.
    pub keeps_states: bool,
}

/// The limit of a worker's commit.
const COMMIT_BYTES: usize = 16 << 20;

impl Scenario {
    /// Draws a scenario.
    pub fn draw(rng: &mut impl Rng) -> Scenario {
        let delivery = if rng.random_bool(0.25) { Delivery::AtLeastOnce } else { Delivery::ExactlyOnce };
        let handling = if rng.random_bool(0.2) {
            Handling::Inline
        } else {
            Handling::Lanes { concurrency: *[1, 2, 3, 4, 8, 64].choose(rng).unwrap_or(&1) }
        };
        let interval = *[1, 20, 100, 400].choose(rng).unwrap_or(&100);
        let protocols = [Protocol::Cooperative, Protocol::Cooperative, Protocol::Eager, Protocol::Consumer];
        let protocol = *protocols.choose(rng).unwrap_or(&Protocol::Cooperative);
        let faults = *[0.0, 0.002, 0.005, 0.01, 0.03].choose(rng).unwrap_or(&0.0);
        let keeps_states = rng.random_bool(0.5);
        let decided = if keeps_states { OnNewTopic::KeepStates } else { OnNewTopic::ForgetStates };
        let often = |rng: &mut _, share, often| if Rng::random_bool(rng, share) { often } else { 0.0 };
        let rules = rules(rng, delivery);
        let forget_after = silent_for(&rules).filter(|_| rng.random_bool(0.5));
        Scenario {
            delivery,
            forget_after: forget_after.map(|after| after + *[0, 100, 3000].choose(rng).unwrap_or(&0)),
            rules,
            handling,
            bounds: Bounds {
                records: *[1, 3, 8, 24, 100, 1000].choose(rng).unwrap_or(&8),
                bytes: *[1, 700, 3000, 20_000, 1_000_000].choose(rng).unwrap_or(&3000),
            },
            policy: CommitPolicy {
                interval,
                linger: rng.random_range(0..=interval.min(20)),
                bytes: *[1, 1000, 4000, COMMIT_BYTES, COMMIT_BYTES].choose(rng).unwrap_or(&COMMIT_BYTES),
            },
            partitions: rng.random_range(1..=4),
            generators: rng.random_range(1..=5),
            records: rng.random_range(10..=160),
            rarity: Rarity {
                bad: *[0.0, 0.05, 0.3].choose(rng).unwrap_or(&0.0),
                tombstone: *[0.0, 0.05, 0.15].choose(rng).unwrap_or(&0.0),
            },
            replicas: rng.random_range(1..=3),
            max_replicas: rng.random_range(1..=4),
            batch: *[1, 2, 5, 20].choose(rng).unwrap_or(&5),
            steps: rng.random_range(200..=1500),
            tick: *[1, 4, 12].choose(rng).unwrap_or(&4),
            session: rng.random_range(300..=1500),
            patience: rng.random_range(300..=3000),
            protocol,
            is_static: protocol != Protocol::Consumer && rng.random_bool(0.3),
            blocked: rng.random_bool(0.1).then_some(0),
            transaction: rng.random_range(200..=1500),
            drain: *[1, 100, 1000].choose(rng).unwrap_or(&100),
            work: *[0, 3, 20, 60].choose(rng).unwrap_or(&3),
            slow_work: *[50, 500, 2000].choose(rng).unwrap_or(&500),
            faults,
            refusals: if faults > 0.0 { *[0.0, 0.05, 0.3].choose(rng).unwrap_or(&0.0) } else { 0.0 },
            notices: *[0.0, 0.0, 0.02, 0.1].choose(rng).unwrap_or(&0.0),
            repeats: *[0.0, 0.02, 0.1].choose(rng).unwrap_or(&0.0),
            gaps: *[0.0, 0.1, 0.4].choose(rng).unwrap_or(&0.0),
            made_anew: often(rng, 0.2, 0.003),
            // Under at-least-once the visible effects of a generator are unknown, and so is what a lost end leaves.
            unclean_elections: if delivery == Delivery::ExactlyOnce { often(rng, 0.25, 0.01) } else { 0.0 },
            on_new_topic: if rng.random_bool(0.2) { OnNewTopic::Fail } else { decided },
            keeps_states,
        }
    }
}

impl Scenario {
    /// An operator decides what to do with a re-created topic.
    pub fn decide(&mut self) {
        self.on_new_topic = if self.keeps_states { OnNewTopic::KeepStates } else { OnNewTopic::ForgetStates };
    }

    /// The most bytes of one reading's effects: an alert for each rule, and a state that names them all.
    pub fn effect_bytes(&self) -> usize {
        const OVERHEAD: usize = 192;
        const ALERT: usize = 408;
        (self.rules.len() + 1) * OVERHEAD + 140 + self.rules.len() * (ALERT + 160)
    }

    /// The silence that a rule allows, if there is one.
    pub fn silent_for(&self) -> Option<i64> {
        silent_for(&self.rules)
    }

    /// The fewest bytes of a part of a commit before it may leave something behind for its size.
    pub fn least_share(&self) -> usize {
        (self.policy.bytes / 256 / self.partitions).saturating_sub(self.effect_bytes())
    }
}

fn silent_for(rules: &[NaiveRule]) -> Option<i64> {
    rules.iter().find_map(|rule| match rule.kind {
        Kind::Deadman(after) => Some(after),
        Kind::Limit(_) => None,
    })
}

fn rules(rng: &mut impl Rng, delivery: Delivery) -> Vec<NaiveRule> {
    let mut rules: Vec<NaiveRule> = (0..rng.random_range(1..=3)).map(|index| limit(rng, index)).collect();
    // Under at-least-once, repeating what a clock decided gives another event: nothing to compare.
    if delivery == Delivery::ExactlyOnce && rng.random_bool(0.25) {
        let after = rng.random_range(200..=3000);
        let place = rng.random_range(0..=rules.len());
        let rule =
            NaiveRule { name: "silent".to_owned(), severity: "info".to_owned(), kind: Kind::Deadman(after) };
        rules.insert(place, rule);
    }
    rules
}

fn limit(rng: &mut impl Rng, index: usize) -> NaiveRule {
    let field = *["temperature", "pressure", "fuel", "load", "power"].choose(rng).unwrap_or(&"fuel");
    let below = rng.random_bool(0.5);
    let raise = f64::from(rng.random_range(2..=8)) * 10.0;
    let beyond = f64::from(rng.random_range(0..=3)) * 10.0;
    let clear = rng.random_bool(0.7).then_some(if below { raise + beyond } else { raise - beyond });
    let mut delay = |often: f64| if rng.random_bool(often) { rng.random_range(1..=400) } else { 0 };
    let (on, off, realarm) = (delay(0.4), delay(0.4), delay(0.3));
    NaiveRule {
        name: format!("rule-{index}"),
        severity: if below { "warning" } else { "critical" }.to_owned(),
        kind: Kind::Limit(Limit {
            field,
            below,
            raise,
            clear,
            on,
            off,
            realarm: (realarm > 0).then_some(realarm),
        }),
    }
}

/// Returns the rules file.
pub fn toml(rules: &[NaiveRule]) -> String {
    rules.iter().map(NaiveRule::to_toml).collect()
}
