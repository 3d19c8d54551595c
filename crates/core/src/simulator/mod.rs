//! A simulated fleet of generators that report, and faults mixed into their reports.
//!
//! * [`generator`]: the physics of one generator: tank, load, ambient temperature, cooling, wear.
//! * [`faults`]: every kind of bad record.
//! * this file: the turns of the fleet, and readings as records.
//!
//! Pure: no Kafka, clock, thread or global randomness. The same seed gives the same bytes on every platform. A
//! generator's sequence depends only on the seed and its number, so neither the size of the fleet nor faults change
//! it. Arithmetic is `+ - * /` on `f64` (exact by IEEE 754), never a function whose last bit depends on the platform.

pub mod faults;
pub mod generator;

use generator::{Generator, Reading};
use rand_pcg::Pcg32;

pub use faults::Faults;

/// The fleet. Generators take turns: each reports once per round.
#[derive(Debug)]
pub struct Fleet {
    generators: Vec<Generator>,
    turn: usize,
    faults: faults::FaultPlan,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// A record to produce, borrowed from the fleet until the next one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatedRecord<'a> {
    /// The key; `None` only in a bad record.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The error code that a worker must find, `None` for a good record.
    pub fault: Option<&'static str>,
}

impl Fleet {
    /// A fleet of `generators`, named `generator1` to `generatorN`.
    #[must_use]
    pub fn new(seed: u64, generators: u32, faults: Faults) -> Fleet {
        Fleet {
            generators: (0..generators.max(1)).map(|index| Generator::new(seed, index)).collect(),
            turn: 0,
            faults: faults::FaultPlan::new(seed, faults),
            key: Vec::with_capacity(64),
            value: Vec::with_capacity(256),
        }
    }

    /// Makes the next record.
    // Not an iterator: the record borrows from the fleet.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> SimulatedRecord<'_> {
        let number = self.turn + 1;
        self.key.clear();
        self.value.clear();
        self.key.extend_from_slice(b"generator");
        write_integer(&mut self.key, number);
        if let Some(fault) = self.faults.next() {
            let bad = fault.write(number, &mut self.key, &mut self.value);
            return SimulatedRecord {
                key: bad.keyed.then_some(&self.key),
                value: Some(&self.value),
                fault: Some(bad.code),
            };
        }
        let reading = self.generators[self.turn].step();
        self.turn = (self.turn + 1) % self.generators.len();
        write_reading(&mut self.value, &self.key, &reading);
        SimulatedRecord { key: Some(&self.key), value: Some(&self.value), fault: None }
    }
}

/// A random number generator that is small (a fleet has many) and the same on every platform.
fn random(seed: u64, stream: u64) -> Pcg32 {
    Pcg32::new(seed, stream)
}

