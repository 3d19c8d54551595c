//! The generators: what they send, and to which partition.
//!
//! The producer chooses the partition by generator: when a topic grows, all generators stay where they are, with their
//! alarm states; new generators use the new partitions. (A client that partitions by key would split a generator's
//! readings over two partitions: `docs/operations.md`, "More partitions".)

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg32;

use genwatch_oracle::{Limit, NaiveRule};

use crate::aggregates::{GRACE, WINDOW};

const PER_PARTITION: i32 = 4;

/// The generator whose work always takes long. It shares its partition with others.
pub const SLOW: &str = "slow";
pub const SLOW_PARTITION: i32 = 0;
pub const SLOW_WORK: Duration = Duration::from_secs(10);
/// The time between its readings: it has to get through them although its worker is killed now and then.
pub const SLOW_EVERY: Duration = Duration::from_secs(40);

/// The work of generators that report only on request, one in each initial partition: they make a drain take time.
pub const DRAG_WORK: Duration = Duration::from_secs(3);

/// What the generators that report at the end are called.
const LAST: &str = "last";

/// Whether it reports at the end only: its own windows are still open.
pub fn is_last(generator: &str) -> bool {
    generator.starts_with(LAST)
}

/// The generator of a partition that reports on request.
pub fn drag(partition: i32) -> String {
    format!("drag{partition}")
}

/// Whether a generator's work takes long.
pub fn is_slow(generator: &str) -> bool {
    generator == SLOW || generator.starts_with("drag")
}

/// The rules of the workers and of the oracle. `heartbeat` fires at every reading: thus a proof for alerts is a proof
/// for readings. `hot` has delays, so that a pending phase has to move with its partition.
pub fn rules() -> Vec<NaiveRule> {
    let each = Limit { realarm: Some(1), ..Limit::above("temperature", -1000.0) };
    let hot = Limit { clear: Some(85.0), on: 700, off: 400, ..Limit::above("temperature", 90.0) };
    let ours = [NaiveRule::limit("heartbeat", "info", each), NaiveRule::limit("hot", "warning", hot)];
    NaiveRule::built_in().into_iter().chain(ours).collect()
}

/// A record to send.
pub struct Outgoing {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<Vec<u8>>,
    /// How many milliseconds late its timestamp is.
    pub late: i64,
}

impl Outgoing {
    /// A good reading of a generator that reports now and then.
    pub fn reading(generator: &str, partition: i32) -> Outgoing {
        let value = Some(reading(generator, 85.0, 260.0).into_bytes());
        Outgoing { partition, key: Some(generator.to_owned()), value, late: 0 }
    }
}

impl Outgoing {
    /// The reading that takes a partition's watermark past the windows of all others.
    pub fn last(partition: i32) -> Outgoing {
        let generator = format!("{LAST}{partition}");
        Outgoing { late: -(GRACE + 2 * WINDOW), ..Outgoing::reading(&generator, partition) }
    }
}

/// Generators in turn, each on a random walk that often crosses all thresholds; now and then a bad record, a late one,
/// or a decommissioning.
pub struct Fleet {
    random: Pcg32,
    walks: Vec<Walk>,
    turn: usize,
    /// Each has reported once.
    is_known: bool,
    partitions: i32,
}

struct Walk {
    partition: i32,
    temperature: f64,
    fuel: f64,
}

impl Fleet {
    pub fn new(seed: u64, partitions: i32) -> Fleet {
        let mut fleet = Fleet {
            random: Pcg32::seed_from_u64(seed),
            walks: Vec::new(),
            turn: 0,
            is_known: false,
            partitions: 0,
        };
        fleet.grow(partitions);
        fleet
    }

    /// New generators in new partitions; all others stay where they are.
    pub fn grow(&mut self, partitions: i32) {
        let new =
            (self.partitions..partitions).flat_map(|partition| (0..PER_PARTITION).map(move |_| partition));
        self.walks.extend(new.map(|partition| Walk { partition, temperature: 85.0, fuel: 260.0 }));
        self.partitions = self.partitions.max(partitions);
    }

    pub fn next(&mut self) -> Outgoing {
        self.turn = (self.turn + 1) % self.walks.len();
        self.is_known |= self.turn == 0;
        let id = format!("generator{}", self.turn);
        let Walk { partition, temperature, fuel } = &mut self.walks[self.turn];
        *temperature = (*temperature + self.random.random_range(-6.0..6.0)).clamp(70.0, 110.0);
        *fuel = (*fuel + self.random.random_range(-25.0..25.0)).clamp(120.0, 330.0);
        let good = reading(&id, *temperature, *fuel);
        // Some are so late that the watermark, to the millisecond, decides whether their window is still open: but no
        // partition begins with one of them (see `aggregates`).
        let late = match self.random.random_range(0..200) {
            0..4 => 3000,
            4 if self.is_known => self.random.random_range(GRACE - WINDOW..GRACE + 2 * WINDOW),
            _ => 0,
        };
        let (key, value) = match self.random.random_range(0..600) {
            0 => (Some(id), None),
            1 => (None, Some(good)),
            2 => (Some(format!("{id}0")), Some(good)),
            3 => (Some(id), Some(good.replace("\"fuel\"", "\"diesel\""))),
            4 => (Some(id), Some(good[..good.len() / 2].to_owned())),
            5 => (Some(id), Some(good.replace("198", "\"high\""))),
            6 => (Some(id), Some(good.replace("40.65995", "90.65995"))),
            _ => (Some(id), Some(good)),
        };
        Outgoing { partition: *partition, key, value: value.map(String::into_bytes), late }
    }
}

fn reading(id: &str, temperature: f64, fuel: f64) -> String {
    let reading = serde_json::json!({
        "generatorID": id, "lat": 40.65995, "lon": -111.99633,
        "temperature": temperature, "pressure": 198, "fuel": fuel,
    });
    reading.to_string()
}
