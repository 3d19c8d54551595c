//! Records as producers write them, good and bad, with their meaning.

use genwatch_core::alarm::detector::Job;
use genwatch_core::handler::effect::DeadLetter;
use genwatch_core::pool::intake::Intake;
use genwatch_core::reading;
use genwatch_core::types::{Epoch, Millis, Offset};
use genwatch_oracle::{LogRecord, Meaning, Numbers};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::json;

/// The readings topic of every test.
pub const TOPIC: &str = "readings";

/// A record of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its offset.
    pub offset: i64,
    /// The leader epoch under which it was written.
    pub epoch: i32,
    /// Its event time.
    pub at: i64,
    /// When it was appended to the log, in virtual time.
    pub appended: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// The generator; unused if the record is bad.
    pub generator: String,
    /// Its meaning.
    pub meaning: Meaning,
}

impl Entry {
    /// The record in the oracle's form.
    pub fn record(&self) -> LogRecord<'_> {
        let Entry { offset, epoch, at, generator, meaning, .. } = self;
        LogRecord { offset: *offset, epoch: *epoch, at: *at, generator, meaning }
    }

    /// Takes it in, as a worker does: parsed, as a reading of `bytes` bytes, or as a dead letter.
    pub fn take_in(&self, intake: &mut Intake<'_>, bytes: usize) {
        let (offset, at) = (Offset(self.offset), Millis(self.at));
        match reading::parse(self.key.as_deref(), self.value.as_deref()) {
            Ok(parsed) => {
                let (generator, job) = Job::of(&parsed);
                intake.take_in(offset, at, generator, job, bytes, || Epoch(self.epoch));
            }
            Err(error) => intake.take_in_bad(DeadLetter {
                partition: intake.partition(),
                offset,
                timestamp: at,
                key: self.key.clone(),
                value: self.value.clone(),
                headers: Vec::new(),
                error,
            }),
        }
    }
}

/// A kind of bad record; its code is in the dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that aren't text.
    NotUtf8,
    /// Text that isn't JSON.
    NotJson,
    /// JSON that isn't an object.
    NotObject,
    /// A field twice.
    Duplicate,
    /// A missing field.
    Missing,
    /// A string where a number belongs.
    WrongType,
    /// A latitude beyond the pole.
    OutOfRange,
    /// No key.
    KeyMissing,
    /// The key of another generator.
    KeyMismatch,
    /// Neither value nor key.
    Nothing,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 10] = [
        Fault::NotUtf8,
        Fault::NotJson,
        Fault::NotObject,
        Fault::Duplicate,
        Fault::Missing,
        Fault::WrongType,
        Fault::OutOfRange,
        Fault::KeyMissing,
        Fault::KeyMismatch,
        Fault::Nothing,
    ];

    fn code(self) -> &'static str {
        match self {
            Fault::NotUtf8 => "not_utf8",
            Fault::NotJson => "not_json",
            Fault::NotObject => "not_object",
            Fault::Duplicate => "duplicate_field",
            Fault::Missing => "missing_field",
            Fault::WrongType => "wrong_type",
            Fault::OutOfRange => "out_of_range",
            Fault::KeyMissing | Fault::Nothing => "key_missing",
            Fault::KeyMismatch => "key_mismatch",
        }
    }
}

/// A good reading.
pub fn reading(offset: i64, at: i64, generator: &str, numbers: Numbers) -> Entry {
    let value = json(generator, &numbers).to_string().into_bytes();
    let key = Some(generator.as_bytes().to_vec());
    let meaning = Meaning::Reading(numbers);
    entry((offset, at), key, Some(value), generator, meaning)
}

/// A decommissioning.
pub fn tombstone(offset: i64, at: i64, generator: &str) -> Entry {
    let key = Some(generator.as_bytes().to_vec());
    entry((offset, at), key, None, generator, Meaning::Decommissioned)
}

/// A bad record.
pub fn bad(offset: i64, at: i64, generator: &str, fault: Fault) -> Entry {
    let numbers =
        Numbers { lat: 1.0, lon: 1.0, temperature: 1.0, pressure: 1.0, fuel: 1.0, load: None, power: None };
    let mut good = json(generator, &numbers);
    let text = good.to_string();
    let key = Some(generator.as_bytes().to_vec());
    let (key, value) = match fault {
        Fault::NotUtf8 => (key, Some(b"{\"generatorID\":\"\xff\"}".to_vec())),
        Fault::NotJson => (key, Some(text.as_bytes()[..text.len() - 1].to_vec())),
        Fault::NotObject => (key, Some(format!("[{text}]").into_bytes())),
        Fault::Duplicate => (key, Some(text.replacen('{', "{\"fuel\":0,", 1).into_bytes())),
        Fault::Missing => {
            good["pressure"] = serde_json::Value::Null;
            (key, Some(good.to_string().into_bytes()))
        }
        Fault::WrongType => {
            good["fuel"] = json!("901");
            (key, Some(good.to_string().into_bytes()))
        }
        Fault::OutOfRange => {
            good["lat"] = json!(90.5);
            (key, Some(good.to_string().into_bytes()))
        }
        Fault::KeyMissing => (None, Some(text.into_bytes())),
        Fault::KeyMismatch => (Some(b"another".to_vec()), Some(text.into_bytes())),
        Fault::Nothing => (None, None),
    };
    let meaning = Meaning::Bad(fault.code());
    entry((offset, at), key, value, generator, meaning)
}

/// Epoch and time are set on append.
fn entry(
    (offset, at): (i64, i64),
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    generator: &str,
    meaning: Meaning,
) -> Entry {
    Entry { offset, epoch: 0, at, appended: 0, key, value, generator: generator.to_owned(), meaning }
}

/// Numbers on a coarse grid around the thresholds that [`crate::scenario`] draws, so that phases change often.
pub fn numbers(rng: &mut impl Rng) -> Numbers {
    let mut grid = || f64::from(rng.random_range(0..=10)) * 10.0;
    let (fuel, temperature, pressure, load, power) = (grid(), grid(), grid(), grid(), grid());
    Numbers {
        lat: 40.65995,
        lon: -111.99633,
        temperature,
        pressure,
        fuel,
        load: rng.random_bool(0.6).then_some(load),
        power: rng.random_bool(0.3).then_some(power),
    }
}

/// A record of a random kind.
pub fn any(rng: &mut impl Rng, offset: i64, at: i64, generator: &str, rarity: &Rarity) -> Entry {
    if rng.random_bool(rarity.bad) {
        let fault = *Fault::ALL.choose(rng).unwrap_or(&Fault::NotJson);
        bad(offset, at, generator, fault)
    } else if rng.random_bool(rarity.tombstone) {
        tombstone(offset, at, generator)
    } else {
        let numbers = numbers(rng);
        reading(offset, at, generator, numbers)
    }
}

/// How often a record isn't a reading.
#[derive(Clone, Debug)]
pub struct Rarity {
    /// The share of bad records.
    pub bad: f64,
    /// The share of tombstones among good records.
    pub tombstone: f64,
}

fn json(generator: &str, numbers: &Numbers) -> serde_json::Value {
    let mut json = json!({
        "generatorID": generator,
        "lat": numbers.lat,
        "lon": numbers.lon,
        "temperature": numbers.temperature,
        "pressure": numbers.pressure,
        "fuel": numbers.fuel,
    });
    if let Some(load) = numbers.load {
        json["load"] = json!(load);
    }
    if let Some(power) = numbers.power {
        json["power"] = json!(power);
    }
    json
}