fn write_reading(out: &mut Vec<u8>, generator: &[u8], reading: &Reading) {
    out.extend_from_slice(br#"{"generatorID":""#);
    out.extend_from_slice(generator);
    out.extend_from_slice(br#"","lat":"#);
    write_fixed(out, reading.lat_e5.into(), 5);
    out.extend_from_slice(br#","lon":"#);
    write_fixed(out, reading.lon_e5.into(), 5);
    out.extend_from_slice(br#","temperature":"#);
    write_tenths(out, reading.temperature);
    out.extend_from_slice(br#","pressure":"#);
    write_integer(out, reading.pressure as i64);
    out.extend_from_slice(br#","fuel":"#);
    write_tenths(out, reading.fuel);
    if let Some((load, power)) = reading.electrical {
        out.extend_from_slice(br#","load":"#);
        write_integer(out, load as i64);
        out.extend_from_slice(br#","power":"#);
        write_integer(out, power as i64);
    }
    out.push(b'}');
}

/// Rounds to one decimal, which is left out where it is 0.
fn write_tenths(out: &mut Vec<u8>, value: f64) {
    let tenths = (value * 10.0) as i64;
    if tenths % 10 == 0 {
        write_integer(out, tenths / 10);
    } else {
        write_fixed(out, tenths, 1);
    }
}

/// Writes `value` / 10^`decimals`.
fn write_fixed(out: &mut Vec<u8>, value: i64, decimals: usize) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value.unsigned_abs()).as_bytes();
    let whole = digits.len().saturating_sub(decimals);
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits[..whole] });
    out.push(b'.');
    out.extend(std::iter::repeat_n(b'0', decimals.saturating_sub(digits.len())));
    out.extend_from_slice(&digits[whole..]);
}

fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::reading::{self, Field, Parsed};

    fn sequences(
        seed: u64,
        generators: u32,
        faults: Faults,
        records: usize,
    ) -> HashMap<Vec<u8>, Vec<Vec<u8>>> {
        let mut fleet = Fleet::new(seed, generators, faults);
        let mut by_generator: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        for _ in 0..records {
            let record = fleet.next();
            if let (Some(key), Some(value), None) = (record.key, record.value, record.fault) {
                by_generator.entry(key.to_vec()).or_default().push(value.to_vec());
            }
        }
        by_generator
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_gives_others() {
        assert_eq!(sequences(7, 50, Faults::None, 1000), sequences(7, 50, Faults::None, 1000));
        assert_ne!(sequences(7, 50, Faults::None, 1000), sequences(8, 50, Faults::None, 1000));
    }

    #[test]
    fn the_first_reading_of_seed_1_is_what_it_always_was() {
        let mut fleet = Fleet::new(1, 1, Faults::None);
        let first = String::from_utf8(fleet.next().value.unwrap_or_default().to_vec());
        assert_eq!(first.as_deref(), Ok(GOLDEN));
    }

    const GOLDEN: &str = concat!(
        r#"{"generatorID":"generator1","lat":36.01507,"lon":139.33311,"temperature":73.3,"#,
        r#""pressure":285,"fuel":211.3,"load":60,"power":195}"#
    );

    #[test]
    fn fixed_decimals_keep_their_zeros_and_their_sign() {
        for (value, decimals, written) in [
            (0, 5, "0.00000"),
            (-7, 5, "-0.00007"),
            (4_065_990, 5, "40.65990"),
            (-11_199_633, 5, "-111.99633"),
            (739, 1, "73.9"),
            (-5, 1, "-0.5"),
        ] {
            let mut out = Vec::new();
            write_fixed(&mut out, value, decimals);
            assert_eq!(String::from_utf8_lossy(&out), written);
        }
    }

    #[test]
    fn a_generator_reports_the_same_in_a_larger_fleet_and_among_faults() {
        let key = b"generator3".to_vec();
        let alone = &sequences(5, 4, Faults::None, 400)[&key];
        let in_company = &sequences(5, 40, Faults::None, 4000)[&key];
        let among_faults = &sequences(5, 4, Faults::WithoutTooLarge, 410)[&key];
        assert_eq!(alone[..90], in_company[..90]);
        assert_eq!(alone[..90], among_faults[..90]);
    }

    #[test]
    fn good_records_are_good_and_bad_ones_bad_as_they_say() {
        let mut fleet = Fleet::new(3, 100, Faults::All);
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for number in 0..30_000 {
            let record = fleet.next();
            let found = reading::parse(record.key, record.value).err().map(|bad| bad.code.as_str());
            assert_eq!(
                found,
                record.fault,
                "record {number}: {:?}",
                record.value.map(|v| &v[..v.len().min(200)])
            );
            if let Some(code) = found {
                *seen.entry(code).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), reading::ErrorCode::ALL.len(), "each kind appears: {seen:?}");
        let bad: usize = seen.values().sum();
        assert!((150..=600).contains(&bad), "about one in a hundred is bad: {bad}");
    }

    #[test]
    fn readings_are_physical() {
        let mut fleet = Fleet::new(11, 300, Faults::None);
        for _ in 0..60_000 {
            let record = fleet.next();
            let Ok(Parsed::Reading { values, .. }) = reading::parse(record.key, record.value) else {
                panic!("a good reading")
            };
            let get = |field| values.get(field).unwrap_or_default();
            assert!((0.0..=2000.0).contains(&get(Field::Fuel)), "{values:?}");
            assert!((-40.0..=160.0).contains(&get(Field::Temperature)), "{values:?}");
            assert!((0.0..=600.0).contains(&get(Field::Pressure)), "{values:?}");
            assert!((0.0..=100.0).contains(&get(Field::Load)), "{values:?}");
        }
    }

    /// Runs the two default rules serially over `rounds` rounds of a thousand generators, as a newcomer sees them.
    fn incidents(rounds: usize) -> [[usize; 2]; 2] {
        let mut fleet = Fleet::new(1, 1000, Faults::None);
        let mut active = vec![[false; 2]; 1000];
        let mut counts = [[0; 2]; 2];
        for number in 0..rounds * 1000 {
            let record = fleet.next();
            let Ok(Parsed::Reading { values, .. }) = reading::parse(record.key, record.value) else {
                continue;
            };
            let fuel = values.get(Field::Fuel).unwrap_or_default();
            let temperature = values.get(Field::Temperature).unwrap_or_default();
            let conditions = [(fuel < 200.0, fuel > 250.0), (temperature > 100.0, temperature < 95.0)];
            for (rule, (raise, clear)) in conditions.into_iter().enumerate() {
                let active = &mut active[number % 1000][rule];
                if !*active && raise {
                    *active = true;
                    counts[rule][0] += 1;
                } else if *active && clear {
                    *active = false;
                    counts[rule][1] += 1;
                }
            }
        }
        counts
    }

    #[test]
    fn a_fleet_has_incidents_and_most_of_them_end() {
        let [low_fuel, hot] = incidents(20);
        let raised = low_fuel[0] + hot[0];
        assert!((20..=120).contains(&raised), "in 20 readings each: {low_fuel:?} {hot:?}");
        assert!(low_fuel[1] + hot[1] > 0, "in 20 readings each: {low_fuel:?} {hot:?}");
        for (rule, [raised, cleared]) in
            [("low_fuel", incidents(200)[0]), ("over_temperature", incidents(200)[1])]
        {
            assert!((80..=800).contains(&raised), "{rule}: {raised} raised in 200 readings each");
            assert!(cleared * 10 >= raised * 6, "{rule}: {cleared} of {raised} cleared");
        }
    }
}
