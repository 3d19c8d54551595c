//! The physics of one generator. One reading is one step of [`STEP_SECONDS`] model seconds, whatever the clock says.

use rand::Rng as _;
use rand_pcg::Pcg32;

/// Model time from one reading to the next, in seconds.
pub const STEP_SECONDS: u32 = 60;
const STEPS_A_DAY: u32 = 86_400 / STEP_SECONDS;

/// Sites of hospitals, data centres and pumping stations: where people live. Latitude and longitude in 1e-5 degrees.
const REGIONS: [(i32, i32); 6] = [
    (4_065_995, -11_199_633),
    (4_776_000, 1_132_000),
    (5_147_000, -45_000),
    (-3_386_000, 15_120_000),
    (132_000, 10_384_000),
    (3_570_000, 13_970_000),
];
/// Tanks, in litres.
const CAPACITIES: [f64; 4] = [800.0, 1000.0, 1250.0, 1500.0];

/// Litres per hour at full load per 1000 litres of tank: tanks are sized for nine hours.
const BURN: f64 = 110.0;
/// Litres per step that a leaking pipe loses.
const LEAK: f64 = 3.0;
/// °C of the coolant above ambient: idling, per percent of load, without the fan.
const IDLE_HEAT: f64 = 42.0;
const LOAD_HEAT: f64 = 0.22;
const FAN_HEAT: f64 = 42.0;
/// The share of the distance to its equilibrium that the coolant covers per step.
const HEATING: f64 = 0.18;
/// Below this many litres the truck is called.
const CALL_TRUCK_BELOW: f64 = 230.0;

/// One simulated generator.
#[derive(Debug)]
pub struct Generator {
    random: Pcg32,
    lat_e5: i32,
    lon_e5: i32,
    capacity: f64,
    fuel: f64,
    /// Always runs, not only in outages.
    prime_power: bool,
    /// Reports load and power, as newer controllers do.
    electrical: bool,
    /// Steps until the mains return.
    outage: u32,
    /// Percent, 0 while on standby.
    load: f64,
    coolant: f64,
    /// °C at the middle of the daily wave.
    climate: f64,
    time_of_day: u32,
    /// Steps until the fan is repaired.
    fan_failed: u32,
    /// Steps until the leak is repaired.
    leaking: u32,
    /// Steps until the truck comes.
    truck: Option<u32>,
}

/// The measurements of a generator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Latitude in 1e-5 degrees.
    pub lat_e5: i32,
    /// Longitude in 1e-5 degrees.
    pub lon_e5: i32,
    /// Coolant, °C.
    pub temperature: f64,
    /// Oil, kPa.
    pub pressure: f64,
    /// Litres.
    pub fuel: f64,
    /// Load in percent and power in kW, where the controller reports them.
    pub electrical: Option<(f64, f64)>,
}

impl Generator {
    /// The generator with this index in the fleet of this seed.
    #[must_use]
    pub fn new(seed: u64, index: u32) -> Generator {
        let mut random = super::random(seed, u64::from(index));
        let (lat, lon) = REGIONS[random.random_range(0..REGIONS.len())];
        let capacity = CAPACITIES[random.random_range(0..CAPACITIES.len())];
        // Some start with their tank nearly due.
        let fuel = if random.random_ratio(1, 20) {
            random.random_range(198.0..225.0)
        } else {
            random.random_range(260.0..capacity * 0.98)
        };
        let climate = random.random_range(8.0..28.0);
        let prime_power = random.random_ratio(1, 4);
        let running = prime_power || random.random_ratio(1, 3);
        Generator {
            lat_e5: lat + random.random_range(-90_000..90_000),
            lon_e5: lon + random.random_range(-90_000..90_000),
            capacity,
            fuel,
            prime_power,
            electrical: random.random_ratio(1, 3),
            outage: if running { random.random_range(20..200) } else { 0 },
            load: if running { random.random_range(25.0..85.0) } else { 0.0 },
            coolant: climate + if running { 50.0 } else { 15.0 },
            climate,
            time_of_day: random.random_range(0..STEPS_A_DAY),
            fan_failed: 0,
            leaking: 0,
            truck: None,
            random,
        }
    }

    /// Advances by a step, and measures.
    pub fn step(&mut self) -> Reading {
        self.time_of_day = (self.time_of_day + 1) % STEPS_A_DAY;
        self.take_load();
        self.wear();
        self.heat();
        self.burn();
        self.refuel();
        self.measure()
    }

    fn is_running(&self) -> bool {
        self.prime_power || self.outage > 0
    }

    /// The mains fail and return; load wanders while running.
    fn take_load(&mut self) {
        match self.outage {
            0 if self.random.random_ratio(1, 300) => self.outage = self.random.random_range(20..240),
            left => self.outage = left.saturating_sub(1),
        }
        self.load = if !self.is_running() {
            0.0
        } else if self.load < 20.0 {
            self.random.random_range(25.0..85.0)
        } else {
            (self.load + self.random.random_range(-3.0..3.0)).clamp(20.0, 95.0)
        };
    }

    /// Fans fail and pipes leak now and then, until they are repaired.
    fn wear(&mut self) {
        self.fan_failed = match self.fan_failed {
            0 if self.is_running() && self.random.random_ratio(1, 900) => self.random.random_range(10..45),
            left => left.saturating_sub(1),
        };
        self.leaking = match self.leaking {
            0 if self.random.random_ratio(1, 2000) => self.random.random_range(60..240),
            left => left.saturating_sub(1),
        };
    }

    /// The coolant approaches an equilibrium of ambient and load, with a lag.
    fn heat(&mut self) {
        let above_ambient = match self.is_running() {
            false => 12.0,
            true => IDLE_HEAT + LOAD_HEAT * self.load + if self.fan_failed > 0 { FAN_HEAT } else { 0.0 },
        };
        let equilibrium = self.ambient() + above_ambient;
        self.coolant += (equilibrium - self.coolant) * HEATING + self.random.random_range(-0.6..0.6);
    }

    /// A triangle wave over the day, ±7 °C.
    fn ambient(&self) -> f64 {
        let phase = f64::from(self.time_of_day) / f64::from(STEPS_A_DAY);
        let wave = if phase < 0.5 { 4.0 * phase - 1.0 } else { 3.0 - 4.0 * phase };
        self.climate + 7.0 * wave
    }

    fn burn(&mut self) {
        let full_load = BURN * self.capacity / 1000.0 * f64::from(STEP_SECONDS) / 3600.0;
        let burnt = if self.is_running() { full_load * (0.15 + 0.85 * self.load / 100.0) } else { 0.0 };
        let leaked = if self.leaking > 0 { LEAK } else { 0.0 };
        self.fuel = (self.fuel - burnt - leaked).max(0.0);
    }

    fn refuel(&mut self) {
        self.truck = match self.truck {
            None if self.fuel < CALL_TRUCK_BELOW => Some(self.random.random_range(15..90)),
            Some(0) => {
                self.fuel = self.fuel.max(self.capacity * self.random.random_range(0.90..0.98));
                None
            }
            Some(left) => Some(left - 1),
            None => None,
        };
    }

    fn measure(&mut self) -> Reading {
        let noise = self.random.random_range(-4.0..4.0);
        // Hot oil is thinner.
        let hot = (self.coolant - 80.0).max(0.0);
        let pressure =
            if self.is_running() { (190.0 + 1.6 * self.load - 1.5 * hot + noise).max(40.0) } else { 0.0 };
        // The tank's sender sloshes by a litre while running, not at all otherwise.
        let slosh = if self.is_running() { noise / 4.0 } else { 0.0 };
        let rated = self.capacity * 0.4;
        Reading {
            lat_e5: self.lat_e5,
            lon_e5: self.lon_e5,
            temperature: self.coolant,
            pressure,
            fuel: (self.fuel + slosh).clamp(0.0, self.capacity),
            electrical: self.electrical.then_some((self.load, rated * self.load / 100.0)),
        }
    }
}
